"""Runs of the command against a `pulumi` that does as it is told: locks, failures, interruptions, leftovers."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import release.change
import release.lock
from model.names import GITEA_PROJECT
from model.release import Release, Slot, recorded_canary
from release import hold
from release.change import Changed, Changer, Options, Wish
from release.cluster import Cluster
from release.commands import exit_code
from release.diagnosis import Limits
from release.errors import (
    BROKEN,
    DONE,
    FAILED,
    REFUSED,
    InterruptedRunError,
    LockedError,
    RefusedError,
    UnexpectedError,
)
from release.hold import held
from release.inputs import Program
from release.pulumi import MARK_VARIABLE, Command, Pulumi, Run, end_leftovers
from release.screen import Screen
from release.signals import Signals
from release.watch import Watch
from tests.unit.fake_stack import BEGUN, CRASHING, NAME, PROJECT, STACK_FILE, STEP, FakeStack, deployment, pod, record
from tests.unit.stand_in import always

DEADLINE_SECONDS = 30.0
ROOT = Path(__file__).parents[2]


@pytest.fixture
def changer(stack: FakeStack, told: io.StringIO) -> Changer:
    screen = Screen(out=io.StringIO(), err=told)
    return Changer(
        stack.program, stack.cluster, screen, Options(f"release deploy {PROJECT} 2 by me", lock_seconds=30.0)
    )


def deployed(changer: Changer, stack: FakeStack, tag: str = "2") -> Changed:
    with changer.hold("deploy"):
        return changer.make(stack.application(tag), Wish("release"))


def test_the_program_is_told_which_pods_are_there_and_what_they_mount(changer: Changer, stack: FakeStack) -> None:
    ready = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1}
    live, warm, gone = (deployment("1") for _ in range(3))
    bridge = {"name": "asset-bridge", "configMap": {"name": f"{NAME}-assets-1"}}
    live["spec"]["template"]["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}, bridge]
    live.update(status=ready)
    warm.update(metadata={**warm["metadata"], "name": f"{NAME}-green"}, status={**ready, "availableReplicas": 0})
    gone.update(metadata={**gone["metadata"], "name": f"{NAME}-parked"}, status={"observedGeneration": 1})
    gone["spec"]["replicas"] = 0
    stack.deployments = [live, warm, gone]
    stack.config_maps = {f"{NAME}-assets-1": {"nginx.conf": "events {}"}, f"{NAME}-assets-0": {"nginx.conf": "old"}}
    stack.order({"events": [BEGUN, STEP]})
    deployed(changer, stack)
    told = stack.calls()[0]["instruction"]
    assert told["ready"] == [NAME]
    assert told["bridges"] == {f"{NAME}-assets-1": {"nginx.conf": "events {}"}}


def test_a_canary_that_runs_is_not_asked_of_the_registry(stack: FakeStack) -> None:
    canary = Slot(release=Release(tag="2", digest="sha256:2"), revision="r2")
    running = record("1").model_copy(update={"slots": {**record("1").slots, "canary": canary}})
    assert recorded_canary("2", running) == canary.release
    assert recorded_canary("2", record("1")) is None
    assert recorded_canary("", running) is None
    assert recorded_canary("3", running) is None
    # As the stack file says it, for a release of the project beside which it runs.
    wishes = f'  package-platform:canaries:\n    {PROJECT}: {{tag: "2", weight: 10}}\n'
    stack.program.stack_file.write_text(STACK_FILE + wishes)
    stack.record = running
    beside = deployment("2")
    stack.deployments.append({**beside, "metadata": {**beside["metadata"], "name": f"{NAME}-canary"}})
    stack.order({"events": [BEGUN, STEP]})
    changer = Changer(stack.program, stack.cluster, Screen(out=io.StringIO(), err=io.StringIO()), Options("release"))
    deployed(changer, stack, "3")
    assert stack.calls()[0]["instruction"]["digests"] == {"tags": "sha256:3", "canaries": "sha256:2"}


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def lock(stack: FakeStack, pid: int, host: str = "") -> Path:
    """Write a lock as pulumi does."""
    content = {
        "pid": pid,
        "username": "ci",
        "hostname": host or socket.gethostname(),
        "timestamp": datetime.now(UTC).isoformat(),
    }
    stack.locks.mkdir(parents=True, exist_ok=True)
    file = stack.locks / "other.json"
    file.write_text(json.dumps(content))
    return file


def ended_pid() -> int:
    with subprocess.Popen([sys.executable, "-ISc", "pass"]) as process:
        pass
    return process.pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_project_is_registered_targeted_and_told_what_runs(changer: Changer, stack: FakeStack) -> None:
    stack.moves = [record("1"), record("2", "1")]
    changed = deployed(changer, stack)
    (call,) = stack.calls()
    urn = f"urn:pulumi:test::p::package-platform:index:PackageApp::{PROJECT}"
    assert {f"--target={urn}", "--target-dependents", "--yes", "--skip-preview"} <= set(call["words"])
    assert "--refresh" not in call["words"]
    assert call["instruction"]["project"] == PROJECT
    assert call["instruction"]["action"] == "release"
    assert call["instruction"]["records"][NAME]["slots"]["main"]["release"]["tag"] == "1"
    assert call["instruction"]["digests"] == {"tags": "sha256:2"}
    assert call["config"]["config"]["package-platform:tags"] == {PROJECT: "2", "packet": "7"}
    assert (changed.before, changed.after) == (record("1"), record("2", "1"))
    assert exit_code(changed) == DONE
    assert run_folders() == []


def test_the_tags_of_the_history_are_what_runs_and_not_what_a_stale_clone_wants(
    changer: Changer, stack: FakeStack
) -> None:
    stack.record = record("5", "1")
    stack.deployments = [deployment("5")]
    with changer.hold("deploy"):
        changer.make(stack.program.application("packet", "8"), Wish("release"))
    assert stack.calls()[0]["config"]["config"]["package-platform:tags"] == {PROJECT: "5", "packet": "8"}


def test_a_cluster_that_differs_from_the_record_is_read_anew(
    changer: Changer, stack: FakeStack, told: io.StringIO
) -> None:
    urn = f"urn:pulumi:test::p::package-platform:index:PackageApp::{PROJECT}"
    child = f"urn:pulumi:test::p::package-platform:index:PackageApp$kubernetes:apps/v1:Deployment::{PROJECT}-main"
    resources = [{"urn": urn}, {"urn": child, "parent": urn}, {"urn": f"{child}-of-another", "parent": f"{urn}-2"}]
    stack.save({"resources": resources})
    stack.deployments = [deployment("9")]
    deployed(changer, stack)
    words = stack.calls()[0]["words"]
    assert "--refresh" in words
    assert [word for word in words if word.startswith("--target=")] == [f"--target={urn}", f"--target={child}"]
    assert "the cluster differs from the record" in told.getvalue()


def test_a_crash_ends_the_wait_is_told_and_put_back(
    changer: Changer, stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {"events": [BEGUN, STEP], "hangs": True, "child": True, "wants": "2"}
    stack.order(failing, {"events": [BEGUN], "wants": "1"})

    def pods(*_: object) -> list[dict[str, Any]]:
        return [pod("2", **CRASHING)] if stack.calls() else []

    monkeypatch.setattr(Cluster, "pods", pods)
    changed = deployed(changer, stack)
    failed, restored = stack.calls()
    assert changed.attempt.hopeless is not None
    assert changed.attempt.hopeless.reason == "CrashLoopBackOff"
    assert "log: no database" in changed.attempt.details
    assert "event: BackOff (x3): Back-off restarting" in changed.attempt.details
    assert failed["instruction"]["action"] == "release"
    assert restored["instruction"]["action"] == "restore"
    assert restored["instruction"]["digests"] == {"tags": "sha256:1"}, "what is put back must not need a registry"
    assert restored["config"]["config"]["package-platform:tags"][PROJECT] == "1"
    assert f"puts {PROJECT} 1 back" in told.getvalue()
    assert exit_code(changed) == FAILED
    assert not alive(int((stack.folder / "child").read_text()))


def test_a_failure_that_pulumi_finds_is_put_back(changer: Changer, stack: FakeStack) -> None:
    error = {"diagnosticEvent": {"severity": "error", "message": "the Deployment timed out"}}
    stack.order({"events": [BEGUN, STEP, error], "code": 255}, {"events": [BEGUN]})
    changed = deployed(changer, stack)
    assert changed.attempt.errors == ("the Deployment timed out",)
    assert [call["instruction"]["action"] for call in stack.calls()] == ["release", "restore"]
    assert exit_code(changed) == FAILED


def test_what_failed_before_it_touched_anything_is_refused(changer: Changer, stack: FakeStack) -> None:
    error = {"diagnosticEvent": {"severity": "error", "message": "nothing was changed, the settings have problems"}}
    stack.order({"events": [BEGUN, error], "code": 255})
    assert exit_code(deployed(changer, stack)) == REFUSED
    assert len(stack.calls()) == 1


def test_a_pulumi_that_was_killed_is_put_back_as_nobody_knows_what_it_has_touched(
    changer: Changer, stack: FakeStack
) -> None:
    stack.order({"events": [BEGUN], "code": 128 + signal.SIGKILL}, {"events": [BEGUN]})
    assert exit_code(deployed(changer, stack)) == FAILED
    assert [call["instruction"]["action"] for call in stack.calls()] == ["release", "restore"]


def test_a_failure_to_put_back_has_a_code_of_its_own(changer: Changer, stack: FakeStack) -> None:
    stack.order({"events": [BEGUN, STEP], "code": 255})
    stack.deployments[0]["spec"]["replicas"] = 5
    changed = deployed(changer, stack)
    release, put_back = stack.calls()
    assert exit_code(changed) == BROKEN
    assert (release["instruction"]["pods"], put_back["instruction"]["pods"]) == ({}, {NAME: 5})


def test_a_first_release_that_fails_has_nothing_to_go_back_to(changer: Changer, stack: FakeStack) -> None:
    stack.record = None
    stack.order({"events": [BEGUN, STEP], "code": 255})
    changed = deployed(changer, stack)
    assert len(stack.calls()) == 1
    assert exit_code(changed) == BROKEN


def test_a_failed_release_may_be_left(stack: FakeStack, told: io.StringIO) -> None:
    stack.order({"events": [BEGUN, STEP], "code": 255})
    screen = Screen(out=io.StringIO(), err=told)
    changer = Changer(stack.program, stack.cluster, screen, Options("release deploy", put_back=False))
    assert exit_code(deployed(changer, stack)) == BROKEN
    assert len(stack.calls()) == 1


def test_the_program_is_told_to_take_pods_as_they_are(changer: Changer, stack: FakeStack) -> None:
    stack.order({"events": [BEGUN, STEP]})
    with changer.hold("rollback"):
        changer.make(stack.application("2"), Wish("release", returns=True))
    assert stack.calls()[0]["instruction"]["returnsTo"]["tag"] == "2"


def test_the_program_is_told_which_slots_a_failed_release_has_touched(changer: Changer, stack: FakeStack) -> None:
    failing = {"events": [BEGUN, STEP], "code": 255}
    empty = {"output": '{"deployment": {"resources": []}}'}
    stack.order({**failing, "wants": "2"}, {"events": [BEGUN, STEP], "wants": "1"}, empty)
    deployed(changer, stack)
    told = [call["instruction"].get("touched", []) for call in stack.calls() if call["instruction"]]
    assert told[:2] == [[], ["main"]]


def test_no_pods_are_taken_as_they_are_where_a_slot_is_not_as_the_record_says(
    changer: Changer, stack: FakeStack
) -> None:
    """A release that was cut off may have taken the colour that the record still calls warm."""
    stack.order({"output": '{"deployment": {"resources": []}}'}, {"events": [BEGUN, STEP]})
    stack.deployments = [deployment("3")]
    with changer.hold("rollback"):
        changer.make(stack.application("2"), Wish("release", returns=True))
    (instruction,) = (call["instruction"] for call in stack.calls() if call["instruction"])
    assert "returnsTo" not in instruction


def test_another_projects_objects_are_not_taken(changer: Changer, stack: FakeStack) -> None:
    theirs = deployment("1")
    theirs["metadata"]["annotations"] = {GITEA_PROJECT: "sjzy.package.api"}
    stack.deployments = [theirs]
    with pytest.raises(RefusedError, match=f"{PROJECT}.yaml: .* called {NAME}, as sjzy.package.api is, which is"):
        deployed(changer, stack)
    assert stack.calls() == []


def test_a_node_is_waited_for_as_long_as_the_stack_file_or_the_command_says(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def watch(cluster: Cluster, screen: Screen, limits: Limits, *rest: Any, **more: Any) -> Watch:
        waited.append(limits.unschedulable)
        return Watch(cluster, screen, limits, *rest, **more)

    monkeypatch.setattr(release.change, "Watch", watch)
    slow = STACK_FILE.replace("domain:", "unschedulableSeconds: 240\n    domain:")
    for file, told in ((STACK_FILE, None), (slow, None), (slow, 5.0)):
        stack.program.stack_file.write_text(file)
        stack.order({"events": [BEGUN, STEP]})
        program = Program(stack.program.folder, stack.program.stack, None)
        screen = Screen(out=io.StringIO(), err=io.StringIO())
        deployed(Changer(program, stack.cluster, screen, Options("release", unschedulable=told)), stack)
    assert waited == [10, 240, 5]


def test_another_release_that_came_between_is_seen(changer: Changer, stack: FakeStack, told: io.StringIO) -> None:
    """The record is read again when the engine holds the lock; the run that stood on the old one is given up."""
    stack.order({"events": [BEGUN], "hangs": True, "wants": "3"}, {"events": [BEGUN, STEP]})
    stack.moves = [record("3", "1")]
    changed = deployed(changer, stack)
    first, second = stack.calls()
    assert first["instruction"]["records"][NAME]["slots"]["main"]["release"]["tag"] == "1"
    assert second["instruction"]["records"][NAME]["slots"]["main"]["release"]["tag"] == "3"
    assert changed.before == record("3", "1")
    assert "another release has moved this project meanwhile" in told.getvalue()


def test_a_lock_that_is_in_use_is_waited_for(changer: Changer, stack: FakeStack, told: io.StringIO) -> None:
    file = lock(stack, os.getpid())
    threading.Timer(1.0, file.unlink).start()
    assert exit_code(deployed(changer, stack)) == DONE
    assert f"waits for the lock of ci@{socket.gethostname()} (pid {os.getpid()}) since" in told.getvalue()


def test_a_lock_that_pulumi_tells_of_is_waited_for(changer: Changer, stack: FakeStack) -> None:
    said = "error: the stack is currently locked by 1 lock(s)."
    stack.order({"output": said, "code": 255}, {"output": said, "code": 255}, {"events": [BEGUN, STEP]})
    assert exit_code(deployed(changer, stack)) == DONE
    assert len(stack.calls()) == 3


def test_a_lock_of_a_process_that_is_gone_is_cleared(changer: Changer, stack: FakeStack, told: io.StringIO) -> None:
    file = lock(stack, ended_pid())
    assert exit_code(deployed(changer, stack)) == DONE
    assert not file.exists()
    assert "is cleared: that process is gone" in told.getvalue()


@pytest.mark.parametrize("name", ["localhost", "localhost.localdomain", "agent"])
def test_where_another_may_have_this_name_only_a_run_that_was_cut_off_here_explains_a_lock(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    if name == "agent":  # a container with the host's name and pids of its own
        (tmp_path / "pid").symlink_to("pid:[4026532222]")
        monkeypatch.setattr(release.lock, "_PID_NAMESPACE", str(tmp_path / "pid"))
    file = lock(stack, ended_pid(), name)
    screen = Screen(out=io.StringIO(), err=told)
    stack.order({"events": [BEGUN, STEP]})
    with pytest.raises(LockedError, match="release unlock -s test"):
        deployed(Changer(stack.program, stack.cluster, screen, Options("x", lock_seconds=0.5)), stack)
    assert file.exists()
    cut_off = "from release.hold import held\nimport os\nwith held(%r, 'x', bool):\n    os._exit(9)\n"
    code = cut_off % Pulumi(stack.program).key
    folder = f"import release.hold as hold, pathlib\nhold.FOLDER = pathlib.Path({str(hold.FOLDER)!r})\n"
    assert subprocess.run([sys.executable, "-c", folder + code], cwd=ROOT, check=False).returncode == 9
    changed = deployed(Changer(stack.program, stack.cluster, screen, Options("x", lock_seconds=30.0)), stack)
    assert exit_code(changed) == DONE
    assert not file.exists()
    assert "is cleared: that process is gone" in told.getvalue()


def test_a_lock_of_another_host_is_never_cleared(stack: FakeStack, told: io.StringIO) -> None:
    file = lock(stack, ended_pid(), "elsewhere")
    screen = Screen(out=io.StringIO(), err=told)
    changer = Changer(stack.program, stack.cluster, screen, Options("release deploy", lock_seconds=0.5))
    with pytest.raises(LockedError, match="release unlock -s test"):
        deployed(changer, stack)
    assert file.exists()
    assert stack.calls() == []


def locked_in_a_bucket(host: str) -> dict[str, Any]:
    """Return what a `pulumi` does that finds another's lock in object storage."""
    url = "s3://state/.pulumi/locks/organization/p/test/2b.json"
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    told = f"{url}: created by ci@{host} (pid {ended_pid()}) at {at}"
    return {"output": f"error: the stack is currently locked by 1 lock(s).\n  {told}", "code": 255}


def test_in_object_storage_pulumi_clears_the_lock_of_a_process_that_is_gone(
    changer: Changer, stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    stack.order(locked_in_a_bucket(socket.gethostname()), {}, {"events": [BEGUN, STEP]})
    assert exit_code(deployed(changer, stack)) == DONE
    assert [call["words"][0] for call in stack.calls()] == ["up", "cancel", "up"]
    assert "is cleared: that process is gone" in told.getvalue()


def test_in_object_storage_a_lock_of_another_host_is_never_cleared(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    stack.order(locked_in_a_bucket("elsewhere"))
    screen = Screen(out=io.StringIO(), err=told)
    with pytest.raises(LockedError, match="release unlock -s test"):
        deployed(Changer(stack.program, stack.cluster, screen, Options("release deploy", lock_seconds=0.0)), stack)
    assert {call["words"][0] for call in stack.calls()} == {"up"}


def test_the_lock_of_a_pulumi_that_this_run_has_killed_is_cleared_whoever_else_has_this_name(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release.lock, "_may_be_anothers", always(answer=True))
    monkeypatch.setattr(release.change, "STOP_SECONDS", 0.2)
    stack.order({"events": [BEGUN, STEP], "hangs": True, "deaf": True, "wants": "2"}, {"events": [BEGUN], "wants": "1"})
    left: list[Path] = []

    def pods(*_: object) -> list[dict[str, Any]]:
        if stack.calls() and not left:
            left.append(lock(stack, ended_pid()))
        return [pod("2", **CRASHING)] if stack.calls() else []

    monkeypatch.setattr(Cluster, "pods", pods)
    screen = Screen(out=io.StringIO(), err=told)
    changed = deployed(Changer(stack.program, stack.cluster, screen, Options("release", lock_seconds=1.0)), stack)
    assert "pulumi did not stop within 0 s: it is killed" in told.getvalue()
    assert exit_code(changed) == FAILED
    assert [file.exists() for file in left] == [False]


def test_two_on_one_host_take_turns(stack: FakeStack, changer: Changer, told: io.StringIO) -> None:
    began, freed = threading.Event(), threading.Event()

    def first() -> None:
        with held(Pulumi(stack.program).key, "deploy of the first", lambda _: True):
            began.set()
            freed.wait(DEADLINE_SECONDS)

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(DEADLINE_SECONDS)
    threading.Timer(0.5, freed.set).start()
    assert exit_code(deployed(changer, stack)) == DONE
    thread.join()
    assert f"waits for deploy of the first (pid {os.getpid()}) since 2" in told.getvalue()


URN = f"urn:pulumi:test::p::package-platform:index:PackageApp$kubernetes:apps/v1:Deployment::{NAME}-green"
WARNING = {
    "diagnosticEvent": {
        "severity": "warning",
        "prefix": "<{%fg 3%}>warning: <{%reset%}>",
        "message": "<{%reset%}>Attempting to deploy or update resources with 1 pending operations "
        f"from previous deployment.\n  * {URN}, interrupted while updating\nThese resources are in an unknown state",
    }
}


def unfinished(kind: str) -> str:
    """Return the answer of `pulumi stack export` after a run that was cut off."""
    metadata = {"namespace": "package-test", "name": f"{NAME}-green"}
    operation = {"type": kind, "resource": {"urn": URN, "inputs": {"metadata": metadata}}}
    return json.dumps({"version": 3, "deployment": {"resources": [], "pending_operations": [operation]}})


def test_what_a_killed_run_left_undone_is_finished_first(changer: Changer, stack: FakeStack, told: io.StringIO) -> None:
    stack.save(json.loads(unfinished("updating"))["deployment"])
    assert exit_code(deployed(changer, stack)) == DONE
    refreshed, released = stack.calls()
    assert refreshed["words"][0] == "refresh"
    assert f"--target={URN}" in refreshed["words"]
    assert released["words"][0] == "up"
    assert f"cut off while updating Deployment {NAME}-green" in told.getvalue()


@pytest.mark.parametrize(("kind", "between"), [("updating", ["refresh"]), ("creating", ["stack", "stack"])])
def test_in_object_storage_what_a_killed_run_left_is_seen_by_the_engines_warning(  # noqa: PLR0913, PLR0917
    changer: Changer,
    stack: FakeStack,
    told: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    between: list[str],
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    export = {"output": unfinished(kind)}
    first, last = {"events": [BEGUN, WARNING], "hangs": True}, {"events": [BEGUN, WARNING, STEP]}
    stack.order(first, *[export] * len(between), {}, last)
    assert exit_code(deployed(changer, stack)) == DONE
    words = [call["words"] for call in stack.calls()]
    assert [each[0] for each in words] == ["up", "stack", *between, "up"], "one that goes on is not ended again"
    assert words[0][: words[0].index("--non-interactive")] == words[-1][: words[-1].index("--non-interactive")]
    assert f"cut off while {kind} Deployment {NAME}-green" in told.getvalue()
    assert "unknown state" not in told.getvalue()


def test_in_object_storage_a_run_that_reads_the_cluster_gets_no_warning_so_the_state_is_asked(
    changer: Changer, stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    stack.deployments = [deployment("3")]
    state = json.loads(unfinished("updating"))
    parent = stack.program.urn(stack.application("2"))
    state["deployment"]["resources"] = [{"urn": URN, "parent": parent}]
    export = {"output": json.dumps(state)}
    stack.order(export, export, {}, {"events": [BEGUN, STEP]})
    deployed(changer, stack)
    words = [call["words"] for call in stack.calls()]
    assert [each[0] for each in words] == ["stack", "stack", "refresh", "up"]
    assert "--refresh" in words[-1]


def test_in_object_storage_what_is_unfinished_waits_for_the_lock(
    changer: Changer, stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    export = {"output": unfinished("creating")}
    locked = {"output": "error: the stack is currently locked by 1 lock(s).", "code": 255}
    stopped = {"events": [BEGUN, WARNING], "hangs": True}
    stack.order(stopped, export, export, locked, stopped, export, export, {}, {"events": [BEGUN, STEP]})
    assert exit_code(deployed(changer, stack)) == DONE
    assert len(stack.calls()) == 9


def test_what_a_killed_run_left_running_is_ended_first(changer: Changer, stack: FakeStack, told: io.StringIO) -> None:
    variables = {**os.environ, MARK_VARIABLE: Pulumi(stack.program).key}
    sleeper = [sys.executable, "-ISc", "import time; time.sleep(600)"]
    with subprocess.Popen(sleeper, env=variables) as process:
        until(lambda: MARK_VARIABLE.encode() in Path(f"/proc/{process.pid}/environ").read_bytes())
        assert exit_code(deployed(changer, stack)) == DONE
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert "left 1 processes: they are ended" in told.getvalue()
    assert end_leftovers("no such key") == 0


@pytest.fixture
def running(stack: FakeStack) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a `pulumi` which hangs with a child, as the command does."""
    stack.order({"events": [BEGUN, STEP], "hangs": True, "child": True})
    script = (
        "import sys, time; from pathlib import Path; from release.inputs import Program\n"
        "from release.pulumi import Command, Pulumi\n"
        "with Pulumi(Program(Path(sys.argv[1]), 'test')).start(Command(('up',), '{}')) as run: time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(stack.program.folder)]
    variables = {**os.environ, "TMPDIR": tempfile.gettempdir()}
    with subprocess.Popen(command, env=variables, cwd=Path(__file__).parents[2]) as process:
        until(lambda: (stack.folder / "child").exists() and (stack.folder / "child").read_text() != "")
        yield process
        process.kill()


def run_folders() -> list[Path]:
    return sorted(Path(tempfile.gettempdir()).glob("package-platform-release-*/events"))


def marked(stack: FakeStack) -> list[int]:
    """Return the processes that belong to runs of the stack."""
    mark = f"{MARK_VARIABLE}={Pulumi(stack.program).key}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def test_nothing_outlives_a_command_that_is_killed(stack: FakeStack, running: subprocess.Popen[bytes]) -> None:
    assert len(marked(stack)) == 3, "the guard, pulumi, and what pulumi started"
    running.kill()
    until(lambda: not marked(stack))
    until(lambda: list(Path(tempfile.gettempdir()).iterdir()) == [])


def test_nothing_outlives_a_pulumi_that_is_killed(stack: FakeStack, running: subprocess.Popen[bytes]) -> None:
    child = int((stack.folder / "child").read_text())
    (pulumi,) = [
        pid for pid in marked(stack) if str(stack.folder / "bin" / "pulumi") in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(pulumi, signal.SIGKILL)
    until(lambda: not alive(child))
    assert running.poll() is None


def test_a_guard_that_is_killed_takes_pulumi_with_it(stack: FakeStack, running: subprocess.Popen[bytes]) -> None:
    (guard,) = [pid for pid in marked(stack) if "guard.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    (pulumi,) = [
        pid for pid in marked(stack) if str(stack.folder / "bin" / "pulumi") in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(guard, signal.SIGKILL)
    until(lambda: not alive(pulumi))
    assert running.poll() is None
    key = Pulumi(stack.program).key
    assert len(run_folders()) == 1, "what a run keeps while it lasts, with its stack file"
    assert end_leftovers("no such key") == 0
    assert len(run_folders()) == 1, "another stack's are left alone"
    assert end_leftovers(key) == 1, "what pulumi started is found by its mark"
    until(lambda: not marked(stack))
    assert run_folders() == []


def test_a_preview_is_nothing_that_a_killed_run_left(stack: FakeStack) -> None:
    stack.order({"events": [BEGUN], "hangs": True})
    pulumi = Pulumi(stack.program)
    with pulumi.start(Command(("preview",), "{}")) as run:
        until(lambda: stack.calls() != [])
        assert end_leftovers(pulumi.key) == 0
        assert run.code is None
        assert len(run_folders()) == 1
    assert run_folders() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_stops_pulumi_in_order(changer: Changer, stack: FakeStack, number: signal.Signals) -> None:
    stack.order({"events": [BEGUN, STEP], "hangs": True, "child": True})

    def interrupt() -> None:
        until((stack.folder / "child").exists)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(InterruptedRunError) as caught:
        deployed(changer, stack)
    thread.join()
    assert caught.value.code == 128 + number
    assert marked(stack) == []
    assert len(stack.calls()) == 1


def test_a_pulumi_that_does_not_listen_is_killed(stack: FakeStack) -> None:
    stack.order({"events": [BEGUN], "hangs": True, "deaf": True, "child": True})
    with Pulumi(stack.program).start(Command(("up",), "{}")) as run:
        until(lambda: any(event.kind == "begun" for event in run.events()))
        run.interrupt()
        assert not run.wait(0.5)
        run.kill()
        assert run.wait(DEADLINE_SECONDS)
        assert run.code == 128 + signal.SIGKILL
    assert marked(stack) == []


def test_what_nobody_thought_of_stops_pulumi_and_says_that_nothing_is_put_back(
    changer: Changer, stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Watch, "step", broken)
    interrupted: list[Run] = []
    interrupt = Run.interrupt

    def noted(run: Run) -> None:
        interrupted.append(run)
        interrupt(run)

    monkeypatch.setattr(Run, "interrupt", noted)
    stack.order({"events": [BEGUN, STEP], "hangs": True})
    with pytest.raises(UnexpectedError, match="ZeroDivisionError: a fault") as caught:
        deployed(changer, stack)
    assert caught.value.code == BROKEN
    assert "nothing is put back: run the same command again, or `release deploy" in caught.value.lines[-1]
    assert len(interrupted) == 1
    assert marked(stack) == []


def test_an_output_that_nobody_reads_any_longer_ends_nothing(stack: FakeStack) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        screen = Screen(out=gone, err=gone)
        stack.order({"events": [BEGUN, STEP]})
        changed = deployed(Changer(stack.program, stack.cluster, screen, Options("x", lock_seconds=30.0)), stack)
        screen.result(["done"], {})
    assert exit_code(changed) == DONE


def test_who_is_run_by_nohup_is_not_ended_by_the_end_of_the_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = Signals()
        with signals.noted():
            os.kill(os.getpid(), signal.SIGHUP)
            signals.check("nothing")
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with signals.noted():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(InterruptedRunError) as caught:
                signals.check("nothing")
        assert caught.value.code == 129
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_jobs_with_different_tmpdir_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    with held("key", "the first", lambda _: False):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
        with pytest.raises(LockedError, match="held by the first"), held("key", "the second", lambda _: False):
            pass


def make_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


def make_open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def make_of_another(folder: Path) -> None:
    if os.getuid():
        pytest.skip("only root can give a folder away")
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


def make_link_in_it(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "key.lock").symlink_to(folder.parent / "precious")
    (folder.parent / "precious").write_text("data")


@pytest.mark.parametrize("make", [make_link, make_open_to_all, make_of_another, make_link_in_it, Path.touch])
def test_a_place_that_others_can_write_to_is_not_trusted(lock_folder: Path, make: Callable[[Path], None]) -> None:
    make(lock_folder)
    with (
        pytest.raises(RefusedError, match="remove it, and run the same command again"),
        held("key", "x", lambda _: True),
    ):
        pass
    precious = lock_folder.parent / "precious"
    assert not precious.exists() or precious.read_text() == "data"
