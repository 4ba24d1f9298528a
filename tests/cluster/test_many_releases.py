"""Ten releases in a row of each strategy, of a back end and a front end, with slow requests in flight: none is lost.

Only `make soak` runs it: some minutes for each strategy, and more than 100,000 requests in all.
"""

import time
from pathlib import Path

import pytest

from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request
from tests.cluster.program import Program
from tests.cluster.releasing import Release

BACK_END, FRONT_END = "SJZY.Package.Api", "packet"
RATE = 300
RELEASES = 10
RELEASES_UNDER_ONE_LOAD = 5
"""So that a load ends before the longest time that it may last."""
LEAST_REQUESTS = 35_000
"""Of each strategy: quick releases go on until so many were sent meanwhile."""
MOST_RELEASES = 60
HEAD_START_SECONDS = 2.0
FAST_REQUESTS = 12
"""To one that takes three seconds."""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2400)]


def requests_of(program: Program) -> list[Request]:
    """Return requests to both projects, most of them quick, one of them slow."""
    url, host = program.url(BACK_END)
    quick = [Request(url, host), Request(url, host, "POST"), Request(*program.url(FRONT_END))]
    return [*quick * (FAST_REQUESTS // len(quick)), Request(f"{url}?delay=3s", host, "POST")]


def released(release: Release, strategy: str, project: str, tag: str) -> str:
    """Release a project the way of its strategy; return what then serves."""
    if strategy == "canary":
        release("canary", project, tag, "--weight=20")
        return str(release("promote", project).said["live"])
    return str(release("deploy", project, tag).said["live"])


@pytest.mark.parametrize("strategy", ["rolling", "blueGreen", "canary"])
def test_ten_releases_in_a_row_lose_no_request(
    program: Program, release: Release, cluster: Cluster, tmp_path: Path, strategy: str
) -> None:
    pairs = {project: (program.other_tag(project), program.tags[project]) for project in (BACK_END, FRONT_END)}
    for project in pairs:
        program.append(project, f"strategy: {strategy}\n")
    program.up()
    sent = 0
    for first in range(0, MOST_RELEASES, RELEASES_UNDER_ONE_LOAD):
        if first >= RELEASES and sent >= LEAST_REQUESTS:
            break
        with Load(cluster, tmp_path / str(first), requests_of(program), RATE) as load:
            time.sleep(HEAD_START_SECONDS)
            for number in range(first, first + RELEASES_UNDER_ONE_LOAD):
                for project, tags in pairs.items():
                    assert released(release, strategy, project, tags[number % 2]) == tags[number % 2]
            program.wait_until_settled()
        results = load.results()
        assert not results.failed, results.summary()
        assert set(results.tags) == set(pairs[BACK_END]) | set(pairs[FRONT_END])
        sent += len(results.hits)
    assert sent >= LEAST_REQUESTS, sent
    (status,) = release("status", BACK_END).said["projects"]
    assert status["drift"] == []
