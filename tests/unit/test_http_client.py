"""Tries where no connection is made."""

from collections.abc import Callable

import httpx2
import pytest

import http_client

ANSWER = httpx2.Response(200)


def failing(*errors: Exception) -> Callable[[], httpx2.Response]:
    """Return what fails once with each error, and is answered then."""
    left = list(errors)

    def send() -> httpx2.Response:
        if left:
            raise left.pop(0)
        return ANSWER

    return send


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_WAITS_SECONDS", (0.0, 0.0, 0.0))


def test_where_no_connection_is_made_it_is_tried_again() -> None:
    refused, late = httpx2.ConnectError("refused"), httpx2.ConnectTimeout("late")
    assert http_client.connected(failing(refused, late, refused)) is ANSWER
    with pytest.raises(httpx2.ConnectError):
        http_client.connected(failing(*[refused] * 4))


def test_what_may_have_been_sent_is_not_sent_again() -> None:
    with pytest.raises(httpx2.ReadTimeout):
        http_client.connected(failing(httpx2.ReadTimeout("slow")))
