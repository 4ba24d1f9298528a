"""What a release says and does once the cluster was changed: failures of its end, of the put-back, interruptions."""

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from math import inf
from typing import Any

import pytest

from registry import Registry
from release.change import SAME_AGAIN_SECONDS, Changed, Changer, Options, Wish
from release.cluster import Cluster, ClusterError
from release.commands import Order, Session, exit_code, rollback
from release.commands import told as tell
from release.errors import BROKEN, DONE, FAILED, REFUSED, InterruptedRunError, PulumiError
from release.migrations import Leave
from release.pulumi import Command, Pulumi
from release.screen import Screen
from release.watch import Attempt, Watch, Watched
from tests.unit.fake_stack import BEGUN, CRASHING, NAME, PROJECT, STEP, FakeStack, deployment, pod, record
from tests.unit.stand_in import always

DEADLINE_SECONDS = 30.0
LOCKED = {"output": "error: the stack is currently locked by 1 lock(s).", "code": 255, "child": True}
HANGING = {"events": [BEGUN, STEP], "hangs": True, "child": True}
FAILING = {"events": [BEGUN, STEP], "code": 255, "output": "error: no quota"}


def deployed(stack: FakeStack, told: io.StringIO, lock_seconds: float = 30.0) -> Changed:
    screen = Screen(out=io.StringIO(), err=told)
    options = Options(f"release deploy {PROJECT} 2 by me", lock_seconds=lock_seconds)
    changer = Changer(stack.program, stack.cluster, screen, options)
    with changer.hold("deploy"):
        return changer.make(stack.application("2"), Wish("release"))


def later(stack: FakeStack, monkeypatch: pytest.MonkeyPatch, *pods: dict[str, Any]) -> None:
    """Let the cluster have pods only once pulumi was called."""
    before: Callable[..., list[Any]] = Cluster.pods

    def there(cluster: Cluster, name: str) -> list[Any]:
        return [*before(cluster, name), *(pods if stack.calls() else [])]

    monkeypatch.setattr(Cluster, "pods", there)


def silenced(monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    """Let the cluster not answer these questions from now on."""

    def silent(*_: object, **__: object) -> object:
        raise ClusterError("the cluster does not answer: timed out")

    for name in methods:
        monkeypatch.setattr(Cluster, name, silent)


# What was there before.


def test_what_was_bad_before_does_not_end_the_run_that_mends_it(stack: FakeStack, told: io.StringIO) -> None:
    """The first deploy of 2 has failed by its configuration; there was nothing to put back, so its pods are there."""
    stack.record, stack.deployments, stack.pods = None, [deployment("2")], [pod("2", **CRASHING)]
    stack.order({"events": [BEGUN, STEP], "seconds": 1.5})
    assert exit_code(deployed(stack, told)) == DONE


def test_what_is_bad_of_the_live_release_does_not_end_the_put_back(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.order({**HANGING, "wants": "2"}, {"events": [BEGUN], "seconds": 1.5, "wants": "1"})
    stack.pods = [pod("1", **CRASHING)]
    later(stack, monkeypatch, pod("2", **CRASHING))
    changed = deployed(stack, told)
    assert changed.attempt.hopeless is not None
    assert changed.attempt.hopeless.pod == f"{NAME}-2"
    assert exit_code(changed) == FAILED


def test_a_first_release_of_another_host_that_came_between_is_seen(stack: FakeStack, told: io.StringIO) -> None:
    stack.record, stack.deployments = None, []
    stack.order({"events": [BEGUN], "hangs": True, "wants": "3"}, {"events": [BEGUN, STEP]})
    stack.moves = [record("3")]
    changed = deployed(stack, told)
    first, second = stack.calls()
    assert first["instruction"]["records"] == {}
    assert second["instruction"]["records"][NAME]["slots"]["main"]["release"]["tag"] == "3"
    assert changed.before == record("3")


def test_a_record_that_can_not_be_read_under_the_lock_ends_the_run(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.order({"events": [BEGUN], "hangs": True})
    silenced(monkeypatch, "record")
    changed = deployed(stack, told)
    assert exit_code(changed) == REFUSED
    assert changed.attempt.errors == (
        "whether another release came between could not be seen: the cluster does not answer: timed out; "
        "run the same command again",
    )


def test_a_record_that_can_not_be_read_once_something_was_touched_is_put_back(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.order(HANGING, {"events": [BEGUN]})
    read: Callable[..., Any] = Cluster.record

    def silent_at_first(cluster: Cluster, name: str) -> Any:
        if len(stack.calls()) == 1:
            raise ClusterError("the cluster does not answer: timed out")
        return read(cluster, name)

    monkeypatch.setattr(Cluster, "record", silent_at_first)
    changed = deployed(stack, told)
    assert exit_code(changed) == FAILED
    assert changed.attempt.reason.startswith("whether another release came between could not be seen")
    assert len(stack.calls()) == 2


@pytest.mark.parametrize(
    ("project", "patience"),
    [("kind: backend\n", [SAME_AGAIN_SECONDS, inf]), ("kind: backend\nmigrate: [migrate]\n", [inf, inf])],
    ids=["at once", "after a migration"],
)
def test_bad_pods_of_before_may_stay_until_pulumi_has_come_to_them(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch, project: str, patience: list[float]
) -> None:
    """A release, and the put-back: what that waits for to mend is what it mends."""
    (stack.program.folder / "projects" / f"{PROJECT}.yaml").write_text(project)
    stack.order(FAILING, {"events": [BEGUN]})
    seen: list[float] = []
    watch: Callable[..., Attempt] = Changer._watch  # pyright: ignore[reportPrivateUsage]

    def noted(changer: Changer, command: Command, watched: Watched) -> Attempt:
        seen.append(watched.found.patience)
        return watch(changer, command, watched)

    monkeypatch.setattr(Changer, "_watch", noted)
    deployed(stack, told)
    assert seen == patience


# A cluster that goes silent.


def test_a_release_that_is_made_is_no_failure_when_its_report_is(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Watch.ended

    def ends_then_silent(watch: Watch, run: Any) -> object:
        silenced(monkeypatch, "record")
        return ended(watch, run)

    monkeypatch.setattr(Watch, "ended", ends_then_silent)
    changed = deployed(stack, told)
    assert exit_code(changed) == DONE
    assert changed.after is None
    said = "it is done, and only the report lacks what runs now: the cluster does not answer: timed out"
    assert f"{said}; `release status -s test`" in told.getvalue()


def test_a_refusal_needs_no_answer_of_the_cluster(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.order({"output": "error: no passphrase", "code": 255})
    silenced(monkeypatch, "record")
    changed = deployed(stack, told)
    assert exit_code(changed) == REFUSED
    assert changed.after == record("1")


@pytest.mark.parametrize("what", ["records", "pods", "deployments", "the lock", "the state"])
def test_a_put_back_that_can_not_be_made_hides_nothing_of_the_failure(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    stack.order({**HANGING, "wants": "2"}, LOCKED)
    later(stack, monkeypatch, pod("2", **CRASHING))
    details = Watch.details

    def refuses(_: Pulumi) -> bytes:
        raise PulumiError("`pulumi stack export` failed:")

    def details_then_silent(watch: Watch) -> list[str]:
        found = details(watch)
        if what == "the state":
            monkeypatch.setattr(Pulumi, "checkpoint", refuses)
        elif what != "the lock":
            silenced(monkeypatch, what)
        return found

    monkeypatch.setattr(Watch, "details", details_then_silent)
    changed = deployed(stack, told, lock_seconds=0.0)
    assert exit_code(changed) == BROKEN
    assert changed.attempt.hopeless is not None
    assert changed.attempt.hopeless.reason == "CrashLoopBackOff"
    assert {"log: no database", "event: BackOff (x3): Back-off restarting"} <= set(changed.attempt.details)
    assert changed.attempt.details[-1].startswith("put back: ")
    assert changed.before == record("1")


# Interruptions.


@contextlib.contextmanager
def interrupted(stack: FakeStack, calls: int = 1) -> Generator[None]:
    """Send this process a signal when pulumi was called so often, and has started a child."""

    def interrupt() -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(stack.calls()) < calls or not (stack.folder / "child").exists():
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (True, f", or `release deploy {PROJECT} 1 -s test`, to get to a known state"),
        (False, f"; nothing of {PROJECT} was deployed before: there is nothing to go back to"),
    ],
    ids=["deployed", "not deployed"],
)
def test_an_interruption_names_the_release_that_serves(
    stack: FakeStack, told: io.StringIO, *, there: bool, said: str
) -> None:
    """A rollback would go to the release before that one: what was interrupted is not recorded."""
    stack.record = record("1", "0") if there else None
    stack.order(HANGING)
    with interrupted(stack), pytest.raises(InterruptedRunError) as caught:
        deployed(stack, told)
    assert caught.value.lines == (f"interrupted by SIGINT: run the same command again{said}",)


def test_an_interrupted_rollback_is_not_to_be_repeated(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Had it moved the record before, the same command would go on to the release before, which may be the bad one."""
    monkeypatch.setattr(Registry, "digest", always("sha256:1"))
    monkeypatch.setattr(Session, "cluster", stack.connected)
    stack.record, stack.deployments = record("2", "1"), [deployment("2")]
    stack.order(HANGING)
    session = Session(stack.program, Screen(out=io.StringIO(), err=told), Options("rollback"))
    with interrupted(stack), pytest.raises(InterruptedRunError) as caught:
        rollback(session, PROJECT, "", 1, Leave())
    assert caught.value.lines == (
        f"interrupted by SIGINT: `release deploy {PROJECT} 1 -s test` finishes it, "
        f"or `release deploy {PROJECT} 2 -s test`, to get to a known state",
    )
    assert f"{PROJECT} goes back to 1" in told.getvalue()


@pytest.mark.parametrize("order", [HANGING, LOCKED], ids=["while it runs", "while it waits for a lock"])
def test_an_interruption_of_the_put_back_tells_the_failure(
    stack: FakeStack, told: io.StringIO, order: dict[str, Any]
) -> None:
    stack.order(FAILING, order)
    with interrupted(stack, calls=2), pytest.raises(InterruptedRunError) as caught:
        deployed(stack, told)
    assert caught.value.lines == (
        f"interrupted by SIGINT: {PROJECT} 2 has failed (error: no quota), and is not put back: "
        f"`release deploy {PROJECT} 1 -s test`",
    )


# What is put back.

HALF_A_CORE = {"resources": {"requests": {"cpu": "500m"}}}
FIVE_CORES = {"resources": {"requests": {"cpu": "5"}}}


@pytest.mark.parametrize(
    ("was", "put_back", "said"),
    [
        (HALF_A_CORE, FIVE_CORES, ".resources.requests.cpu is 5, not 500m"),
        (HALF_A_CORE, {}, ".resources is gone"),
        ({}, FIVE_CORES, "its pods have fields that they had not"),
    ],
    ids=["changed", "gone", "new"],
)
def test_pods_that_are_put_back_with_a_changed_project_file_are_not_as_before(  # noqa: PLR0913, PLR0917 - a table's
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch, was: Any, put_back: Any, said: str
) -> None:
    """The earlier image is rendered with today's project file, under the revision that is recorded for it."""
    stack.order(FAILING, {"events": [BEGUN]})

    def deployments(*_: object, **__: object) -> list[dict[str, Any]]:
        found = deployment("1")
        found["spec"]["template"]["spec"]["containers"][0] |= put_back if len(stack.calls()) > 1 else was
        return [found]

    monkeypatch.setattr(Cluster, "deployments", deployments)
    changed = deployed(stack, told)
    assert exit_code(changed) == BROKEN
    different, way_on = changed.attempt.details
    assert different.startswith("put back: 1 has other pods than before, ")
    assert said in different
    assert way_on == (
        f"put back: revert what has changed in projects/{PROJECT}.yaml or the stack file, "
        f"then `release deploy {PROJECT} 1 -s test`"
    )


def test_a_slot_that_was_not_as_recorded_tells_nothing_of_what_is_put_back(stack: FakeStack, told: io.StringIO) -> None:
    """A run before was cut off; what it left is not how it has to be."""
    stack.deployments = [deployment("9")]
    stack.order(FAILING, {"events": [BEGUN], "wants": "1"})
    stack.save({"resources": []})
    assert exit_code(deployed(stack, told)) == FAILED


@pytest.mark.parametrize(
    ("then", "code", "said"),
    [("1", FAILED, []), ("2", BROKEN, ["put back: slot main runs revision r2, not r1"])],
    ids=["it comes back", "it stays"],
)
def test_a_put_back_that_changes_nothing_reads_the_cluster_anew_and_is_tried_once_more(
    stack: FakeStack, told: io.StringIO, then: str, code: int, said: list[str]
) -> None:
    """The state does not know of what the failed run has changed, and is believed at first."""
    parent = stack.program.urn(stack.application("2"))
    stack.save({"resources": [{"urn": parent}, {"urn": f"{parent}-main", "parent": parent}]})
    stack.order({**FAILING, "wants": "2"}, {"events": [BEGUN]}, {"events": [BEGUN, STEP], "wants": then})
    changed = deployed(stack, told)
    assert ["--refresh" in call["words"] for call in stack.calls()] == [False, False, True]
    assert exit_code(changed) == code
    assert list(changed.attempt.details) == said


def test_what_another_run_has_released_meanwhile_is_not_put_back(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of the failed run and the put-back the stack is free."""
    stack.order({**FAILING, "wants": "2"})
    read: Callable[..., Any] = Cluster.records

    def moved(cluster: Cluster) -> Any:
        if stack.calls():
            stack.record = record("3", "1")
        return read(cluster)

    monkeypatch.setattr(Cluster, "records", moved)
    changed = deployed(stack, told)
    assert len(stack.calls()) == 1, "and no second run"
    assert exit_code(changed) == BROKEN
    assert changed.after == record("3", "1")
    assert "put back: another run has released 3 meanwhile, which is left as it is" in changed.attempt.details
    lines = tell(Order("deploy", "test", PROJECT, "2"), changed, 1.0, "")
    assert lines[-1] == "  3 serves: another run has released it meanwhile, and nothing was put back"


def test_what_another_run_has_released_while_the_put_back_waited_for_the_lock_is_seen(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.order({**FAILING, "wants": "2"}, {"events": [BEGUN], "hangs": True})
    read: Callable[..., Any] = Cluster.record

    def moved(cluster: Cluster, name: str) -> Any:
        if len(stack.calls()) > 1:
            stack.record = record("3", "1")
        return read(cluster, name)

    monkeypatch.setattr(Cluster, "record", moved)
    changed = deployed(stack, told)
    assert len(stack.calls()) == 2
    assert "put back: another run has released 3 meanwhile, which is left as it is" in changed.attempt.details
