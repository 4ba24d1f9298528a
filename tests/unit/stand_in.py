"""A local HTTP server that answers as a test says, and remembers what it was asked. It is no Jenkins and no Harbor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """An answer."""

    status: int = 200
    body: str = ""
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@contextmanager
def served(answer: Callable[[Asked], Answer]) -> Generator[str]:
    """Serve on the loopback, and yield the root's URL."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            made = answer(Asked(self.command, self.path, headers, self.rfile.read(length)))
            body = made.body.encode()
            self.send_response(made.status)
            self.send_header("Content-Type", made.kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    with serving(Handler) as url:
        yield url


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Generator[str]:
    """Serve on the loopback as a handler does, and yield the root's URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def always(answer: object) -> Callable[..., object]:
    """Return a method that answers this, whatever it is asked."""

    def method(*_: object) -> object:
        return answer

    return method


@contextmanager
def proxied(answer: Callable[[Asked], Answer], monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    """Serve as the proxy that the environment names for all of HTTP, and yield its URL."""
    with served(answer) as url:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            for spelled in (name, name.upper()):
                monkeypatch.delenv(spelled, raising=False)
        monkeypatch.setenv("HTTP_PROXY", url)
        yield url
