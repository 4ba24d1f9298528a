"""The command `release` on a real cluster, under load: good and bad releases, two at once, and whatever is killed."""

import random
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from devcluster.images import TAGS
from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request, Results
from tests.cluster.program import Program
from tests.cluster.releasing import Release
from tests.cluster.test_rolling import SOAK

API = "SJZY.Package.Api"
OUTPUT = "SJZY.Package.Output.Api"
RATE = 300 if SOAK else 100
HEAD_START_SECONDS = 2.0
REASON_SECONDS = 60.0
"""From the change of the Deployment to the reason. Some 8 and 22 seconds on two idle cores; of these, 20 are the wait
that a pod is given to become ready."""
KILLS = 20 if SOAK else 5
KILLS_UNDER_ONE_LOAD = 5
"""So that a load ends before the longest time that it may last."""
STRATEGIES = ("rolling", "blueGreen", "canary")
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


def sampled(case: tuple[str, ...], sample: tuple[str, ...]) -> object:
    """Return a case of a table of which `make test` runs the sample only."""
    return pytest.param(*case, marks=[] if case == sample else pytest.mark.soak)


@pytest.mark.parametrize(
    ("strategy", "tag", "reason", "log"),
    [
        sampled((strategy, *bad), ("rolling", "bad-crash", "CrashLoopBackOff", "cannot open database"))
        for strategy in STRATEGIES
        for bad in (
            ("bad-crash", "CrashLoopBackOff", "cannot open database"),
            ("bad-unready", "NotReady", ""),
            ("bad-user", "CreateContainerConfigError", ""),
        )
    ],
)
def test_a_bad_release_is_told_in_time_and_put_back(  # noqa: PLR0913, PLR0917 - fixtures
    program: Program, release: Release, load: Load, strategy: str, tag: str, reason: str, log: str
) -> None:
    use(program, strategy)
    before = program.tags[API]
    with load:
        time.sleep(HEAD_START_SECONDS)
        failed = release(*order(strategy, tag), code=1)
        load.until(2000)
    assert_nothing_lost(load.results(), before)
    failure = failed.said["failure"]
    assert failure["reason"] == reason
    assert failure["pod"].startswith("sjzy-package-api-")
    assert any(line.startswith("event: ") for line in failed.said["details"])
    assert not log or any(log in line.lower() for line in failed.said["details"] if line.startswith("log: "))
    begun = second_of(failed.progress, f"Deployment {API}-")
    assert second_of(failed.progress, f"puts {API} {before} back") - begun <= REASON_SECONDS, failed.progress
    assert (failed.said["restored"], failed.said["live"]) == (True, before)
    program.wait_until_settled()
    program.preview(NO_CHANGES)
    (status,) = release("status", API).said["projects"]
    assert (status["deployed"], status["drift"]) == (before, [])


@pytest.mark.parametrize("strategy", [sampled((strategy,), ("rolling",)) for strategy in STRATEGIES])
def test_a_missing_image_changes_nothing(program: Program, release: Release, strategy: str) -> None:
    use(program, strategy)
    before = program.identities()
    refused = release(*order(strategy, "2099-01-01-00-00"), code=2)
    assert "has no image back/sjzy.package.api:2099-01-01-00-00" in refused.progress
    assert program.identities() == before


def use(program: Program, strategy: str) -> None:
    """Give the back end a strategy, if it has another one."""
    if strategy != "rolling":
        program.append(API, f"strategy: {strategy}\n")
        program.up()
        program.wait_until_settled()


def order(strategy: str, tag: str) -> tuple[str, ...]:
    """Return the command by which the back end gets its first pods of a tag."""
    return ("canary", API, tag, "--weight=20") if strategy == "canary" else ("deploy", API, tag)


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


def moments(chance: random.Random, seconds: float) -> list[float]:
    """Return when each kill comes: one in each of as many equal parts of a release, in no order."""
    found = [(number + chance.random()) / KILLS * seconds for number in range(KILLS)]
    chance.shuffle(found)
    return found


def killed(release: Release, tag: str, after: float, *, everything: bool) -> bool:
    """Kill a release so many seconds after its start, and let the next one converge; tell whether it still ran."""
    with release.started("deploy", API, tag) as process:
        time.sleep(after)
        if everything:
            release.kill_all(process)
        else:
            process.kill()
        process.communicate()
    again = release("deploy", API, tag)
    assert again.said["live"] == tag, again.progress
    release.wait_until_gone()
    return process.returncode == -signal.SIGKILL


def under_load(program: Program, release: Release, load: Load, kills: Sequence[tuple[int, str, float]]) -> int:
    """Kill releases under load, every second one with all that it has started; return how many of them still ran."""
    with load:
        time.sleep(HEAD_START_SECONDS)
        met = [killed(release, tag, after, everything=number % 2 == 1) for number, tag, after in kills]
        program.wait_until_settled()
        # So that the last answers are of after it.
        time.sleep(HEAD_START_SECONDS)
    results = load.results()
    assert not results.failed, results.summary()
    assert {hit.tag for hit in results.hits[-50:]} == {kills[-1][1]}
    return sum(met)


@pytest.mark.timeout(1800)
def test_whatever_is_killed_the_next_run_converges(program: Program, release: Release, load: Load) -> None:
    """At any moment of a blue-green release whose new pods have to start: the idle colour never has its tag."""
    use(program, "blueGreen")
    others = [tag for tag in TAGS if tag != program.tags[API]]
    tags = [others[number % len(others)] for number in range(KILLS + 1)]
    with load:
        time.sleep(HEAD_START_SECONDS)
        began = time.monotonic()
        release("deploy", API, tags[0])
        whole = time.monotonic() - began
    assert not load.results().failed, load.results().summary()
    chance = random.Random(5)  # noqa: S311 - moments of a test
    kills = list(zip(range(KILLS), tags[1:], moments(chance, whole), strict=True))
    met = sum(
        under_load(program, release, load, kills[first : first + KILLS_UNDER_ONE_LOAD])
        for first in range(0, KILLS, KILLS_UNDER_ONE_LOAD)
    )
    # The last ones may come too late, as no release takes as long as another; a kill of what has ended shows nothing.
    assert met >= KILLS / 2, f"only {met} of {KILLS} kills met a release"
    (status,) = release("status", API).said["projects"]
    assert (status["deployed"], status["drift"]) == (tags[-1], [])
