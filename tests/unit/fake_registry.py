"""A registry in memory, on loopback, that keeps what is pushed.

It can be down, full, slow or unwilling to share layers, break uploads off, have tags that are immutable, want a login,
or have its blobs on another server, as one on S3 or OSS.
"""

import hashlib
import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.image import CONFIG, LAYER, MANIFEST
from tests.unit.stand_in import serving


class FakeRegistry:
    """What it has, and how it behaves."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.failures = 0
        self.full = False
        self.immutable = False
        self.slow_seconds = 0.0
        self.broken_uploads = 0
        self.shares = True
        self.login = ""
        self.elsewhere = ""
        self.asked: list[str] = []
        self.asked_elsewhere: list[str] = []

    def add(self, repository: str, tag: str, config: dict[str, Any], layer: bytes) -> None:
        """Keep an image of one layer."""
        stored = json.dumps(config).encode()
        for content in (stored, layer):
            self.blobs[repository, digest(content)] = content
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(stored), "size": len(stored)},
            "layers": [{"mediaType": LAYER, "digest": digest(layer), "size": len(layer)}],
        }
        self.manifests[repository, tag] = json.dumps(manifest).encode()

    def image(self, repository: str, tag: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return an image's manifest and configuration, all of whose blobs have to be there."""
        manifest = json.loads(self.manifests[repository, tag])
        for layer in manifest["layers"]:
            assert digest(self.blobs[repository, layer["digest"]]) == layer["digest"]
        return manifest, json.loads(self.blobs[repository, manifest["config"]["digest"]])

    @contextmanager
    def serving(self) -> Generator[str]:
        """Serve on loopback; gives the URL."""
        with serving(type("Handler", (_Handler,), {"registry": self})) as url:
            yield url

    @contextmanager
    def storing(self) -> Generator[None]:
        """Send who reads a blob to another server."""
        with serving(type("Storage", (_Storage,), {"registry": self})) as self.elsewhere:
            yield
        self.elsewhere = ""


def digest(content: bytes) -> str:
    """Return a content's digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry

    def do_HEAD(self) -> None:
        self._read()

    def do_GET(self) -> None:
        self._read()

    def do_POST(self) -> None:
        repository, _, rest = self._path()
        if self._is_away():
            return
        query = {name: values[0] for name, values in parse_qs(urlsplit(rest).query).items()}
        source = (query.get("from", ""), query.get("mount", ""))
        if self.registry.shares and source in self.registry.blobs:
            self.registry.blobs[repository, source[1]] = self.registry.blobs[source]
            self._answer(201)
        else:
            self._answer(202, {"Location": f"/v2/{repository}/blobs/uploads/1?state=x"})

    def do_PUT(self) -> None:
        repository, kind, rest = self._path()
        content = self._body()
        if self._is_away():
            return
        if self.registry.full:
            error = {"code": "DENIED", "message": "adding 1 MiB of storage will exceed the quota of 10 GiB"}
            self._answer(412, {}, json.dumps({"errors": [error]}).encode())
        elif kind == "manifests" and self.registry.immutable and (repository, rest) in self.registry.manifests:
            # As Harbor does, whatever the image is.
            error = {
                "code": "PRECONDITION",
                "message": f"Failed to process request due to '{rest}' configured as immutable.",
            }
            self._answer(412, {}, json.dumps({"errors": [error]}).encode())
        elif kind == "blobs" and self.registry.broken_uploads:
            self.registry.broken_uploads -= 1
            time.sleep(self.registry.slow_seconds)
            self._answer(502)
        elif kind == "manifests":
            self.registry.manifests[repository, rest] = content
            self.registry.manifests[repository, digest(content)] = content
            self._answer(201)
        else:
            wanted = parse_qs(urlsplit(rest).query)["digest"][0]
            assert wanted == digest(content)
            time.sleep(self.registry.slow_seconds)
            self.registry.blobs[repository, wanted] = content
            self._answer(201)

    def _read(self) -> None:
        repository, kind, rest = self._path()
        if self._is_away():
            return
        kept = self.registry.manifests if kind == "manifests" else self.registry.blobs
        content = kept.get((repository, rest))
        if content is None:
            self._answer(404)
        elif kind == "blobs" and self.registry.elsewhere:
            self._answer(307, {"Location": f"{self.registry.elsewhere}{self.path}"})
        else:
            self._answer(200, {"Docker-Content-Digest": digest(content)}, content)

    def _is_away(self) -> bool:
        self.registry.asked.append(f"{self.command} {self.path}")
        if self.registry.failures:
            self.registry.failures -= 1
            self._answer(503)
            return True
        if self.registry.login and self.headers.get("Authorization") != self.registry.login:
            self._answer(401, {"WWW-Authenticate": 'Basic realm="registry"'})
            return True
        return False

    def _path(self) -> tuple[str, str, str]:
        path = self.path.removeprefix("/v2/")
        for kind in ("manifests", "blobs"):
            repository, found, rest = path.partition(f"/{kind}/")
            if found:
                return repository, kind, rest
        return path, "", ""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        pass


class _Storage(_Handler):
    """Has a registry's blobs; as S3 does, it refuses a login beside the one that its address has."""

    def _read(self) -> None:
        self.registry.asked_elsewhere.append(f"{self.command} {self.path}")
        repository, _, rest = self._path()
        if "Authorization" in self.headers:
            self._answer(400, {}, b"<Error><Code>InvalidArgument</Code></Error>")
        else:
            self._answer(200, {}, self.registry.blobs[repository, rest])
