"""The command `release` on a real cluster, under load: good and bad releases, two at once, and whatever is killed."""

import random
import re
import time
from pathlib import Path

import pytest

from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request, Results
from tests.cluster.program import Program
from tests.cluster.releasing import Release

API = "SJZY.Package.Api"
OUTPUT = "SJZY.Package.Output.Api"
RATE = 100
HEAD_START_SECONDS = 2.0
REASON_SECONDS = 60.0
"""From the change of the Deployment to the reason. Some 8 and 22 seconds on two idle cores; of these, 20 are the wait
that a pod is given to become ready."""
KILLS = 5
NO_CHANGES = "--expect-no-changes"


@pytest.fixture
def load(program: Program, cluster: Cluster, tmp_path: Path) -> Load:
    """Requests to one back end, long ones and such as nobody repeats among them."""
    url, host = program.url(API)
    requests = [Request(url, host), Request(url, host, "POST"), Request(f"{url}?delay=1s", host, "POST")]
    return Load(cluster, tmp_path / "load", requests, RATE)


def second_of(progress: str, text: str) -> float:
    """Return when a line of the progress was told, in seconds since the command began."""
    return float(next(line for line in progress.splitlines() if text in line).split()[0])


def assert_nothing_lost(results: Results, *tags: str) -> None:
    assert not results.failed, results.summary()
    assert results.tags == list(tags)


def test_a_release_and_its_rollback_lose_no_request(program: Program, release: Release, load: Load) -> None:
    before, after = program.tags[API], program.other_tag(API)
    with load:
        time.sleep(HEAD_START_SECONDS)
        made = release("deploy", API, after, "--message=https://ci.example.com/7")
        undone = release("rollback", API)
        program.wait_until_settled()
        load.until(3000)
    results = load.results()
    assert not results.failed, results.summary()
    assert (made.said["outcome"], made.said["before"], made.said["live"]) == ("released", before, after)
    assert (undone.said["before"], undone.said["live"]) == (after, before)
    assert set(results.tags) == {before, after}
    assert {hit.tag for hit in results.hits[-50:]} == {before}

    (live, previous, *_) = release("history", API).said["releases"]
    assert (live["tag"], live["live"], live["why"]) == (before, True, "rollback")
    assert (previous["tag"], previous["why"]) == (after, "https://ci.example.com/7")
    (status,) = release("status", API).said["projects"]
    assert (status["deployed"], status["pods"], status["drift"]) == (before, "2/2", [])
    assert status["by"]


@pytest.mark.soak
def test_a_release_touches_nothing_of_other_projects(program: Program, release: Release) -> None:
    """Neither those whose names begin alike, nor the tags that another clone has released."""
    release("deploy", OUTPUT, program.other_tag(OUTPUT))
    program.wait_until_settled()
    before = program.identities()
    release("deploy", "packet", program.other_tag("packet"))
    program.wait_until_settled()
    after = program.identities()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed
    own = ("packet", "packet-")
    others = ("packet-label", "packet-bsi", "packet-shopman", "packet-outcustome")
    for name in (each.split("/")[1] for each in changed):
        assert name.startswith(own), changed
        assert not name.startswith(others), changed
    statuses = {each["project"]: each for each in release("status").said["projects"]}
    assert statuses[OUTPUT]["deployed"] == program.other_tag(OUTPUT)
    assert all(not each["drift"] for each in statuses.values())


@pytest.mark.parametrize(
    ("tag", "reason", "log"),
    [
        ("bad-crash", "CrashLoopBackOff", "cannot open database"),
        pytest.param("bad-unready", "NotReady", "", marks=pytest.mark.soak),
    ],
)
def test_a_bad_release_is_told_in_time_and_put_back(  # noqa: PLR0913, PLR0917 - fixtures
    program: Program, release: Release, load: Load, tag: str, reason: str, log: str
) -> None:
    before = program.tags[API]
    with load:
        time.sleep(HEAD_START_SECONDS)
        failed = release("deploy", API, tag, code=1)
        load.until(2000)
    assert_nothing_lost(load.results(), before)
    failure = failed.said["failure"]
    assert failure["reason"] == reason
    assert failure["pod"].startswith("sjzy-package-api-")
    assert any(line.startswith("event: ") for line in failed.said["details"])
    assert any(log.lower() in line.lower() for line in failed.said["details"] if line.startswith("log: "))
    begun = second_of(failed.progress, "update Deployment")
    assert second_of(failed.progress, f"puts {API} {before} back") - begun <= REASON_SECONDS, failed.progress
    assert (failed.said["restored"], failed.said["live"]) == (True, before)
    program.wait_until_settled()
    program.preview(NO_CHANGES)
    (status,) = release("status", API).said["projects"]
    assert (status["deployed"], status["drift"]) == (before, [])


def test_a_missing_image_changes_nothing(program: Program, release: Release) -> None:
    before = program.identities()
    refused = release("deploy", API, "2099-01-01-00-00", code=2)
    assert "has no image back/sjzy.package.api:2099-01-01-00-00" in refused.progress
    assert program.identities() == before


def test_two_at_once_take_turns_and_both_succeed(program: Program, release: Release) -> None:
    wanted = {project: program.other_tag(project) for project in (API, OUTPUT)}
    with (
        release.started("deploy", API, wanted[API]) as first,
        release.started("deploy", OUTPUT, wanted[OUTPUT]) as second,
    ):
        said = [process.communicate(timeout=420)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    waited = [
        line for each in said for line in each.splitlines() if re.search(r"waits for deploy of \S+ \S+ by ", line)
    ]
    assert len(waited) >= 1, said
    assert all(re.search(r"\(pid \d+\) since \d{4}-", line) for line in waited), waited
    statuses = {each["project"]: each["deployed"] for each in release("status").said["projects"]}
    assert {project: statuses[project] for project in wanted} == wanted


def test_whatever_is_killed_the_next_run_converges(program: Program, release: Release, load: Load) -> None:
    first, second = program.tags[API], program.other_tag(API)
    chance = random.Random(5)  # noqa: S311 - moments of a test
    tags = [second if number % 2 == 0 else first for number in range(KILLS)]
    with load:
        time.sleep(HEAD_START_SECONDS)
        for number, tag in enumerate(tags):
            with release.started("deploy", API, tag) as process:
                time.sleep(chance.uniform(0.5, 12.0))
                if number % 2:
                    release.kill_all(process)
                else:
                    process.kill()
                process.communicate()
            again = release("deploy", API, tag)
            assert again.said["live"] == tag, again.progress
            release.wait_until_gone()
        program.wait_until_settled()
    results = load.results()
    assert not results.failed, results.summary()
    assert {hit.tag for hit in results.hits[-50:]} == {tags[-1]}
    (status,) = release("status", API).said["projects"]
    assert (status["deployed"], status["drift"]) == (tags[-1], [])
