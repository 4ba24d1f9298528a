"""The command with configuration: which commit a release reads, takes back, and refuses."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import release.commands
from model.release import ConfigRef, Record, Release, Slot
from registry import Registry
from release.command_line import app
from release.errors import REFUSED, RefusedError
from tests.unit.config_checkout import Checkout
from tests.unit.fake_stack import BEGUN, NAME, PROJECT, STEP, FakeStack

REVISIONS = "package-platform:configRevisions"
FILE = f"test/{PROJECT}/settings.json"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """The config repository, with two commits that differ for the project."""
    made = Checkout(tmp_path / "config")
    made.commit({FILE: "1"})
    made.commit({FILE: "2"})
    return made


@pytest.fixture
def stack(tmp_path: Path, checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """A stack whose one deployed project has configuration, and runs tag 1 with the last commit."""
    fake = FakeStack(tmp_path / "fake")
    folder = fake.program.folder
    (folder / "projects" / f"{PROJECT}.yaml").write_text("kind: backend\nconfig: {mount: /c, files: [settings.json]}\n")
    file = folder / "Pulumi.test.yaml"
    file.write_text(f"{file.read_text()}  package-platform:configPath: {checkout.folder}\n")
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))

    def digest(*asked: object) -> str:
        return f"sha256:{asked[-1]}"

    monkeypatch.setattr(Registry, "digest", digest)
    monkeypatch.setattr(release.commands.Session, "cluster", fake.connected)
    fake.order({"events": [BEGUN, STEP]})
    fake.record = ran(made("1", commits(checkout)[0], "two"), made("1", commits(checkout)[1], "one"))
    return fake


def commits(checkout: Checkout) -> list[str]:
    """Return the commits, the latest first."""
    return checkout.git("rev-list", "HEAD").splitlines()


def made(tag: str, commit: str, content: str) -> Release:
    return Release(tag=tag, digest=f"sha256:{tag}", config=ConfigRef(revision=commit, digest=content))


def ran(*releases: Release) -> Record:
    slot = Slot(release=releases[0], revision=f"r{releases[0].tag}")
    return Record(live="main", slots={"main": slot}, history=releases, since="s")


def run(stack: FakeStack, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--stack=test", f"--cwd={stack.program.folder}"])


def refused(stack: FakeStack, *words: str) -> str:
    result = run(stack, *words)
    assert isinstance(result.exception, RefusedError), result.output
    assert result.exception.code == REFUSED
    assert stack.calls() == []
    return str(result.exception)


def revisions(stack: FakeStack, call: int = 0) -> dict[str, str]:
    return stack.calls()[call]["config"]["config"].get(REVISIONS, {})


def test_a_release_notes_the_commit_that_is_checked_out(stack: FakeStack, checkout: Checkout) -> None:
    latest = checkout.commit({FILE: "3"})
    result = run(stack, "deploy", PROJECT, "2")
    assert result.exit_code == 0, result.output
    assert revisions(stack) == {PROJECT: latest}


def test_the_commit_of_the_stack_file_is_stronger(stack: FakeStack, checkout: Checkout) -> None:
    file = stack.program.stack_file
    wanted = commits(checkout)[0]
    file.write_text(f'{file.read_text()}  {REVISIONS}: {{{PROJECT}: "{wanted[:10]}"}}\n')
    checkout.commit({FILE: "3"})
    assert run(stack, "deploy", PROJECT, "2").exit_code == 0
    assert revisions(stack) == {PROJECT: wanted}


def test_an_older_commit_must_be_named(stack: FakeStack, checkout: Checkout) -> None:
    latest, older = commits(checkout)
    checkout.git("reset", "--hard", "--quiet", older)
    said = refused(stack, "deploy", PROJECT, "2")
    assert said.startswith(
        f"{PROJECT}: commit {older[:12]} of the config repository is older than {latest[:12]}, which runs"
    )
    assert run(stack, "deploy", PROJECT, "2", f"--config-rev={older[:9]}").exit_code == 0
    assert revisions(stack) == {PROJECT: older}


def test_a_newer_commit_that_runs_stays_for_who_asks_so(stack: FakeStack, checkout: Checkout) -> None:
    """As a job does whose build took longer than another's release of the configuration."""
    latest, older = commits(checkout)
    result = run(stack, "deploy", PROJECT, "2", f"--config-rev={older}", "--or-newer")
    assert result.exit_code == 0, result.output
    assert revisions(stack) == {PROJECT: latest}
    assert f"keeps the configuration of {latest[:12]}, which runs and is newer than {older[:12]}" in result.output


def test_a_newer_commit_that_is_named_is_released_with_or_newer_too(stack: FakeStack, checkout: Checkout) -> None:
    newest = checkout.commit({FILE: "3"})
    assert run(stack, "deploy", PROJECT, "2", f"--config-rev={newest}", "--or-newer").exit_code == 0
    assert revisions(stack) == {PROJECT: newest}


def test_or_newer_needs_a_commit(stack: FakeStack) -> None:
    assert "--or-newer: than what? say --config-rev" in run(stack, "deploy", PROJECT, "2", "--or-newer").output


def test_a_rollback_brings_back_the_commit_of_that_release(stack: FakeStack, checkout: Checkout) -> None:
    result = run(stack, "rollback", PROJECT)
    assert result.exit_code == 0, result.output
    assert revisions(stack) == {PROJECT: commits(checkout)[1]}
    assert stack.calls()[0]["config"]["config"]["package-platform:tags"][PROJECT] == "1"


def test_a_failed_release_puts_the_commit_before_back(stack: FakeStack, checkout: Checkout) -> None:
    before = commits(checkout)[0]
    latest = checkout.commit({FILE: "3"})
    failing = {"diagnosticEvent": {"severity": "error", "message": "timed out"}}
    stack.order({"events": [BEGUN, STEP, failing], "code": 255}, {"events": [BEGUN, STEP], "wants": "1"})
    result = run(stack, "deploy", PROJECT, "2")
    assert result.exit_code == 1, result.output
    failed, put_back = stack.calls()
    assert failed["config"]["config"][REVISIONS] == {PROJECT: latest}
    assert put_back["config"]["config"][REVISIONS] == {PROJECT: before}
    assert put_back["instruction"]["records"][NAME]["slots"]["main"]["release"]["config"]["revision"] == before


def test_a_bad_file_is_refused_before_pulumi_is_started(stack: FakeStack, checkout: Checkout) -> None:
    checkout.commit({FILE: "{\n,"})
    said = refused(stack, "deploy", PROJECT, "2")
    assert said.startswith(f"{checkout.folder}/{FILE}:line 2: not readable as JSON: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("deploy", PROJECT, "2", "--config-rev=abcdef0"), "has no commit abcdef0: `git -C "),
        (("diff", PROJECT, "2", "--config-rev=--help"), "has no commit --help: `git -C "),
        (
            ("deploy", "packet", "2", "--config-rev=abcdef0"),
            "projects/packet.yaml has no config: leave out --config-rev",
        ),
    ],
)
def test_a_commit_that_can_not_be_used(stack: FakeStack, words: tuple[str, ...], said: str) -> None:
    assert said in refused(stack, *words)


def test_a_project_without_configuration_names_no_commit(stack: FakeStack) -> None:
    run(stack, "deploy", "packet", "8")
    assert revisions(stack) == {}


def test_history_and_status_tell_the_commits(stack: FakeStack, checkout: Checkout) -> None:
    latest, older = commits(checkout)
    stack.order({"output": "[]"})
    stack.save({"resources": []})
    lines = run(stack, "history", PROJECT).output.splitlines()
    assert lines[0].split()[:2] == ["TAG", "CONFIG"]
    assert [line.split()[:2] for line in lines[1:]] == [["1", latest[:12]], ["1", older[:12]]]
    assert f'"config": "{latest}"' in run(stack, "status", PROJECT, "--json").output


def test_sync_writes_the_commits_of_those_that_name_one(stack: FakeStack, checkout: Checkout) -> None:
    latest, older = commits(checkout)
    file = stack.program.stack_file
    file.write_text(f'{file.read_text()}  {REVISIONS}: {{{PROJECT}: "{older}"}}\n')
    result = run(stack, "sync")
    assert result.exit_code == 0, result.output
    assert [call["words"][4:6] for call in stack.calls()] == [[f'{REVISIONS}["{PROJECT}"]', latest]]
    assert f"{PROJECT}: config {older[:12]} -> {latest[:12]}" in result.output
