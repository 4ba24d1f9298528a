"""The asset bridge of front ends, by the real nginx: two slots that each have assets of their own."""

import http.client
import http.server
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from devcluster import nginx
from devcluster.progress import Progress
from manifests import asset_bridge
from model.project import ASSET_BRIDGE_PORT, FrontendProject
from model.stack import Application

SLOTS = {
    "packet-main": {},
    "packet-blue": {"/": "page of blue", "/assets/blue.js": "script of blue"},
    "packet-green": {"/": "page of green", "/assets/green.js": "script of green"},
}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    text: str


def ask(port: int, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@contextmanager
def project(files: Mapping[str, str]) -> Generator[tuple[int, list[str]]]:
    """A project's own server: it has these files, and a page of its own for what it lacks."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path} {self.headers['Host']}")
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            text = files.get(self.path, "not here")
            self.send_response(200 if self.path in files else 404)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815 - the base class asks for it

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def bridge(folder: Path, port: int, own: int, others: Mapping[str, int]) -> Generator[None]:
    """Run the bridge as it is rendered; only ports, paths and what stands for the Services' names are others."""
    rendered = FrontendProject(kind="frontend", port=own)
    text = asset_bridge.configuration(Application(gitea_name="packet", file="f", project=rendered, image=None))
    text = text.replace(f"listen {ASSET_BRIDGE_PORT};", f"listen 127.0.0.1:{port};").replace("/tmp/", f"{folder}/")
    for name, other in others.items():
        assert f"server {name}:80 " in text
        text = text.replace(f"server {name}:80 ", f"server 127.0.0.1:{other} ")
    folder.mkdir()
    (folder / "nginx.conf").write_text(text)
    unpacked = nginx.ensure_root(Progress(quiet=True))
    loader = next(path for path in unpacked.rglob("ld-linux-*") if path.is_file())
    libraries = next(path.parent for path in unpacked.rglob("libc.so.6"))
    # Started by root, it would give its work to a user who may not enter the test's folder.
    extra = "daemon off;" + (" user root root;" if os.geteuid() == 0 else "")
    command = [str(loader), "--library-path", str(libraries), str(unpacked / nginx.PROGRAM), "-e", "stderr"]
    with subprocess.Popen([*command, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-g", extra]) as process:
        try:
            wait_for(port, process)
            yield
        finally:
            process.send_signal(signal.SIGQUIT)
            assert process.wait(30) == 0


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


@dataclass(frozen=True)
class Pods:
    """The ports of both bridges, and what the projects behind them were asked."""

    """The ports of both bridges, and what the projects behind them were asked."""

    blue: int
    green: int
    asked: Mapping[str, list[str]]


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Generator[Pods]:
    """A pod of each colour; ``main`` has none, and its Service refuses connections."""
    folder = tmp_path_factory.mktemp("bridges")
    ports = {name: free_port() for name in SLOTS}
    asked: dict[str, list[str]] = {}
    with ExitStack() as stack:
        for name, files in SLOTS.items():
            if files:
                own, asked[name] = stack.enter_context(project(files))
                stack.enter_context(bridge(folder / name, ports[name], own, ports))
        yield Pods(ports["packet-blue"], ports["packet-green"], asked)


def test_what_a_slot_has_it_answers_itself(pods: Pods) -> None:
    assert ask(pods.blue, "/") == Answer(200, "page of blue")
    assert ask(pods.green, "/") == Answer(200, "page of green")
    assert ask(pods.green, "/assets/green.js") == Answer(200, "script of green")


def test_an_asset_that_one_slot_lacks_comes_from_the_other_in_both_directions(pods: Pods) -> None:
    assert ask(pods.green, "/assets/blue.js") == Answer(200, "script of blue")
    assert ask(pods.blue, "/assets/green.js", Host="packet.example.com") == Answer(200, "script of green")
    assert pods.asked["packet-green"][-1] == "GET /assets/green.js packet.example.com"


def test_what_nobody_has_ends_with_the_projects_own_answer(pods: Pods) -> None:
    for port in (pods.blue, pods.green):
        assert ask(port, "/assets/none.js") == Answer(404, "not here")


def test_only_reading_is_asked_of_others(pods: Pods) -> None:
    before = len(pods.asked["packet-green"])
    assert ask(pods.blue, "/assets/green.js", "POST", body="x" * 100_000) == Answer(404, "not here")
    assert len(pods.asked["packet-green"]) == before
    assert pods.asked["packet-blue"][-2:].count(f"POST /assets/green.js 127.0.0.1:{pods.blue}") == 1, "never twice"


def test_one_bridge_does_not_pass_on_what_another_asks(pods: Pods) -> None:
    before = len(pods.asked["packet-green"])
    assert ask(pods.blue, "/assets/green.js", **{"X-Asset-Bridge": "1"}).status == 404
    assert len(pods.asked["packet-green"]) == before
