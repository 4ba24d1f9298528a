"""A canary that goes up by itself on a real cluster, judged by what the ingress counts, under load."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request
from tests.cluster.program import Program
from tests.cluster.releasing import Release
from tests.cluster.test_strategies import pods_of

API = "SJZY.Package.Api"
NAME = "sjzy-package-api"
RATE = 100
HEAD_START_SECONDS = 2.0
RULE = ("--pause=10s", "--max-error-rate=1%", "--max-p99=5s", "--min-requests=20")
MOST_LOST = 0.1
"""Share of the requests that a canary of 10% may cost, if it were there all the time: it is ended after one window."""

pytestmark = pytest.mark.soak


@pytest.fixture
def release(program: Program) -> Iterator[Release]:
    """The command, for a project that is released with canaries; afterwards the stack file wants what runs."""
    files = program.projects()
    program.append(API, "strategy: canary\n")
    program.up()
    program.wait_until_settled()
    command = Release(program)
    yield command
    command.wait_until_gone()
    command("sync")
    program.restore_projects(files)


@pytest.fixture
def load(program: Program, cluster: Cluster, tmp_path: Path) -> Load:
    url, host = program.url(API)
    return Load(cluster, tmp_path / "load", [Request(url, host), Request(url, host, "POST")], RATE)


def test_a_good_canary_goes_up_is_promoted_and_loses_no_request(program: Program, release: Release, load: Load) -> None:
    before, after = program.tags[API], program.other_tag(API)
    with load:
        time.sleep(HEAD_START_SECONDS)
        made = release("canary", API, after, "--steps=10,50,100", *RULE)
        program.wait_until_settled()
        load.until(3000)
    results = load.results()
    assert not results.failed, results.summary()
    assert results.tags == [before, after]
    assert {hit.tag for hit in results.hits[-50:]} == {after}
    assert (made.said["outcome"], made.said["live"]) == ("promoted", after)
    windows = made.said["windows"]
    assert [(each["weight"], each["verdict"]) for each in windows] == [(10, "good"), (50, "good")]
    for each in windows:
        # What the ingress counts is what was sent: the shares are right, and times were counted with it.
        both = each["canary"]["requests"] + each["stable"]["requests"]
        assert each["weight"] / 100 - 0.08 < each["canary"]["requests"] / both < each["weight"] / 100 + 0.08, windows
        assert both > each["seconds"] * RATE * 0.5, windows
        assert each["canary"]["errors"] == 0
        assert each["canary"]["p99Seconds"] is not None
    (status,) = release("status", API).said["projects"]
    assert (status["deployed"], status["drift"]) == (after, [])
    assert set(pods_of(program, NAME).values()) == {"main"}


def test_a_canary_that_answers_errors_is_ended_by_itself(program: Program, release: Release, load: Load) -> None:
    before = program.tags[API]
    with load:
        time.sleep(HEAD_START_SECONDS)
        ended = release("canary", API, "bad-errors", "--steps=10,50,100", *RULE, code=1)
        program.wait_until_settled()
        over = datetime.now(UTC)
        load.until(3000)
    results = load.results()
    assert (ended.said["outcome"], ended.said["weight"], ended.said["live"]) == ("aborted", 0, before)
    (window,) = ended.said["windows"]
    assert (window["weight"], window["verdict"]) == (10, "broken")
    assert window["canary"]["errorRate"] > 0.5
    assert window["stable"]["errorRate"] == 0
    assert "the limit is 1%" in ended.said["reason"]
    # Its own answers are all that failed, and none does any more.
    assert {(hit.code, hit.said.get("tag")) for hit in results.failed} == {(500, "bad-errors")}, results.summary()
    assert len(results.failed) < MOST_LOST * len(results.hits)
    assert {hit.tag for hit in results.hits if hit.time > over} == {before}
    ingress = next(each for each in program.get("ingresses") if each["metadata"]["name"] == f"{NAME}-canary")
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"] == "0"
    assert set(pods_of(program, NAME).values()) == {"main"}
