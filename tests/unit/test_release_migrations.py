"""Migrations as the command sees them: their log, their failure, and going back past one."""

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import release.commands
from model.release import Migrated, Record, Release
from registry import Registry
from release.change import Changed, Changer, Options, Wish
from release.cluster import Cluster
from release.command_line import app
from release.commands import exit_code
from release.errors import DONE, FAILED, REFUSED, RefusedError
from release.migrations import Leave
from release.screen import Screen
from tests.unit.fake_stack import BEGUN, NAME, PROJECT, STEP, FakeStack, deployment, job, job_pod, record

ENDED = {"terminated": {"exitCode": 1}}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """A stack whose project migrates, runs 1, and has the images 1 and 2."""
    fake = FakeStack(tmp_path / "fake")
    (fake.program.folder / "projects" / f"{PROJECT}.yaml").write_text("kind: backend\nmigrate: [migrate]\n")
    fake.order({"events": [BEGUN, STEP]})
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def digest(_: Registry, repository: str, tag: str) -> str:  # noqa: ARG001 - the method's signature
        return f"sha256:{tag}"

    def cluster(_: object) -> Cluster:
        return fake.cluster

    monkeypatch.setattr(Registry, "digest", digest)
    monkeypatch.setattr(release.commands.Session, "cluster", cluster)
    return fake


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


def deployed(stack: FakeStack, told: io.StringIO) -> Changed:
    screen = Screen(out=io.StringIO(), err=told)
    changer = Changer(stack.program, stack.cluster, screen, Options(f"release deploy {PROJECT} 2 by me"))
    with changer.hold("deploy"):
        return changer.make(stack.application("2"), Wish("release"))


def later(stack: FakeStack, monkeypatch: pytest.MonkeyPatch, kind: str, things: list[dict[str, Any]]) -> None:
    """Let the cluster have objects only once pulumi was started."""
    before: Callable[..., list[Any]] = getattr(Cluster, kind)

    def method(cluster: Cluster, name: str) -> list[Any]:
        return [*before(cluster, name), *(things if stack.calls() else [])]

    monkeypatch.setattr(Cluster, kind, method)


def test_a_failed_migration_ends_the_release_with_its_log(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.order({"events": [BEGUN, STEP], "hangs": True}, {"events": [BEGUN]})
    later(stack, monkeypatch, "jobs", [job("2", "Failed")])
    later(stack, monkeypatch, "pods", [job_pod("2", **ENDED)])
    changed = deployed(stack, told)
    assert exit_code(changed) == FAILED
    found = changed.attempt.hopeless
    assert found is not None
    assert (found.reason, found.pod) == ("MigrationFailed", f"{NAME}-migrate-2-x")
    assert found.message == "exit code 1; BackoffLimitExceeded: too often"
    assert "log: duplicate column" in changed.attempt.details
    assert told.getvalue().count("migrate: duplicate column") == 1, "each line once"
    released, restored = stack.calls()
    assert released["instruction"]["failedJobs"] == []
    assert restored["instruction"]["records"][NAME].get("migrated") is None, "what failed is tried again"


def test_a_failure_that_pulumi_sees_first_is_told_alike(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.order({"events": [BEGUN, STEP], "code": 255}, {"events": [BEGUN]})
    later(stack, monkeypatch, "jobs", [job("2", "Failed")])
    later(stack, monkeypatch, "pods", [job_pod("2", **ENDED)])
    changed = deployed(stack, told)
    assert changed.attempt.hopeless is not None
    assert changed.attempt.hopeless.reason == "MigrationFailed"
    assert "log: duplicate column" in changed.attempt.details


def test_the_log_of_a_good_migration_is_shown(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(stack, monkeypatch, "jobs", [job("2", "Complete")])
    later(stack, monkeypatch, "pods", [job_pod("2", terminated={"exitCode": 0})])
    assert exit_code(deployed(stack, told)) == DONE
    assert [line.strip().split("s  ", 1)[1] for line in told.getvalue().splitlines() if "migrate: " in line] == [
        "migrate: migrating", "migrate: duplicate column",
    ]  # fmt: skip


def test_a_job_that_can_not_start_is_hopeless(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.order({"events": [BEGUN, STEP], "hangs": True}, {"events": [BEGUN]})
    later(stack, monkeypatch, "jobs", [job("2", "")])
    later(stack, monkeypatch, "pods", [job_pod("2", waiting={"reason": "CreateContainerConfigError"})])
    changed = deployed(stack, told)
    assert changed.attempt.hopeless is not None
    assert changed.attempt.hopeless.reason == "CreateContainerConfigError"


def test_what_ran_before_is_no_sign_and_a_failed_job_is_told_to_the_program(
    stack: FakeStack, told: io.StringIO
) -> None:
    stack.jobs, stack.pods = [job("2", "Failed")], [job_pod("2", **ENDED)]
    assert exit_code(deployed(stack, told)) == DONE
    (call,) = stack.calls()
    assert call["instruction"]["failedJobs"] == [f"{NAME}-migrate-2"]
    assert "migrate: " not in told.getvalue()


def test_a_migration_that_ran_stays_noted_when_its_pods_fail(
    stack: FakeStack, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.record = record("1", "0")
    stack.order({"events": [BEGUN, STEP], "code": 255}, {"events": [BEGUN]})
    later(stack, monkeypatch, "jobs", [job("2", "Complete")])
    changed = deployed(stack, told)
    restored = stack.calls()[1]["instruction"]
    assert restored["action"] == "restore"
    assert restored["records"][NAME]["migrated"] == {
        "release": {"tag": "2", "digest": "sha256:2"}, "job": f"{NAME}-migrate-2", "before": ["0"],
    }  # fmt: skip
    assert "the migration of 2 has run and is not undone: 1 meets it" in told.getvalue()
    assert exit_code(changed) == FAILED


MIGRATED = record("2", "1").model_copy(update={"migrated": Migrated(release=Release(tag="2"), job="j", before=("1",))})


def run(stack: FakeStack, *words: str) -> Result:
    stack.record, stack.deployments = MIGRATED, [deployment("2")]
    return CliRunner().invoke(app, [*words, "--stack=test", f"--cwd={stack.program.folder}"])


@pytest.mark.parametrize("words", [("rollback", PROJECT), ("deploy", PROJECT, "1")])
def test_nobody_goes_back_past_a_migration_without_leave(stack: FakeStack, words: tuple[str, ...]) -> None:
    result = run(stack, *words)
    assert isinstance(result.exception, RefusedError), result.output
    assert result.exception.code == REFUSED
    assert result.exception.lines == (
        f"{PROJECT} 1 is from before the migration of 2, which is not undone: it would run with data of a later form.",
        "if it can do with that: the same command with --past-migration",
    )
    assert stack.calls() == []


@pytest.mark.parametrize("flag", ["--past-migration", "--yes", "-y"])
def test_with_leave_it_goes_back(stack: FakeStack, flag: str) -> None:
    result = run(stack, "rollback", PROJECT, flag)
    assert result.exit_code == DONE, result.output
    assert stack.calls()[0]["config"]["config"]["package-platform:tags"][PROJECT] == "1"


def test_a_whole_rollback_asks_as_well(stack: FakeStack) -> None:
    tags = json.dumps({PROJECT: "1"})
    update = {
        "kind": "update", "result": "succeeded", "version": 3, "startTime": "2026-11-23T18:42:00Z",
        "config": {"package-platform:tags": {"value": tags, "objectValue": {PROJECT: "1"}}}, "environment": {},
    }  # fmt: skip
    stack.order({"output": json.dumps([update])})
    result = run(stack, "rollback", "--all", "--to-update=3")
    assert isinstance(result.exception, RefusedError), result.output
    assert "from before the migration of 2" in str(result.exception)


@pytest.mark.parametrize("answer", [True, False])
def test_a_person_is_asked(answer: bool) -> None:  # noqa: FBT001 - a parameter of the test
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return answer

    def leave(ran: Record) -> Leave:
        return Leave(ask=ask).asked("p", ran, Release(tag="1"))

    assert leave(record("2", "1")).given is False
    assert asked == []
    if answer:
        assert leave(MIGRATED).given is True
    else:
        with pytest.raises(RefusedError):
            leave(MIGRATED)
    assert asked == [
        "p 1 is from before the migration of 2, which is not undone: it would run with data of a later form. Go back?"
    ]


def test_what_was_migrated_meanwhile_is_seen_when_the_stack_is_held() -> None:
    leave = Leave().asked("p", record("2", "1"), Release(tag="1"))
    with pytest.raises(RefusedError):
        leave.check("p", MIGRATED, Release(tag="1"))
