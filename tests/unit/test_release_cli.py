"""The command line: bad input is refused with a line that helps, before anything is asked of the cluster."""

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import release.commands
from model.names import SlotName
from model.release import Record, Release, Slot
from registry import ImageMissingError, Registry
from release.change import Changed, Changer, Wish
from release.cluster import Cluster
from release.command_line import app, main
from release.commands import Order, earlier, exit_code, facts, is_due, told
from release.diagnosis import Hopeless, Limits
from release.errors import (
    BROKEN,
    FAILED,
    LOCKED,
    REFUSED,
    InterruptedRunError,
    LockedError,
    RefusedError,
    ReleaseError,
)
from release.hold import held
from release.pulumi import Pulumi
from release.watch import Attempt
from tests.unit.fake_stack import BEGUN, NAME, PROJECT, STEP, FakeStack, deployment, record
from tests.unit.stand_in import always

ROOT = Path(__file__).parents[2]
ORDER = Order("deploy", "uat", "packet", "2")


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    fake = FakeStack(tmp_path / "fake")
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return fake


def refusal(stack: FakeStack, *words: str) -> str:
    """Run the command line and return the refusal that it must end with."""
    result = CliRunner().invoke(app, [*words, "--stack=test", f"--cwd={stack.program.folder}"])
    assert isinstance(result.exception, ReleaseError), result.output
    assert result.exception.code == REFUSED
    assert stack.calls() == []
    return str(result.exception)


def test_an_unknown_project(stack: FakeStack) -> None:
    said = refusal(stack, "deploy", "SJZY.Package.Apy", "2")
    assert said == f"projects/SJZY.Package.Apy.yaml: there is no such project; did you mean '{PROJECT}'?"


def test_a_tag_that_is_none(stack: FakeStack) -> None:
    assert "is no image tag" in refusal(stack, "deploy", PROJECT, "2/3")


def test_a_stack_that_is_not_there(stack: FakeStack) -> None:
    command = ["deploy", PROJECT, "2", "--stack=prod", f"--cwd={stack.program.folder}"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, RefusedError)
    assert "Pulumi.prod.yaml: there is no such stack file; stacks here: test" in str(result.exception)


def test_a_folder_without_a_program(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "digest", always("sha256:2"))
    monkeypatch.setattr(release.commands.Session, "cluster", always(stack.cluster))
    (stack.program.folder / "Pulumi.yaml").unlink()
    assert "there is no Pulumi program here" in refusal(stack, "deploy", PROJECT, "2")


def test_no_cluster_is_named(stack: FakeStack) -> None:
    assert refusal(stack, "status") == "no cluster is named: set KUBECONFIG, or kubernetes:context in the stack file"


def test_a_kubeconfig_that_is_none(stack: FakeStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("clusters: []\ncontexts: []\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert refusal(stack, "status").startswith("the kubeconfig is not usable: ")


def test_all_problems_of_the_files_at_once(stack: FakeStack) -> None:
    (stack.program.folder / "projects" / f"{PROJECT}.yaml").write_text("kind: backend\nreplica: 2\nport: http\n")
    said = refusal(stack, "deploy", PROJECT, "2").splitlines()
    assert len(said) == 2
    assert said[1] == f"projects/{PROJECT}.yaml:replica: unknown key; did you mean 'replicas'?"


def test_another_projects_problem_is_not_this_ones(stack: FakeStack) -> None:
    (stack.program.folder / "projects" / "packet.yaml").write_text("kind: [\n")
    image = stack.program.application(PROJECT, "2").image
    assert image is not None
    assert image.reference == "harbor.package.test/back/sjzy.package.api:2"


def test_a_missing_image(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(_: Registry, repository: str, tag: str) -> str:
        raise ImageMissingError(f"there is no {repository}:{tag}")

    monkeypatch.setattr(Registry, "digest", digest)
    assert refusal(stack, "deploy", PROJECT, "2099-01-01") == "there is no back/sjzy.package.api:2099-01-01"


@pytest.mark.parametrize(
    "words",
    [("rollback",), ("rollback", PROJECT, "--all"), ("rollback", "--all"), ("rollback", PROJECT, "--to-update=3")],
)
def test_a_rollback_of_nothing_in_particular(stack: FakeStack, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--stack=test", f"--cwd={stack.program.folder}"])
    assert result.exit_code == REFUSED
    assert "name a PROJECT, or --all with --to-update" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rollback", PROJECT, "--to=1", "--steps=1"), "--steps: not beside --to"),
        (("rollback", "--all", "--to-update=3", "--to=1", "--no-rollback"), "--to, --no-rollback: not with --all"),
        (("canary", PROJECT, "2", "--steps=5,100", "--weight=0"), "--weight: not beside --steps"),
        (("canary", PROJECT, "2", "--weight=10", "--max-error-rate=1%", "--max-p99=1s"), "nothing is watched without"),
        (
            ("canary", PROJECT, "2", "--weight=10", "--pause=60s", "--min-requests=5"),
            "--pause, --min-requests:",
        ),
        (("canary", PROJECT, "2"), "say what it gets: --weight, --header or --steps"),
    ],
)
def test_options_that_would_mean_nothing_are_refused(stack: FakeStack, words: tuple[str, ...], said: str) -> None:
    result = run(stack, *words)
    assert result.exit_code == REFUSED
    assert said in " ".join(result.output.split())
    assert stack.calls() == []


def there(*digests: str) -> Any:
    """Return a registry's method that has some images, each tag with its own digest."""

    def digest(_: Registry, repository: str, tag: str) -> str:
        if f"sha256:{tag}" not in digests:
            raise ImageMissingError(f"there is no {repository}:{tag}")
        return f"sha256:{tag}"

    return digest


def test_the_release_before_is_gone_back_to(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "digest", there("sha256:1", "sha256:2", "sha256:3"))
    application, ran = stack.application("3"), record("3", "2", "1")
    assert earlier(application, ran, "", 1, "test").tag == "2"
    assert earlier(application, ran, "", 2, "test").tag == "1"
    assert earlier(application, ran, "1", 1, "test").tag == "1"


@pytest.mark.parametrize(("tag", "steps"), [("9", 1), ("", 3), ("3", 1)], ids=["never ran", "too far", "runs"])
def test_what_is_possible_is_listed(stack: FakeStack, monkeypatch: pytest.MonkeyPatch, tag: str, steps: int) -> None:
    monkeypatch.setattr(Registry, "digest", there("sha256:1", "sha256:3"))
    with pytest.raises(RefusedError) as caught:
        earlier(stack.application("3"), record("3", "2", "1"), tag, steps, "test")
    assert caught.value.lines[1:] == (f"possible: release rollback {PROJECT} -s test --to 1",)


def test_a_rollback_takes_the_warm_pods_as_they_are(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, bool] = {}

    def change(_: object, __: object, word: str, wish: Wish) -> int:
        asked[word] = wish.returns
        return 0

    monkeypatch.setattr(release.commands, "change", change)
    monkeypatch.setattr(Registry, "digest", there("sha256:1", "sha256:2"))
    monkeypatch.setattr(release.commands.Session, "cluster", stack.connected)
    stack.record = record("2", "1")
    assert run(stack, "rollback", PROJECT).exit_code == run(stack, "deploy", PROJECT, "1").exit_code == 0
    assert asked == {"rollback": True, "deploy": False}


def test_a_rollback_to_an_image_that_is_gone(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "digest", there("sha256:1"))
    with pytest.raises(RefusedError) as caught:
        earlier(stack.application("3"), record("3", "2", "1"), "", 1, "test")
    assert caught.value.lines == (
        "there is no back/sjzy.package.api:2",
        f"possible: release rollback {PROJECT} -s test --to 1",
    )


def test_a_rollback_to_a_tag_that_was_pushed_anew(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "digest", always("sha256:other"))
    with pytest.raises(RefusedError) as caught:
        earlier(stack.application("2"), record("2", "1"), "", 1, "test")
    assert "1 was pushed anew: it was sha256:1, and is sha256:other" in caught.value.lines[0]
    assert caught.value.lines[1] == "there is none to go back to"


def test_a_rollback_of_what_is_not_deployed(stack: FakeStack) -> None:
    with pytest.raises(RefusedError, match="is not deployed"):
        earlier(stack.application("2"), None, "", 1, "test")


def test_a_good_release_on_one_screen() -> None:
    changed = Changed(Attempt("done", ready_seconds=3.0), record("1"), record("2", "1"))
    assert told(ORDER, changed, 7.25, "2/2") == [
        "packet 2 is live in uat",
        "  before    1",
        "  took      7.2 s",
        "  ready     first new pod after 3.0 s",
        "  pods      2/2 ready",
        "  undo      release rollback packet -s uat",
    ]


@pytest.mark.parametrize(
    ("before", "restored", "code", "last"),
    [
        (record("1"), True, FAILED, "1 serves as before: everything else was put back"),
        (record("1"), False, BROKEN, "NOT put back: what the failed release changed is there"),
        (None, False, BROKEN, "packet had no release before this one: nothing was put back"),
    ],
)
def test_a_failed_release_says_why_and_what_serves(
    before: Record | None, *, restored: bool, code: int, last: str
) -> None:
    why = Hopeless("CrashLoopBackOff", "started 2 times", "packet-1", "uid", "packet", previous=True)
    changed = Changed(Attempt("hopeless", hopeless=why, details=("log: no database",)), before, before, restored)
    lines = told(ORDER, changed, 9.0, "")
    assert lines[:3] == [
        "deploy of packet 2 to uat failed after 9.0 s",
        "  CrashLoopBackOff in pod packet-1, container packet: started 2 times",
        "  log: no database",
    ]
    assert last in lines[3]
    assert exit_code(changed) == code
    answer = json.loads(json.dumps(facts(ORDER, changed, 9.0, code)))
    assert (answer["outcome"], answer["exitCode"], answer["failure"]["reason"]) == ("failed", code, "CrashLoopBackOff")


def test_the_whole_command_says_its_refusal_on_standard_error(stack: FakeStack) -> None:
    command = [str(ROOT / "bin" / "release"), "deploy", "packed", "1", "-s", "test", "-C", str(stack.program.folder)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert finished.returncode == REFUSED
    assert finished.stdout == ""
    assert finished.stderr == "release: projects/packed.yaml: there is no such project; did you mean 'packet'?\n"


def test_start_up_does_not_import_the_sdk_of_pulumi() -> None:
    script = "import sys, release.command_line; print([name for name in ('pulumi', 'grpc') if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert finished.stdout.strip() == "[]"


NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


def colours(since: datetime, *, warm: bool = True, revision: str = "r1") -> Record:
    one, two = Release(tag="1"), Release(tag="2")
    slots: dict[SlotName, Slot] = {
        "green": Slot(release=two, revision="r2"),
        "blue": Slot(release=one, revision=revision, warm=warm),
    }
    return Record(live="green", slots=slots, history=(two, one), since=since.isoformat())


@pytest.mark.parametrize(
    ("ran", "at_once", "due"),
    [
        (colours(NOW - timedelta(hours=2)), False, True),
        (colours(NOW - timedelta(minutes=1)), False, False),
        (colours(NOW - timedelta(minutes=1)), True, True),
        (colours(NOW - timedelta(hours=2), warm=False), True, False),
        (colours(NOW - timedelta(hours=2), revision="r2"), True, False),
        (record("1"), True, False),
        (None, True, False),
    ],
    ids=["past its time", "not yet", "at once", "no pods", "half of a pair", "one slot", "not deployed"],
)
def test_what_tidy_scales_down(stack: FakeStack, ran: Record | None, *, at_once: bool, due: bool) -> None:
    assert is_due(stack.application("2"), ran, NOW, at_once=at_once) is due


def test_tidy_leaves_a_project_alone_whose_last_release_was_cut_off(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release.commands.Session, "cluster", stack.connected)
    warm = Slot(release=Release(tag="1", digest="sha256:1"), revision="r1")
    stack.record = record("2", "1").model_copy(update={"slots": {**record("2").slots, "blue": warm}})
    stack.deployments = [deployment("3"), named(deployment("1"), "-blue")]
    result = run(stack, "tidy", PROJECT, "--now")
    assert result.exit_code == 0, result.output
    assert f"{PROJECT} is left alone: its last release was cut off" in result.output
    assert f"`release deploy {PROJECT} 2 -s test`" in result.output, "a release that failed is not recorded"
    assert not stack.calls()


@pytest.fixture
def warm(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """A stack whose project has a colour that is past its time."""
    monkeypatch.setattr(release.commands.Session, "cluster", stack.connected)
    stack.record = colours(datetime.now(UTC) - timedelta(hours=2))
    stack.deployments = [named(deployment("2"), "-green"), named(deployment("1"), "-blue")]
    stack.order({"events": [BEGUN, STEP]})
    return stack


@pytest.mark.parametrize("what", ["released", "cut off"])
def test_tidy_leaves_alone_what_changed_while_it_waited_for_the_stack(
    warm: FakeStack, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    hold = Changer.hold

    @contextmanager
    def waited(changer: Changer, told: str) -> Generator[None]:
        if what == "released":
            warm.record = colours(datetime.now(UTC))
        else:
            warm.deployments[1] = named(deployment("3"), "-blue")
        with hold(changer, told):
            yield

    monkeypatch.setattr(Changer, "hold", waited)
    result = run(warm, "tidy", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"stack": "test", "tidied": []}
    assert f"{PROJECT} is left alone: " in result.stderr
    assert not warm.calls()


def test_tidy_tells_all_that_it_did_in_one_document(warm: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = warm.record
    monkeypatch.setattr(Cluster, "records", always({NAME: ran, "packet": ran}))
    monkeypatch.setattr(Cluster, "record", always(ran))
    packets = [{**each, "metadata": {**each["metadata"]}} for each in warm.deployments]
    for each in packets:
        each["metadata"]["name"] = each["metadata"]["name"].replace(NAME, "packet")
    warm.deployments += packets
    said = json.loads(run(warm, "tidy", "--json").stdout)
    assert said["stack"] == "test"
    assert [(each["project"], each["exitCode"]) for each in said["tidied"]] == [(PROJECT, 0), ("packet", 0)]


def test_tidy_tells_what_it_did_before_it_could_not_go_on(warm: FakeStack) -> None:
    warm.order({"code": 255, "output": "error: the stack is currently locked by 1 lock(s)."})
    result = run(warm, "tidy", "--json", "--wait-lock=0")
    assert result.exit_code == LOCKED
    (said,) = json.loads(result.stdout)["tidied"]
    assert (said["project"], said["outcome"], said["exitCode"]) == (PROJECT, "locked", LOCKED)


CANARY_PROJECT = "kind: backend\nstrategy: canary\n"


@pytest.fixture
def canary_stack(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """A stack whose one project is released with a canary; the registry has every image."""
    (stack.program.folder / "projects" / f"{PROJECT}.yaml").write_text(CANARY_PROJECT)
    monkeypatch.setattr(Registry, "digest", there("sha256:1", "sha256:2"))
    monkeypatch.setattr(release.commands.Session, "cluster", stack.connected)
    stack.order({"events": [BEGUN, STEP]})
    return stack


def run(stack: FakeStack, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--stack=test", f"--cwd={stack.program.folder}"])


def test_status_tells_what_was_changed_by_hand(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release.commands.Session, "cluster", stack.connected)
    component = f"urn:pulumi:test::p::package-platform:index:PackageApp::{PROJECT}"
    (live,) = stack.deployments
    applied = {
        "kind": "Deployment",
        "metadata": {"name": live["metadata"]["name"]},
        "spec": {"replicas": 4, "template": live["spec"]["template"]},
    }
    stack.save({"resources": [{"urn": "d", "parent": component, "inputs": applied}]})
    stack.order({"output": "[]"})
    assert f"{PROJECT}: Deployment {live['metadata']['name']}: spec.replicas is 1, not 4" in run(stack, "status").output


def with_canary(ran: Record) -> Record:
    canary = Slot(release=Release(tag="2", digest="sha256:2"), revision="r2")
    return ran.model_copy(update={"slots": {**ran.slots, "canary": canary}})


def test_a_canary_gets_its_share_and_the_live_release_stays(canary_stack: FakeStack) -> None:
    result = run(canary_stack, "canary", PROJECT, "2", "--weight=10")
    assert result.exit_code == 0, result.output
    released, *written = canary_stack.calls()
    config = released["config"]["config"]
    assert config["package-platform:tags"][PROJECT] == "1"
    assert config["package-platform:canaries"] == {PROJECT: {"tag": "2", "weight": 10}}
    assert released["instruction"]["digests"] == {"tags": "sha256:1", "canaries": "sha256:2"}
    assert [call["words"][:5] for call in written] == [
        ["config", "set", "--path", "--type=string", f'package-platform:canaries["{PROJECT}"].tag'],
        ["config", "set", "--path", "--type=int", f'package-platform:canaries["{PROJECT}"].weight'],
    ]
    assert f"{PROJECT} 2 is the canary in test, beside 1" in result.output


def test_a_promoted_canary_is_what_the_record_says(canary_stack: FakeStack) -> None:
    canary_stack.record = with_canary(record("1"))
    canary_stack.deployments = [deployment("1"), named(deployment("2"), "-canary")]
    result = run(canary_stack, "promote", PROJECT)
    assert result.exit_code == 0, result.output
    released, written = canary_stack.calls()
    assert released["config"]["config"]["package-platform:tags"][PROJECT] == "2"
    assert released["config"]["config"]["package-platform:canaries"] == {}
    assert written["words"][4:6] == [f'package-platform:tags["{PROJECT}"]', "2"]


def test_only_the_canary_that_was_seen_is_promoted(canary_stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = with_canary(record("1"))
    other = Slot(release=Release(tag="3", digest="sha256:3"), revision="r3")
    seen = [ran, ran.model_copy(update={"slots": {**ran.slots, "canary": other}})]

    def cluster(_: object) -> Cluster:
        canary_stack.record = seen.pop(0) if len(seen) > 1 else seen[0]
        return canary_stack.cluster

    monkeypatch.setattr(release.commands.Session, "cluster", cluster)
    assert "it was 2, and is 3; to promote that, run the same command again" in refusal(
        canary_stack, "promote", PROJECT
    )
    assert canary_stack.calls() == []


def test_a_canary_whose_image_is_another_by_now_is_not_promoted(
    canary_stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary_stack.record = with_canary(record("1"))
    monkeypatch.setattr(Registry, "digest", always("sha256:anew"))
    assert "2 was pushed anew: it was sha256:2, and is sha256:anew" in refusal(canary_stack, "promote", PROJECT)
    monkeypatch.setattr(Registry, "digest", there("sha256:1"))
    assert "there is no back/sjzy.package.api:2" in refusal(canary_stack, "promote", PROJECT)


def test_an_aborted_canary_leaves_the_live_release(canary_stack: FakeStack) -> None:
    canary_stack.record = with_canary(record("1"))
    canary_stack.deployments = [deployment("1"), named(deployment("2"), "-canary")]
    result = run(canary_stack, "abort", PROJECT)
    assert result.exit_code == 0, result.output
    (released,) = canary_stack.calls()
    assert released["config"]["config"]["package-platform:tags"][PROJECT] == "1"
    assert released["config"]["config"]["package-platform:canaries"] == {}


def named(thing: dict[str, Any], suffix: str) -> dict[str, Any]:
    """Return a Deployment under the name of another slot."""
    return {**thing, "metadata": {**thing["metadata"], "name": thing["metadata"]["name"] + suffix}}


@pytest.mark.parametrize("command", ["promote", "abort"])
def test_there_is_no_canary(canary_stack: FakeStack, command: str) -> None:
    assert f"{PROJECT} has no canary" in refusal(canary_stack, command, PROJECT)


def test_a_canary_of_a_project_with_another_strategy(stack: FakeStack) -> None:
    said = refusal(stack, "canary", PROJECT, "2", "--weight=10")
    assert said == f"projects/{PROJECT}.yaml:strategy: is rolling; a canary needs strategy: canary"


def test_the_pods_of_a_stateful_set_are_those_of_its_project(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release.commands.Session, "cluster", stack.connected)
    stack.order({"output": "[]"})
    stack.save({"resources": []})
    file = stack.folder / "program" / "projects" / f"{PROJECT}.yaml"
    file.write_text(f"{file.read_text()}storage: [{{name: cache, size: 1Gi, mount: /cache, perPod: true}}]\n")
    stack.record, stack.deployments, stack.stateful_sets = record("1"), [], [deployment("1")]
    result = run(stack, "status", PROJECT, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["projects"]
    assert (found["pods"], found["drift"]) == ("1/1", [])


def test_a_header_that_is_not_asked_for_any_more_leaves_the_stack_file(canary_stack: FakeStack) -> None:
    file = canary_stack.program.stack_file
    entry = f"    {PROJECT}: {{tag: '1', weight: 5, header: X-Canary}}\n"
    file.write_text(f"{file.read_text()}  package-platform:canaries:\n{entry}")
    result = run(canary_stack, "canary", PROJECT, "2", "--weight=10")
    assert result.exit_code == 0, result.output
    gone = [call["words"][3] for call in canary_stack.calls() if call["words"][:2] == ["config", "rm"]]
    assert gone == [f'package-platform:canaries["{PROJECT}"].header']


def test_a_canary_that_the_stack_file_does_not_know_of_is_told(canary_stack: FakeStack) -> None:
    canary_stack.order({"events": [BEGUN, STEP]}, {"code": 1, "output": "error: no space left on device"})
    result = run(canary_stack, "canary", PROJECT, "2", "--weight=10")
    assert isinstance(result.exception, ReleaseError), result.output
    assert result.exception.code == BROKEN
    by_hand = f'write there by hand: package-platform:canaries: {PROJECT}: {{"tag": "2", "weight": 10}}'
    assert result.exception.lines[-1] == f"what runs is as wished, and Pulumi.test.yaml is not: {by_hand}"


@pytest.fixture
def shared(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """A stack that is deployed, and shares its environment's project files with another one."""
    monkeypatch.setattr(release.commands.Session, "cluster", stack.connected)
    stack.order({"output": "[]"})
    stack.save({"resources": []})
    return stack


@pytest.mark.parametrize("selection", ["{exclude: [packet]}", "{include: ['SJZY.*']}"])
def test_what_belongs_to_another_stack_is_no_business_of_this_one(shared: FakeStack, selection: str) -> None:
    file = shared.program.stack_file
    file.write_text(f"{file.read_text()}  package-platform:projects: {selection}\n")
    result = run(shared, "status", "--json")
    assert result.exit_code == 0, result.output
    assert [each["project"] for each in json.loads(result.stdout)["projects"]] == [PROJECT]
    result = run(shared, "tidy", "--json")
    assert result.exit_code == 0, result.output
    for command in ("status", "tidy"):
        result = run(shared, command, "packet")
        assert str(result.exception) == "packet does not belong to the stack test: see package-platform:projects there"


@pytest.mark.parametrize(
    "content",
    ["kind: [\n", "kind: backend\nport: http\n", "kind: backend # 后端\n"],
    ids=["does not parse", "bad field", "GBK"],
)
def test_status_tells_of_a_bad_project_file_beside_all_others(shared: FakeStack, content: str) -> None:
    (shared.program.folder / "projects" / "packet.yaml").write_text(content, encoding="gbk")
    result = run(shared, "status", "--json")
    assert result.exit_code == 0, result.output
    good, bad = sorted(json.loads(result.stdout)["projects"], key=lambda each: bool(each["problems"]))
    assert (good["project"], good["deployed"], good["problems"]) == (PROJECT, "1", [])
    assert (bad["project"], bad["wanted"]) == ("packet", "7")
    assert "projects/packet.yaml:" in bad["problems"][-1]
    assert f"packet: {bad['problems'][-1]}" in run(shared, "status").output
    assert isinstance(run(shared, "status", "packet").exception, RefusedError)


def test_who_runs_it_is_told_by_jenkins_or_by_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUILD_USER_ID", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "agent")
    assert release.commands.who_runs() == f"{pwd.getpwuid(os.getuid()).pw_name}@agent"
    monkeypatch.setattr(os, "getuid", lambda: 987654321)  # as in a container that has no such user
    assert release.commands.who_runs() == "uid 987654321@agent"
    monkeypatch.setenv("BUILD_USER_ID", "li")
    assert release.commands.who_runs() == "li"


def test_what_pulumi_prints_is_read_whatever_the_locale(shared: FakeStack) -> None:
    shared.order({"output": '[{"message": "修复了"}]'})
    code = (
        "import sys; from pathlib import Path; from release.inputs import Program; from release.pulumi import Pulumi\n"
        "sys.stdout.reconfigure(encoding='utf-8')\n"
        "print(Pulumi(Program(Path(sys.argv[1]), 'test')).history(1)[0]['message'])"
    )
    ran = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code, str(shared.program.folder)],
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=False,
    )
    assert ran.stdout.decode().strip() == "修复了", ran.stderr.decode()


@pytest.mark.parametrize(
    ("words", "does"),
    [
        (("deploy", PROJECT, "2"), "release.commands.deploy"),
        (("rollback", PROJECT), "release.commands.rollback"),
        (("canary", PROJECT, "2", "--weight=5"), "release.canary.start"),
        (("canary", PROJECT, "2", "--steps=5,100"), "release.steps.run"),
        (("promote", PROJECT), "release.canary.promote"),
    ],
    ids=["deploy", "rollback", "canary", "steps", "promote"],
)
def test_all_that_starts_pods_is_told_how_long_to_wait(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], does: str
) -> None:
    limits: list[tuple[float | None, float]] = []

    def done(session: release.commands.Session, *_: object, **__: object) -> int:
        limits.append((session.options.unschedulable, session.options.limits.unready))
        return 0

    monkeypatch.setattr(does, done)
    for given in (["--unschedulable-after=77", "--unready-after=88"], []):
        result = run(stack, *words, *given)
        assert result.exit_code == 0, result.output
    assert limits == [(77, 88), (None, Limits.unready)]


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (RefusedError(["a", "b"]), "refused", REFUSED),
        (LockedError(["a", "b"]), "locked", LOCKED),
        (ReleaseError(["a", "b"]), "failed", FAILED),
        (InterruptedRunError(["a", "b"], signal.SIGTERM), "interrupted", 143),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_an_error_is_told_to_a_program_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, outcome: str, code: int
) -> None:
    def fails(*_: object) -> int:
        raise error

    monkeypatch.setattr("release.views.show_status", fails)
    for words in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["release", "status", "-s", "test", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        said = capsys.readouterr()
        lines = [line.removeprefix("release: ") for line in said.err.splitlines()]
        assert lines == (list(error.lines) if isinstance(error, ReleaseError) else lines[:1])
        expected = {"outcome": outcome, "errors": lines, "exitCode": code}
        assert (json.loads(said.out) if words else said.out) == (expected if words else "")


def test_a_lock_is_not_removed_under_a_release_that_runs_here(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    stack.order({})
    with held(Pulumi(stack.program).key, "deploy of packet", lambda _: False):
        result = run(stack, "unlock")
        assert isinstance(result.exception, LockedError), result.output
        assert f"the stack is held by deploy of packet (pid {os.getpid()}) since" in str(result.exception)
        assert "--force" in str(result.exception)
        assert stack.calls() == []
        assert run(stack, "unlock", "--force").exit_code == 0
    assert run(stack, "unlock").exit_code == 0
    assert [call["words"][:2] for call in stack.calls()] == [["cancel", "--yes"]] * 2


def test_a_lock_of_before_the_host_was_started_is_removed(stack: FakeStack) -> None:
    stack.order({})
    stack.locks.mkdir(parents=True)
    told = {"pid": os.getpid(), "username": "ci", "hostname": socket.gethostname(), "timestamp": "2000-01-01T00:00:00Z"}
    (stack.locks / "other.json").write_text(json.dumps(told))
    result = run(stack, "unlock")
    assert result.exit_code == 0, result.output
    assert "(from before this host was started: its holder is gone)" in result.output
    assert [call["words"][:2] for call in stack.calls()] == [["cancel", "--yes"]]
    (stack.locks / "other.json").write_text(json.dumps({**told, "timestamp": datetime.now(UTC).isoformat()}))
    assert "is in use: end that, or --force" in str(run(stack, "unlock").exception)
