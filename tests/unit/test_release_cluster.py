"""What the command makes of an API server that answers something else than what was asked for."""

from collections.abc import Callable, Sequence

import httpx2
import pytest

from release import cluster as module
from release.cluster import Cluster, ClusterError

BUSY = httpx2.Response(429, text="Too many requests, please try again later.\n", headers={"Retry-After": "1"})
STARTING = httpx2.Response(500, text="storage is (re)initializing")
EMPTY = httpx2.Response(200, json={"items": []})
MISSING = httpx2.Response(404, json={"kind": "Status", "message": 'services "x" not found'})
ASKS: dict[str, Callable[[Cluster], object]] = {
    "records": lambda cluster: cluster.records(),
    "record": lambda cluster: cluster.record("x"),
    "exists": lambda cluster: cluster.exists("api/v1/namespaces/n/services/x"),
    "deployments": lambda cluster: cluster.deployments("x"),
    "pods": lambda cluster: cluster.pods("x"),
    "proxies": lambda cluster: cluster.proxies("nginx"),
}
LISTS = ("records", "deployments", "pods", "proxies")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between tries; nothing is waited for."""
    found: list[float] = []
    monkeypatch.setattr(module.time, "sleep", found.append)
    return found


def answering(*answers: httpx2.Response | Exception) -> tuple[Cluster, list[str]]:
    """Return a cluster that gives these answers one after another, the last one for ever, and what it was asked.

    One that is an exception is raised instead.
    """
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        given = answers[min(len(asked), len(answers)) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    client = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="https://cluster.test")
    return Cluster(client, "n"), asked


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize(
    "answer",
    [
        BUSY,
        STARTING,
        httpx2.Response(400, text="bad request"),
        httpx2.Response(410, json={"message": "gone"}),
        httpx2.Response(302, headers={"Location": "https://login.test"}),
        httpx2.Response(403, json=["no object"]),
    ],
    ids=["busy", "starting", "plain text", "gone", "login page", "a list"],
)
def test_what_is_no_answer_is_not_taken_for_nothing(
    ask: Callable[[Cluster], object], answer: httpx2.Response, pauses: Sequence[float]
) -> None:
    """A record that can't be read, taken for none, would make a first release of the next one."""
    with pytest.raises(ClusterError, match=str(answer.status_code)):
        ask(answering(answer)[0])
    assert sum(pauses) <= 10


def test_an_object_that_is_not_there_is_none() -> None:
    cluster, _ = answering(MISSING)
    assert cluster.record("x") is None
    assert cluster.service("x") is None
    assert not cluster.exists("api/v1/namespaces/n/services/x")


@pytest.mark.parametrize("ask", LISTS)
def test_a_list_that_the_server_does_not_know_is_not_an_empty_one(ask: str) -> None:
    with pytest.raises(ClusterError, match=r"404.*KUBECONFIG"):
        ASKS[ask](answering(httpx2.Response(404, text="404 page not found\n"))[0])


@pytest.mark.parametrize("ask", [*LISTS, "record"])
@pytest.mark.parametrize("text", ["<html>log in", "[]", "null", '"items"'])
def test_what_is_no_object_is_no_traceback(ask: str, text: str) -> None:
    with pytest.raises(ClusterError, match="KUBECONFIG"):
        ASKS[ask](answering(httpx2.Response(200, text=text))[0])


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (BUSY, 1.0),
        (STARTING, 0.5),
        (httpx2.Response(503, headers={"Retry-After": "3600"}), 5.0),
        (httpx2.Response(503, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), 0.5),
    ],
    ids=["as it says", "says nothing", "no longer than", "a date"],
)
def test_a_busy_server_is_asked_again(answer: httpx2.Response, pause: float, pauses: list[float]) -> None:
    cluster, asked = answering(answer, EMPTY)
    assert cluster.pods("x") == []
    assert len(asked) == 2
    assert pauses == [pause]


@pytest.mark.parametrize(
    "error",
    [httpx2.RemoteProtocolError("Server disconnected"), httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow")],
    ids=["cut off", "refused", "slow"],
)
def test_a_server_that_goes_away_for_a_moment_is_asked_again(error: Exception, pauses: list[float]) -> None:
    cluster, asked = answering(error, error, EMPTY)
    assert cluster.pods("x") == []
    assert len(asked) == 3
    assert pauses == [0.5, 0.5]
    cluster, asked = answering(error)
    with pytest.raises(ClusterError, match="does not answer"):
        cluster.pods("x")
    assert len(asked) == 3


def test_a_proxy_and_a_log_are_asked_once(pauses: list[float]) -> None:
    """They are asked again anyway, and a node that is lost must not hold up the look at all others."""
    cluster, asked = answering(httpx2.Response(503, text="no route to host"))
    with pytest.raises(ClusterError, match="503"):
        cluster.metrics({"metadata": {"name": "traefik-a", "namespace": "i"}})
    assert cluster.log("x", "x", 15, previous=False) == []
    assert len(asked) == 2
    assert pauses == []
