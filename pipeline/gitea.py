"""Gitea's HTTP API, as far as the webhooks need it (https://docs.gitea.com/api/)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

import httpx2

import http_client
from model.fields import plain_mapping
from pipeline.errors import PipelineError

_TIMEOUT_SECONDS = 15.0
_PAGE = 50


class GiteaError(PipelineError):
    """Gitea does not answer, or refuses."""


class Gitea:
    """A Gitea server."""

    def __init__(self, url: str, token: str) -> None:
        """Prepare to ask.

        Args:
            url: Root of the server.
            token: Access token; sent as a header, to this server only.

        Raises:
            GiteaError: If the environment names a proxy that can't be used.
        """
        self._url = url
        try:
            self._client = http_client.client(_TIMEOUT_SECONDS)
        except httpx2.ProxyError as error:
            raise self._unreachable(error) from None
        self._client.base_url = f"{url}/api/v1/"
        self._client.headers.update({"Authorization": f"token {token}", "Accept": "application/json"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def hooks(self, owner: str, repository: str) -> list[Mapping[str, Any]] | None:
        """Return a repository's webhooks, None when there is no such repository, or the token may not see it.

        Raises:
            GiteaError: If the server can't be reached or refuses.
        """
        found: list[Mapping[str, Any]] = []
        while True:
            query = {"page": len(found) // _PAGE + 1, "limit": _PAGE}
            response = self._ask("GET", _path(owner, repository), params=query)
            if response.status_code == HTTPStatus.NOT_FOUND:
                return None
            self._check(response, f"{owner}/{repository}", HTTPStatus.OK)
            page = self._rows(response, f"{owner}/{repository}")
            found += page
            if len(page) < _PAGE:
                return found

    def create_hook(self, owner: str, repository: str, hook: Mapping[str, Any]) -> None:
        """Make a webhook.

        Raises:
            GiteaError: If the server can't be reached or refuses.
        """
        self._check(self._ask("POST", _path(owner, repository), json=hook), f"{owner}/{repository}", HTTPStatus.CREATED)

    def edit_hook(self, owner: str, repository: str, number: int, hook: Mapping[str, Any]) -> None:
        """Change a webhook, but for its secret, which the API does not take here.

        Raises:
            GiteaError: If the server can't be reached or refuses.
        """
        response = self._ask("PATCH", f"{_path(owner, repository)}/{number}", json=hook)
        self._check(response, f"{owner}/{repository}", HTTPStatus.OK)

    def delete_hook(self, owner: str, repository: str, number: int) -> None:
        """Remove a webhook; one that is gone already is fine.

        Raises:
            GiteaError: If the server can't be reached or refuses.
        """
        response = self._ask("DELETE", f"{_path(owner, repository)}/{number}")
        if response.status_code != HTTPStatus.NOT_FOUND:
            self._check(response, f"{owner}/{repository}", HTTPStatus.NO_CONTENT)

    def _ask(self, method: str, path: str, **content: Any) -> httpx2.Response:
        try:
            return http_client.connected(lambda: self._client.request(method, path, **content))
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx2.HTTPError) -> GiteaError:
        return GiteaError(f"Gitea can't be reached at {self._url}: {error}")

    def _rows(self, response: httpx2.Response, about: str) -> list[Mapping[str, Any]]:
        try:
            told = response.json()
        except ValueError:
            told = None
        rows = [plain_mapping(row) for row in cast("list[object]", told)] if isinstance(told, list) else [None]
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            raise GiteaError(
                f"{about}: what answers at {self._url} is no Gitea: check gitea.url in pipeline.yaml, and whether a "
                "proxy or a login page is in front of it"
            )
        return [*found]

    def _check(self, response: httpx2.Response, about: str, wanted: HTTPStatus) -> None:
        status = response.status_code
        if status == wanted:
            return
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            remedy = "$GITEA_TOKEN needs write:repository, of an administrator of the repository"
            raise GiteaError(f"{about}: Gitea refuses the token ({status}): {remedy}")
        raise GiteaError(f"{about}: Gitea answers {status} to {response.request.method}: {_reason(response)}")


def _path(owner: str, repository: str) -> str:
    return f"repos/{quote(owner, safe='')}/{quote(repository, safe='')}/hooks"


def _reason(response: httpx2.Response) -> str:
    try:
        told = response.json()
    except ValueError:
        return "no reason given"
    return str((plain_mapping(told) or {}).get("message", told))
