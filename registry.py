"""The image registry over its HTTP API: which image does a tag stand for?

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull and, for the token,
https://distribution.github.io/distribution/spec/auth/token/. Credentials are those of ``docker login``
(``docker_login.py``); they never go into an argument or a log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2

import docker_login
import http_client
from model.fields import plain_mapping

ENDPOINT_VARIABLE = "PACKAGE_PLATFORM_REGISTRY"
"""Environment variable with the URL under which this machine reaches the registry, where that is not
``https://<host>``; the embedded cluster sets it. An address in it is asked without a proxy."""

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
"""The kinds of image that are understood, for the header ``Accept``."""
_TIMEOUT_SECONDS = 10.0
_STORED_SECONDS = 300.0
"""After the last byte of a large layer, a registry may take minutes to check it and put it into its storage."""
_AT_ONCE = 8


class RegistryError(Exception):
    """The registry could not answer; the message says why and what to do."""


class ImageMissingError(RegistryError):
    """The registry answered: it has no such image."""


class Registry:
    """A registry that answers what a tag stands for."""

    def __init__(self, host: str) -> None:
        """Prepare to ask.

        Args:
            host: The registry as image references name it: ``harbor.example.com``.
        """
        self._host = host
        self._url = os.environ.get(ENDPOINT_VARIABLE, f"https://{host}").rstrip("/")
        self._tokens: dict[str, str] = {}

    @cached_property
    def _client(self) -> httpx2.Client:
        return http_client.client(_TIMEOUT_SECONDS, direct=addresses(os.environ.get(ENDPOINT_VARIABLE, "")))

    @cached_property
    def _login(self) -> str | docker_login.LoginError | None:
        # Asked for once, and only where the registry wants one: a helper may take its time, and fail for each image.
        try:
            return docker_login.credentials(self._host)
        except docker_login.LoginError as error:
            return error

    def digest(self, repository: str, tag: str) -> str:
        """Return the digest (``sha256:…``) of the image that a tag stands for.

        Args:
            repository: Without the host: ``back/sjzy.package.api``.
            tag: The tag.

        Raises:
            ImageMissingError: If there is no such image.
            RegistryError: If the registry can't be reached or refuses.
        """
        response = self.request("HEAD", repository, f"manifests/{tag}", headers={"Accept": MANIFEST_TYPES})
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise ImageMissingError(
                f"{self._host} has no image {repository}:{tag}: push it, or name a tag that is there"
            )
        digest = response.headers.get("Docker-Content-Digest", "")
        if response.status_code != HTTPStatus.OK or not digest.startswith("sha256:"):
            raise RegistryError(f"{self._host} answered {response.status_code} for {repository}:{tag}")
        return digest

    def digests(self, images: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str | RegistryError]:
        """Ask for many ``(repository, tag)`` at once; what fails comes back as its error."""

        def ask(image: tuple[str, str]) -> str | RegistryError:
            try:
                return self.digest(*image)
            except RegistryError as error:
                return error

        wanted = list(images)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(ask, wanted), strict=True))

    def request(  # noqa: PLR0913 - what a request consists of
        self,
        method: str,
        repository: str,
        path: str,
        *,
        actions: str = "pull",
        content: bytes | Callable[[], Iterable[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a request of the registry's protocol, logged in where it asks for that.

        Args:
            method: Of HTTP.
            repository: Without the host.
            path: Below the repository, or a whole URL that the registry gave.
            actions: What is asked of the token, as the protocol has it: ``pull``, ``pull,push``.
            content: Of the request; what has to be sent in parts is given anew for each try.
            headers: Besides those of the login.

        Raises:
            RegistryError: If the registry can't be reached, or refuses the login.
        """
        url = path if path.startswith(("http://", "https://")) else f"{self._url}/v2/{repository}/{path}"
        scope = f"repository:{repository}:{actions}"
        # A registry on S3 or OSS sends who reads a blob there; httpx2 leaves the login behind on the way to another
        # origin. What writes is not sent twice.
        follows = method in {"GET", "HEAD"}

        answered = _STORED_SECONDS if method in {"PUT", "PATCH"} else _TIMEOUT_SECONDS
        timeout = httpx2.Timeout(_TIMEOUT_SECONDS, read=answered)

        def send() -> httpx2.Response:
            token = self._tokens.get(scope) if self._is_ours(url) else None
            own = {**(headers or {}), **({"Authorization": token} if token else {})}
            body = content() if callable(content) else content
            return self._client.request(
                method, url, headers=own, content=body, follow_redirects=follows, timeout=timeout
            )

        try:
            response = http_client.connected(send)
            if response.status_code == HTTPStatus.UNAUTHORIZED and self._is_ours(str(response.url)):
                self._authorize(response.headers.get("WWW-Authenticate", ""), scope)
                response = http_client.connected(send)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RegistryError(f"{self._host} can't be reached at {self._url}: {error}") from None
        return response

    def _is_ours(self, url: str) -> bool:
        """Tell whether a URL is the registry's own: no other server is given its login."""
        return httpx2.URL(url).origin == httpx2.URL(self._url).origin

    def _authorize(self, challenge: str, scope: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        login = self._login
        if isinstance(login, docker_login.LoginError):
            raise RegistryError(str(login))
        if scheme.lower() == "basic":
            if not login:
                raise RegistryError(f"{self._host} asks for a login: run `docker login {self._host}`")
            self._tokens[scope] = f"Basic {login}"
            return
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or "realm" not in fields:
            raise RegistryError(f"{self._host} refuses and names no way to log in")
        query = {"service": fields.get("service", ""), "scope": scope}
        headers = {"Authorization": f"Basic {login}"} if login else {}
        answer = http_client.connected(lambda: self._client.get(fields["realm"], params=query, headers=headers))
        if answer.status_code != HTTPStatus.OK:
            raise RegistryError(
                f"{self._host} refuses the login ({answer.status_code}): run `docker login {self._host}`"
            )
        token = _token(answer)
        if not token:
            raise RegistryError(
                f"{self._host}: what its token service {fields['realm']} answers is no token: check whether a proxy or "
                "a login page is in front of it"
            )
        self._tokens[scope] = f"Bearer {token}"


def addresses(url: str) -> list[str]:
    """Return the address that a URL names, none for a name: to that, a proxy may know the way. Pure."""
    try:
        address = ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return []
    return [f"[{address}]" if address.version == 6 else str(address)]  # noqa: PLR2004 - of the Internet Protocol


def _token(answer: httpx2.Response) -> str | None:
    """Return the token of a token service's answer, None where there is none."""
    try:
        body = plain_mapping(answer.json()) or {}
    except ValueError:
        return None
    return str(body.get("token") or body.get("access_token") or "") or None
