"""Images in the registry, written: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push.

A registry that does not answer, or answers that it can't now, is asked again for a while; one that refuses is not.
"""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import httpx2
import typer

from model.fields import plain_mapping
from pipeline.errors import PipelineError
from pipeline.image import MANIFEST, Image, digest_of
from registry import MANIFEST_TYPES, Registry, RegistryError

RETRY_SECONDS = 120.0
"""How long a registry may be away, by default."""
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 15.0
_PART_BYTES = 1024 * 1024
_FULL = ("no space left", "quota", "insufficient storage")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
Body = bytes | Callable[[], Iterable[bytes]]


class UploadError(PipelineError):
    """The registry can't be reached, is full, or refuses."""


class Repository:
    """One repository of a registry, that images are written to."""

    def __init__(self, host: str, name: str, retry_seconds: float = RETRY_SECONDS) -> None:
        """Prepare to write.

        Args:
            host: The registry as image references name it.
            name: The repository: ``back/sjzy.package.api``.
            retry_seconds: How long it may be away, for each request.
        """
        self._registry = Registry(host)
        self._retry_seconds = retry_seconds
        self.reference = f"{host}/{name}"
        self.name = name

    def image(self, repository: str, tag: str) -> Image:
        """Return an image that the registry has, of this machine's architecture where there are several.

        Raises:
            UploadError: If it has none, or can't be reached.
        """
        manifest = self._document(repository, f"manifests/{tag}", f"{repository}:{tag}")
        if "manifests" in manifest:
            machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
            fitting = [str(each["digest"]) for each in manifest["manifests"] if _runs_on(machine, each)]
            if not fitting:
                raise UploadError(f"{repository}:{tag} has no image for Linux on {machine}")
            manifest = self._document(repository, f"manifests/{fitting[0]}", f"{repository}:{tag}")
        config = self._document(repository, f"blobs/{manifest['config']['digest']}", f"{repository}:{tag}")
        return Image(cast("list[Mapping[str, Any]]", manifest["layers"]), config)

    def digest(self, tag: str) -> str | None:
        """Return the digest that a tag stands for, None when there is no such tag.

        Raises:
            UploadError: If the registry can't be reached or refuses.
        """
        response = self._ask("HEAD", f"manifests/{tag}", headers={"Accept": MANIFEST_TYPES})
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        self._check(response, f"tag {tag}", HTTPStatus.OK)
        return str(response.headers.get("Docker-Content-Digest", ""))

    def has(self, digest: str) -> bool:
        """Tell whether the repository has a blob.

        Raises:
            UploadError: If the registry can't be reached.
        """
        return self._ask("HEAD", f"blobs/{digest}").status_code == HTTPStatus.OK

    def borrow(self, digest: str, source: str) -> bool:
        """Take a blob over from another repository of the registry, without sending it.

        Returns:
            Whether that was possible.

        Raises:
            UploadError: If the registry can't be reached.
        """
        response = self._ask("POST", f"blobs/uploads/?mount={digest}&from={source}")
        return response.status_code == HTTPStatus.CREATED

    def copy(self, digest: str, source: str) -> None:
        """Send a blob that another repository of the registry has.

        Raises:
            UploadError: If it is not there, or the registry can't be reached or refuses.
        """
        response = self._ask("GET", f"blobs/{digest}", repository=source)
        self._check(response, f"layer {digest} of {source}", HTTPStatus.OK)
        self.send(digest, response.content)

    def send(self, digest: str, content: bytes | Path) -> None:
        """Send a blob.

        Args:
            digest: Of it.
            content: Bytes, or the file with them.

        Raises:
            UploadError: If the registry can't be reached, is full, or refuses.
        """
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        sent = _Sent(content)

        def upload() -> httpx2.Response:
            started = self._once("POST", "blobs/uploads/")
            if started.status_code != HTTPStatus.ACCEPTED:
                return started
            where = started.url.join(started.headers["Location"]).copy_merge_params({"digest": digest})
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            return self._once("PUT", str(where), content=sent.parts, headers=headers)

        self._check(self._patiently(upload, lambda: sent.furthest), f"layer {digest}", HTTPStatus.CREATED)

    def tag(self, tag: str, manifest: bytes) -> str:
        """Give an image a tag, and return its digest; a tag that is this very image's already is fine.

        Raises:
            UploadError: If the registry can't be reached, is full, or refuses.
        """
        response = self._ask("PUT", f"manifests/{tag}", content=manifest, headers={"Content-Type": MANIFEST})
        digest = digest_of(manifest)
        # Harbor refuses to have an immutable tag sent again, also with the image that it has.
        if response.status_code == HTTPStatus.PRECONDITION_FAILED and self.digest(tag) == digest:
            return digest
        self._check(response, f"tag {tag}", HTTPStatus.CREATED)
        return digest

    def _document(self, repository: str, path: str, about: str) -> dict[str, Any]:
        response = self._ask("GET", path, repository=repository, headers={"Accept": f"{MANIFEST_TYPES}, */*"})
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise UploadError(f"the registry has no {about}: push it, or name another one in build.base")
        self._check(response, about, HTTPStatus.OK)
        try:
            found = plain_mapping(response.json())
        except ValueError:
            found = None
        if found is None:
            raise UploadError(f"the registry answers for {about} with something that is no image")
        return found

    def _ask(
        self,
        method: str,
        path: str,
        *,
        repository: str = "",
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        return self._patiently(
            lambda: self._once(method, path, repository=repository, content=content, headers=headers)
        )

    def _once(
        self,
        method: str,
        path: str,
        *,
        repository: str = "",
        content: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        # Where the other repository is another project's, the right to read it is a token of its own.
        actions = "pull" if repository else "pull,push"
        return self._registry.request(
            method, repository or self.name, path, actions=actions, content=content, headers=headers
        )

    def _patiently(
        self, send: Callable[[], httpx2.Response], progress: Callable[[], int] = lambda: 0
    ) -> httpx2.Response:
        """Send until the registry gives an answer that would not be another one soon.

        The time that it may be away begins with a failure, as the upload before that may have taken longer; it begins
        anew with each try that came further than those before.

        Args:
            send: Sends it; called for each try.
            progress: How far the tries came.

        Raises:
            UploadError: If it can't be reached.
        """
        until, wait, furthest = 0.0, _FIRST_WAIT_SECONDS, -1
        while True:
            try:
                response = send()
            except RegistryError as error:
                problem, last = str(error), None
            else:
                if not _passing(response):
                    return response
                problem, last = f"{self.reference}: the registry answers {response.status_code}", response
            if progress() > furthest:
                until, wait, furthest = time.monotonic() + self._retry_seconds, _FIRST_WAIT_SECONDS, progress()
            if time.monotonic() + wait > until:
                if last is not None:
                    return last
                raise UploadError(f"{problem} (asked for {self._retry_seconds:.0f} s)")
            typer.echo(f"{problem}; asked again in {wait:.0f} s", err=True)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def _check(self, response: httpx2.Response, about: str, wanted: HTTPStatus) -> None:
        status = response.status_code
        if status == wanted:
            return
        reason = _reason(response)
        if status == HTTPStatus.INSUFFICIENT_STORAGE or any(word in reason.lower() for word in _FULL):
            raise UploadError(f"{self.reference}: the registry is full: free space or raise its quota: {reason}")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise UploadError(f"{self.reference}: the registry refuses {about} ({status}): {reason}")
        raise UploadError(f"{self.reference}: the registry answers {status} for {about}: {reason}")


def _runs_on(machine: str, descriptor: Mapping[str, Any]) -> bool:
    platform_of = plain_mapping(descriptor.get("platform")) or {}
    return platform_of.get("architecture") == machine and platform_of.get("os", "linux") == "linux"


def _passing(response: httpx2.Response) -> bool:
    return response.status_code == HTTPStatus.TOO_MANY_REQUESTS or response.is_server_error


def _reason(response: httpx2.Response) -> str:
    """Return what the registry says of an error: https://github.com/opencontainers/distribution-spec (error codes)."""
    try:
        errors: list[object] = (plain_mapping(response.json()) or {}).get("errors") or [{}]
        first = plain_mapping(errors[0]) or {}
    except (ValueError, LookupError, TypeError, httpx2.StreamError):
        return "no reason given"
    parts = [str(first.get("message") or ""), json.dumps(first["detail"]) if first.get("detail") else ""]
    return " ".join(part for part in parts if part) or "no reason given"


class _Sent:
    """A blob that is sent in parts, and how much of it was in the best try."""

    def __init__(self, content: bytes | Path) -> None:
        self._content = content
        self.furthest = 0

    def parts(self) -> Iterable[bytes]:
        content = self._content
        done = 0
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
            while part := stream.read(_PART_BYTES):
                yield part
                done += len(part)
                self.furthest = max(self.furthest, done)
