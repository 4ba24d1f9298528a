"""The registry's client against a small HTTP server on loopback that speaks the protocol."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry import ENDPOINT_VARIABLE, ImageMissingError, Registry, RegistryError

DIGEST = f"sha256:{'ab' * 32}"
LOGIN = base64.b64encode(b"robot:secret").decode()


class Handler(BaseHTTPRequestHandler):
    """A registry with one image; which login it wants is told by the repository's first part."""

    def do_HEAD(self) -> None:
        repository = self.path.removeprefix("/v2/").partition("/manifests/")[0]
        wanted = {"open": None, "basic": f"Basic {LOGIN}", "bearer": "Bearer t0ken"}[repository.partition("/")[0]]
        if wanted and self.headers.get("Authorization") != wanted:
            realm = f"http://{self.headers['Host']}/token"
            challenge = 'Basic realm="r"' if "Basic" in wanted else f'Bearer realm="{realm}",service="s"'
            self._answer(401, {"WWW-Authenticate": challenge})
        elif self.path.endswith("/manifests/1"):
            self._answer(200, {"Docker-Content-Digest": DIGEST})
        elif self.path.endswith("/manifests/broken"):
            self._answer(500, {})
        else:
            self._answer(404, {})

    def do_GET(self) -> None:
        allowed = (
            self.headers.get("Authorization") == f"Basic {LOGIN}"
            and "scope=repository%3Abearer%2Fx%3Apull" in self.path
        )
        self._answer(200 if allowed else 403, {}, json.dumps({"token": "t0ken"}).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        pass


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv(ENDPOINT_VARIABLE, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    yield "harbor.example.com"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def login(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"harbor.example.com": {"auth": LOGIN}}}))


def test_a_tag_becomes_its_digest(registry: str) -> None:
    assert Registry(registry).digest("open/x", "1") == DIGEST


def test_a_missing_image_is_named(registry: str) -> None:
    with pytest.raises(ImageMissingError) as caught:
        Registry(registry).digest("open/x", "2")
    assert str(caught.value) == "harbor.example.com has no image open/x:2: push it, or name a tag that is there"


def test_a_fault_of_the_registry_is_no_missing_image(registry: str) -> None:
    with pytest.raises(RegistryError, match=r"harbor.example.com answered 500 for open/x:broken") as caught:
        Registry(registry).digest("open/x", "broken")
    assert not isinstance(caught.value, ImageMissingError)


@pytest.mark.usefixtures("login")
@pytest.mark.parametrize("repository", ["basic/x", "bearer/x"])
def test_logins(registry: str, repository: str) -> None:
    assert Registry(registry).digest(repository, "1") == DIGEST


@pytest.mark.parametrize("repository", ["basic/x", "bearer/x"])
def test_a_missing_login_says_what_to_do(registry: str, repository: str) -> None:
    with pytest.raises(RegistryError, match=r"docker login harbor.example.com"):
        Registry(registry).digest(repository, "1")


def test_many_at_once_come_back_with_their_errors(registry: str) -> None:
    answers = Registry(registry).digests([("open/x", "1"), ("open/x", "2")])
    assert answers["open/x", "1"] == DIGEST
    assert isinstance(answers["open/x", "2"], ImageMissingError)


def test_a_registry_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"harbor.example.com can't be reached at http://127.0.0.1:9"):
        Registry("harbor.example.com").digest("open/x", "1")
