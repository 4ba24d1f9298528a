"""The registry's client against a small HTTP server on loopback that speaks the protocol."""

import base64
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

import docker_login
from registry import ENDPOINT_VARIABLE, ImageMissingError, Registry, RegistryError
from registry import addresses as addresses_of
from tests.unit.stand_in import Answer, Asked, proxied

DIGEST = f"sha256:{'ab' * 32}"
LOGIN = base64.b64encode(b"robot:secret").decode()


class Handler(BaseHTTPRequestHandler):
    """A registry with one image; which login it wants is told by the repository's first part."""

    page = ""
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        port = self.headers["Host"].rpartition(":")[2]
        if self.path.startswith("/v2/moved/"):
            # Another name of this server: another origin, which asks for a login of its own.
            self._answer(307, {"Location": f"http://localhost:{port}/elsewhere"})
            return
        if self.path == "/elsewhere":
            self._answer(401, {"WWW-Authenticate": f'Bearer realm="http://localhost:{port}/token",service="s"'})
            return
        if self.path.startswith("/v2/html/"):
            realm = f"http://127.0.0.1:{port}/html?"
            self._answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})
            return
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
        self.asked.append(self.path)
        if self.path.startswith("/html"):
            self._answer(200, {"Content-Type": "text/html"}, self.page.encode())
            return
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


@pytest.mark.usefixtures("login")
def test_the_login_is_not_for_another_server_that_asks_for_one(registry: str) -> None:
    Handler.asked.clear()
    assert Registry(registry).request("HEAD", "moved/x", "blobs/1").status_code == 401
    assert not Handler.asked


@pytest.mark.parametrize("page", ["<html>Sign in</html>", "[]", '{"message": "hello"}'])
def test_a_token_service_that_answers_with_something_else_is_named(
    registry: str, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setattr(Handler, "page", page)
    with pytest.raises(RegistryError, match=r"/html\? .* is no token: .* proxy or a login page"):
        Registry(registry).digest("html/x", "1")


def test_an_address_that_is_none_is_a_registry_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://127.0.0.1:port")
    with pytest.raises(RegistryError, match=r"can't be reached at http://127.0.0.1:port"):
        Registry("harbor.example.com").digest("open/x", "1")


def test_the_registry_is_asked_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(request: Asked) -> Answer:
        asked.append(f"{request.method} {request.path}")
        return Answer(headers={"Docker-Content-Digest": DIGEST})

    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://registry.invalid")
    with proxied(answer, monkeypatch):
        assert Registry("harbor.example.com").digest("open/x", "1") == DIGEST
    assert asked == ["HEAD http://registry.invalid/v2/open/x/manifests/1"]


def test_a_registry_on_loopback_is_asked_without_a_proxy(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxied(lambda _: Answer(502), monkeypatch):
        assert Registry(registry).digest("open/x", "1") == DIGEST


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://10.89.0.5:5000", ["10.89.0.5"]),
        ("http://[fd00::5]:5000", ["[fd00::5]"]),
        ("https://registry.example.com", []),
        ("http://[", []),
        ("", []),
    ],
)
def test_an_address_of_the_endpoint_is_asked_without_a_proxy(url: str, addresses: list[str]) -> None:
    assert addresses_of(url) == addresses


def test_a_proxy_that_can_not_be_used_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://me:hidden@127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"a proxy that \$HTTPS_PROXY, .* can't be used: give it as") as caught:
        Registry("harbor.example.com").digest("open/x", "1")
    assert "hidden" not in str(caught.value)


AUTH = {"auth": LOGIN}
HELPER = """#!/bin/sh
echo "$0 $@" >> {folder}/called
cat >> {folder}/called
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper `docker-credential-own` that has the login, and notes how it was asked."""
    path = tmp_path / "docker-credential-own"
    told = json.dumps({"ServerURL": "x", "Username": "robot", "Secret": "secret"})
    path.write_text(f"{HELPER.format(folder=tmp_path)}\necho '{told}'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return path


def remember(folder: Path, config: object) -> None:
    """Write Docker's file."""
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "auths",
    [
        {"https://harbor.example.com": AUTH},
        {"http://harbor.example.com": AUTH},
        {"https://harbor.example.com/v1/": AUTH},
        {"https://other.example.com": {"auth": "x"}, "harbor.example.com/v2": AUTH},
        {"harbor.example.com": {"username": "robot", "password": "secret"}},
    ],
)
def test_a_login_is_found_as_docker_and_others_write_it(
    registry: str, tmp_path: Path, auths: dict[str, object]
) -> None:
    remember(tmp_path, {"auths": auths, "credsStore": "there-is-none"})
    assert Registry(registry).digest("basic/x", "1") == DIGEST


@pytest.mark.parametrize(
    "config",
    [
        [],
        None,
        {"auths": None},
        {"auths": []},
        {"auths": {"harbor.example.com": None}},
        {"auths": {"harbor.example.com": {"auth": 1, "username": "robot"}}},
        {"auths": {"other-harbor.example.com": AUTH, "harbor.example.com.evil": AUTH}},
        {"credHelpers": [], "credsStore": None},
    ],
)
def test_a_file_without_the_login_asks_for_one(registry: str, tmp_path: Path, config: object) -> None:
    remember(tmp_path, config)
    with pytest.raises(RegistryError, match=r"^harbor.example.com asks for a login: run `docker login"):
        Registry(registry).digest("basic/x", "1")


@pytest.mark.parametrize(
    "config",
    [
        {"credsStore": "own"},
        {"credsStore": "own", "auths": {"harbor.example.com": {}}},
        {"credHelpers": {"harbor.example.com": "own"}, "credsStore": "there-is-none"},
        {
            "credHelpers": {"https://harbor.example.com": "own"},
            "auths": {"harbor.example.com": {"auth": "b2xkOm9sZA=="}},
        },
    ],
)
@pytest.mark.usefixtures("helper")
def test_a_credential_helper_is_asked_once_with_the_host_on_its_input(
    registry: str, tmp_path: Path, config: object
) -> None:
    remember(tmp_path, config)
    asked = Registry(registry)
    assert asked.digests([("basic/x", "1"), ("bearer/x", "1")]) == {("basic/x", "1"): DIGEST, ("bearer/x", "1"): DIGEST}
    assert (tmp_path / "called").read_text() == f"{tmp_path}/docker-credential-own get\nharbor.example.com"


def test_a_registry_that_asks_for_no_login_needs_no_helper(registry: str, tmp_path: Path) -> None:
    remember(tmp_path, {"credsStore": "there-is-none"})
    assert Registry(registry).digest("open/x", "1") == DIGEST


def test_a_helper_that_has_no_login_is_no_failure(registry: str, tmp_path: Path, helper: Path) -> None:
    remember(tmp_path, {"credsStore": "own"})
    helper.write_text("#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
    with pytest.raises(RegistryError, match=r"^harbor.example.com asks for a login: run `docker login"):
        Registry(registry).digest("basic/x", "1")


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (
            "echo hidden; echo hidden >&2; exit 3",
            "docker-credential-own gave no login for harbor.example.com (exit code 3)",
        ),
        ("echo hidden", "docker-credential-own answered for harbor.example.com with something that is no login: run"),
        ("exec sleep 60", "docker-credential-own gave no login for harbor.example.com within 0 s: run `docker login"),
        (
            """echo '{"Username": "<token>", "Secret": "hidden"}'""",
            "docker-credential-own has a token for harbor.example.com, and no password: run `docker login",
        ),
    ],
)
def test_a_helper_that_fails_is_named_and_what_it_says_is_not_told(
    registry: str, helper: Path, monkeypatch: pytest.MonkeyPatch, script: str, line: str
) -> None:
    remember(helper.parent, {"credsStore": "own"})
    helper.write_text(f"#!/bin/sh\n{script}\n")
    if "sleep" in script:
        monkeypatch.setattr(docker_login, "_HELPER_SECONDS", 0.1)
    with pytest.raises(RegistryError) as caught:
        Registry(registry).digest("basic/x", "1")
    assert str(caught.value).startswith(line)
    assert "hidden" not in str(caught.value)


def test_a_helper_that_is_missing_is_named(registry: str, tmp_path: Path) -> None:
    remember(tmp_path, {"credHelpers": {"harbor.example.com": "there-is-none"}})
    with pytest.raises(RegistryError, match=r"^docker-credential-there-is-none, which .* can't be started \(No such"):
        Registry(registry).digest("bearer/x", "1")
