"""Releases under load: no request is lost, and the check is known to see one that is.

Samples by default; `PACKAGE_PLATFORM_SOAK=1` sends the whole number that the issue asks for.
"""

import os
import time
from pathlib import Path

import pytest

from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request, Results, back_end_requests
from tests.cluster.program import Program

SOAK = os.environ.get("PACKAGE_PLATFORM_SOAK") == "1"
LEAST_REQUESTS = 20_000 if SOAK else 5_000
LEAST_FRONT_END_REQUESTS = 5_000 if SOAK else 1_500
LEAST_CALLS = 1_000
BACK_END_RATE = 200
FRONT_END_RATE = 30
CALL_RATE = 50
HEAD_START_SECONDS = 2.0
MOST_UNPROTECTED_RELEASES = 3
API = "SJZY.Package.Api"
OUTPUT = "SJZY.Package.Output.Api"
FRONT_END = "packet"
UNPROTECTED = """
shutdown: {preStopSeconds: 0, drainSeconds: 0}
env: {DRAIN: "off"}
"""


def release(program: Program, *projects: str) -> None:
    """Give projects another tag by `pulumi up`, and wait until the last pod of the old one is gone."""
    for project in projects:
        program.set_tag(project, program.other_tag(project))
    program.up()
    program.wait_until_settled()


def assert_nothing_lost(results: Results, least: int, before: str, after: str) -> None:
    assert len(results.hits) >= least
    assert not results.failed, results.summary()
    assert results.tags == [before, after], "both answered, the new one after the old one, and no third"
    assert {hit.tag for hit in results.hits[-100:]} == {after}


def calls(program: Program) -> list[Request]:
    """Return requests for which one back end calls another by the name of its Service."""
    url, host = program.url(API, "/call?url=http://sjzy-package-output-api/inner")
    return [Request(url, host), Request(url, host, "POST")]


def assert_every_call_arrived(results: Results, before: dict[str, str], after: dict[str, str]) -> None:
    assert len(results.hits) >= LEAST_CALLS
    assert not results.failed, results.summary()
    called = [hit.said["called"] for hit in results.hits]
    assert {call["status"] for call in called} == {200}
    assert {(call["body"]["project"], call["body"]["path"]) for call in called} == {(OUTPUT, "/inner")}
    assert results.tags == [before[API], after[API]]
    assert list(dict.fromkeys(call["body"]["tag"] for call in called)) == [before[OUTPUT], after[OUTPUT]]


def test_a_release_of_two_back_ends_and_a_front_end_loses_no_request(
    program: Program, cluster: Cluster, tmp_path: Path
) -> None:
    before = program.tags
    back = Load(cluster, tmp_path / "back", back_end_requests(*program.url(API)), BACK_END_RATE)
    between = Load(cluster, tmp_path / "between", calls(program), CALL_RATE)
    front = Load(cluster, tmp_path / "front", [Request(*program.url(FRONT_END))], FRONT_END_RATE)
    with back, between, front:
        time.sleep(HEAD_START_SECONDS)
        release(program, API, OUTPUT, FRONT_END)
        back.until(LEAST_REQUESTS)
        between.until(LEAST_CALLS)
        front.until(LEAST_FRONT_END_REQUESTS)
    assert_nothing_lost(back.results(), LEAST_REQUESTS, before[API], program.tags[API])
    assert_nothing_lost(front.results(), LEAST_FRONT_END_REQUESTS, before[FRONT_END], program.tags[FRONT_END])
    assert_every_call_arrived(between.results(), before, program.tags)


def test_the_same_without_the_protections_loses_requests(program: Program, cluster: Cluster, tmp_path: Path) -> None:
    """Pods leave without `preStop`, without grace and without draining: what the check above counts must show.

    The long requests make it nearly certain; what is left to chance is given a few releases.
    """
    program.append(API, UNPROTECTED)
    program.up()
    program.wait_until_settled()
    results = Results(())
    for attempt in range(MOST_UNPROTECTED_RELEASES):
        requests = back_end_requests(*program.url(API))
        with Load(cluster, tmp_path / str(attempt), requests, BACK_END_RATE) as load:
            time.sleep(HEAD_START_SECONDS)
            release(program, API)
        results = load.results()
        if results.failed:
            break
    assert len(results.hits) > 1000
    assert results.failed, "no loss was seen where there must be some: the load can't see one"
    assert len(results.failed) < len(results.hits) / 2, "the app is down, which is not what this is about"


@pytest.mark.soak
def test_a_back_end_calls_another_by_name_while_one_after_the_other_is_released(
    program: Program, cluster: Cluster, tmp_path: Path
) -> None:
    before = program.tags
    with Load(cluster, tmp_path / "calls", calls(program), CALL_RATE) as load:
        time.sleep(HEAD_START_SECONDS)
        release(program, OUTPUT)
        release(program, API)
    assert_every_call_arrived(load.results(), before, program.tags)
