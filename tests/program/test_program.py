"""The program under mocks, for all three stacks."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from pulumi.runtime.mocks import MockMonitor

import rollout
import smoke
from manifests import asset_bridge
from model.names import SlotName
from model.plan import SlotPlan
from model.release import INSTRUCTION_VARIABLE, RECORD_ANNOTATION, Instruction, Record, parse_record
from model.stack import Application
from settings import PROGRAM
from tests.conftest import STACKS
from tests.program.conftest import Recording, Run, waited_by

AS_A_FOLDER = """
import json, runpy, sys
import pulumi
from pulumi.runtime.config import set_all_config
import rollout
from registry import Registry
from settings import PROGRAM, read_stack_file
from tests.program.conftest import Recording
Registry.digests = lambda self, images: {image: "sha256:" + "0" * 64 for image in images}
async def there(*_): pass
rollout.slot_rollout = lambda *_: there
names = dict(project="package-platform", stack="test", organization="organization")
pulumi.runtime.set_mocks(Recording(), preview=False, **names)
set_all_config({f"package-platform:{k}": json.dumps(v) for k, v in read_stack_file(PROGRAM, "test").items()})
sys.path = [each for each in sys.path if each not in ("", str(PROGRAM))]
pulumi.runtime.test(lambda: runpy.run_path(str(PROGRAM)))()
sys.modules.pop("api_server", None)
import api_server
"""
"""What ``pulumi up`` does: the folder is run, and off Python's path when its text has ended."""
KINDS_PER_PROJECT = ("ServiceAccount", "Deployment", "PodDisruptionBudget", "Service", "Ingress")


@pytest.mark.parametrize("stack", STACKS)
def test_every_project_is_declared_whole(run: Run, stack: str) -> None:
    recording = run(stack)
    assert len(recording.of("PackageApp")) == 3
    assert len(recording.of("FrontendApp")) == 5
    beside = ("ingress", "cluster", "ack", "alicloud")
    projects = [each for each in recording.declared if not each.name.startswith(beside)]
    # A front end has a Service for each of its slots, and the ConfigMap of its asset bridge.
    # Behind the ALB of prod every project has a Service for each slot.
    more = {"Service": 8 * 4 if stack == "prod" else 5 * 3, "ConfigMap": 5}
    for kind in (*KINDS_PER_PROJECT, "ConfigMap"):
        expected = more.get(kind, 0) + (8 if kind in KINDS_PER_PROJECT else 0)
        assert len([each for each in projects if each.type.endswith(f":{kind}")]) == expected, kind
    assert [each.inputs["metadata"]["name"] for each in projects if each.type.endswith(":Namespace")] == [
        f"package-{stack}"
    ]
    assert len(projects) == 8 * (1 + len(KINDS_PER_PROJECT)) + sum(more.values()) + 1


def test_components_carry_the_gitea_name(run: Run) -> None:
    assert "SJZY.Package.Api" in [each.name for each in run("test").of("PackageApp")]


def test_exports(run: Run) -> None:
    outputs = run("test").outputs
    assert outputs["endpoints"]["SJZY.Package.Api"] == {
        "url": "http://api.test.package.test/admin",
        "address": "10.89.0.100:80",
        "namespace": "package-test",
    }
    release = outputs["releases"]["SJZY.Package.Api"]
    assert (release["slot"], release["tag"]) == ("main", "2022-08-02-16-59")
    assert release["digest"].startswith("sha256:")


def test_a_project_without_a_tag_is_listed_and_not_deployed(run: Run) -> None:
    recording = run("test", tags={"packet": "2022-08-02-16-59"})
    assert [each.name for each in recording.of("FrontendApp")] == ["packet"]
    assert recording.of("PackageApp") == []
    assert recording.outputs["releases"]["SJZY.Package.Api"] is None
    assert "SJZY.Package.Api" not in recording.outputs["endpoints"]


def recorded(recording: Recording) -> dict[str, Any]:
    """Return what the engine would tell the next run of the resources that this one declared."""
    return {
        f"urn:{index}": {"type": each.type, "outputs": each.inputs}
        for index, each in enumerate(
            [*recording.of("Service"), *recording.of("Deployment"), *recording.of("ConfigMap")]
        )
    }


def test_a_project_that_runs_keeps_what_it_runs_when_its_tag_is_missing(run: Run) -> None:
    first = run("test")
    second = run("test", earlier=recorded(first), tags={"packet": "2022-08-03-18-54"})
    assert len(second.of("FrontendApp")) + len(second.of("PackageApp")) == 8
    before, after = ({each.name: each.inputs for each in record.of("Deployment")} for record in (first, second))
    assert [name for name in before if before[name] != after[name]] == []
    assert after.keys() - before.keys() == {"packet-green"}


def test_a_project_that_runs_is_taken_down_by_excluding_it(run: Run) -> None:
    second = run("test", earlier=recorded(run("test")), projects={"exclude": ["packet"]})
    assert "packet" not in [each.name for each in second.of("FrontendApp")]


def test_a_stack_may_hold_a_part_of_the_environment(run: Run) -> None:
    recording = run("test", projects={"include": ["packet*"], "exclude": ["packet_label"]}, platform=False)
    assert sorted(each.name for each in recording.of("FrontendApp")) == [
        "packet", "packet_bsi_pc_ui", "packet_outcustome_pc_ui", "packet_shopman_web_ui",
    ]  # fmt: skip
    assert recording.of("PackageApp") == []
    assert [each.name for each in recording.of("Namespace")] == ["ingress-namespace-package-ingress"]


def test_the_record_remembers_the_release_before(run: Run) -> None:
    first = run("test")
    tags = {"SJZY.Package.Api": "2022-08-03-18-54", "packet": "2022-08-02-16-59"}
    second = run("test", earlier=recorded(first), tags=tags)

    def tags_of(name: str) -> list[str]:
        (service,) = (each for each in second.of("Service") if each.name == name)
        record: dict[str, Any] = json.loads(service.inputs["metadata"]["annotations"][RECORD_ANNOTATION])
        return [release["tag"] for release in record["history"]]

    assert tags_of("SJZY.Package.Api") == ["2022-08-03-18-54", "2022-08-02-16-59"]
    assert tags_of("packet") == ["2022-08-02-16-59"]


def test_a_release_changes_no_output_of_a_component(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[dict[str, Any]] = []

    def register(component: pulumi.ComponentResource, outputs: dict[str, Any]) -> None:
        def note(values: dict[str, Any]) -> None:
            registered.append({"component": component.pulumi_resource_name, **values})

        pulumi.Output.all(**outputs).apply(note)

    monkeypatch.setattr(pulumi.ComponentResource, "register_outputs", register)
    first = run("test")
    before = sorted(registered, key=str)
    registered.clear()
    run("test", earlier=recorded(first), tags={"SJZY.Package.Api": "2022-08-03-18-54", "packet": "2022-08-02-16-59"})
    assert {"SJZY.Package.Api", "packet"} < {each["component"] for each in before}
    assert sorted(registered, key=str) == before


def test_a_state_that_is_being_written_is_read_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, invoke = run("test"), pulumi.runtime.invoke
    asked: list[str] = []

    def unreadable_at_first(token: str, props: dict[str, str]) -> object:
        asked.append(token)
        if len(asked) <= 2:
            raise RuntimeError("invoke failed: failed to load checkpoint: EOF")
        return invoke(token, props)

    monkeypatch.setattr(pulumi.runtime, "invoke", unreadable_at_first)
    second = run("test", earlier=recorded(first))
    assert len(asked) == 3
    assert record_of(second, "packet") == record_of(first, "packet")


def test_nobody_goes_back_by_accident(run: Run) -> None:
    first, old = run("test"), "2022-08-02-16-59"
    second = run("test", earlier=recorded(first), tags={"packet": "2022-08-03-18-54"})
    with pytest.raises(pulumi.RunError, match=rf"tags\.packet: {old} was replaced by 2022-08-03-18-54, which runs"):
        run("test", earlier=recorded(second), tags={"packet": old})
    for leave in (f"packet:{old}", "packet", ["other", "packet"]):
        allowed = run("test", earlier=recorded(second), tags={"packet": old}, allowOlder=leave)
        assert record_of(allowed, "packet").release.tag == old
    with pytest.raises(pulumi.RunError, match="was replaced by"):
        run("test", earlier=recorded(second), tags={"packet": old}, allowOlder="packet:another")


def test_a_warm_colour_gets_the_traffic_only_when_its_pods_are_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it changes, so Pulumi waits for nothing: a node may have been lost since, or an image."""
    asked: list[tuple[str, str]] = []

    async def wait(application: Application, slot: SlotName, _: str) -> None:
        asked.append((application.gitea_name, slot))
        raise rollout.RolloutError("1 of 2 pods are ready")

    waited_by(monkeypatch, wait)
    first, old = run("test"), "2022-08-02-16-59"
    second = run("test", earlier=recorded(first), tags={"packet": "2022-08-03-18-54"})
    assert asked == [], "Pulumi itself waits for what it changes"
    with pytest.raises(rollout.RolloutError, match="1 of 2 pods"):
        run("test", earlier=recorded(second), tags={"packet": old}, allowOlder="packet")
    assert asked == [("packet", "blue")]
    instruction = Instruction(project="packet", records={"packet": record_of(second, "packet")}, ready=("packet-blue",))
    monkeypatch.setenv(INSTRUCTION_VARIABLE, instruction.model_dump_json())
    assert record_of(run("test", tags={"packet": old}), "packet").live == "blue", "the caller has just seen them"


def test_a_preview_neither_waits_for_pods_nor_asks_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def wait(_: Application, slot: SlotName, __: str) -> None:
        asked.append(f"are the pods of {slot} there")

    def check(*_: object) -> Callable[[Application, SlotPlan], None]:
        return lambda _, slot: asked.append(f"are the answers of {slot.name} right")

    waited_by(monkeypatch, wait)
    monkeypatch.setattr(smoke, "check", check)
    second = run("test", earlier=recorded(run("test")), tags={"packet": "2022-08-03-18-54"})
    back: dict[str, Any] = {"earlier": recorded(second), "tags": {"packet": "2022-08-02-16-59"}, "allowOlder": "packet"}
    asked.clear()
    assert record_of(run("test", preview=True, **back), "packet").live == "blue"
    assert asked == []
    run("test", **back)
    assert asked == ["are the pods of blue there", "are the answers of blue right"]


def bridges(recording: Recording) -> dict[str, Any]:
    """Return the configurations of packet's asset bridges: by the name of the ConfigMap."""
    found = {each.inputs["metadata"]["name"]: each.inputs["data"] for each in recording.of("ConfigMap")}
    return {name: data for name, data in found.items() if name.startswith("packet-assets-")}


def test_the_bridge_of_a_colour_that_stays_keeps_its_configuration(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is rendered from the project file of today; what runs mounts that of its own day."""
    second = run("test", earlier=recorded(run("test")), tags={"packet": "2022-08-03-18-54"})
    old, config = bridges(second), "_CONFIG"
    monkeypatch.setattr(asset_bridge, config, getattr(asset_bridge, config) + "# another version\n")
    third = run("test", earlier=recorded(second), tags={"packet": "2022-08-03-18-54"})
    assert record_of(third, "packet").live == "blue", "other pods, so the other colour"
    assert old.items() < bridges(third).items()
    # These mocks leave nothing as it is: in the state of the third run no pod mounts the old one any more.
    fourth = run("test", earlier=recorded(third), tags={"packet": "2022-08-03-18-54"})
    assert len(bridges(fourth)) == 1
    assert not old.keys() & bridges(fourth).keys()
    record = record_of(second, "packet")
    instruction = Instruction(project="packet", action="tidy", records={"packet": record}, bridges=old)
    monkeypatch.setenv(INSTRUCTION_VARIABLE, instruction.model_dump_json())
    assert old.items() < bridges(run("test")).items(), "nothing that is left as it is loses what it runs with"


def record_of(recording: Recording, name: str) -> Record:
    (service,) = (each for each in recording.of("Service") if each.name == name)
    record = parse_record(service.inputs["metadata"]["annotations"][RECORD_ANNOTATION])
    assert record is not None
    return record


def test_an_instruction_registers_one_project_and_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("test")
    instruction = Instruction(project="packet", records={"packet": record_of(first, "packet")})
    monkeypatch.setenv(INSTRUCTION_VARIABLE, instruction.model_dump_json())
    tags = {"packet": "2022-08-03-18-54", "SJZY.Package.Api": "2022-08-03-18-54"}
    recording = run("test", earlier_outputs=first.outputs, tags=tags)
    assert {each.inputs["metadata"]["namespace"] for each in recording.declared if "metadata" in each.inputs} == {
        "package-test"
    }
    assert [each.name for each in recording.of("FrontendApp")] == ["packet"]
    assert recording.of("PackageApp") + recording.of("HaIngress") + recording.of("Namespace") == []
    assert record_of(recording, "packet").live == "green"
    changed = {name: tag for name, tag in released(recording).items() if tag != released(first)[name]}
    assert changed == {"packet": "2022-08-03-18-54"}, "the other projects stay in the outputs"
    assert recording.outputs["endpoints"] == first.outputs["endpoints"]
    assert recording.outputs["ingress"] == first.outputs["ingress"]


def released(recording: Recording) -> dict[str, str]:
    return {name: release["tag"] for name, release in recording.outputs["releases"].items()}


def test_tidying_leaves_the_traffic_and_takes_the_pods(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    second = run("test", earlier=recorded(run("test")), tags={"packet": "2022-08-03-18-54"})
    instruction = Instruction(project="packet", action="tidy", records={"packet": record_of(second, "packet")})
    monkeypatch.setenv(INSTRUCTION_VARIABLE, instruction.model_dump_json())
    tidied = run("test", tags={"packet": "2022-08-03-18-54"})
    replicas = {each.name: each.inputs["spec"]["replicas"] for each in tidied.of("Deployment")}
    assert replicas == {"packet-blue": 0, "packet-green": 2}
    assert not record_of(tidied, "packet").slots["blue"].warm
    assert record_of(tidied, "packet").release == record_of(second, "packet").release


def test_an_unreadable_instruction_declares_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INSTRUCTION_VARIABLE, '{"projct": "packet"}')
    with pytest.raises(pulumi.RunError, match=INSTRUCTION_VARIABLE):
        run("test")


def test_a_second_run_declares_the_same(run: Run) -> None:
    first = run("test")

    def comparable(declared: list[Any]) -> list[tuple[str, str, str]]:
        return sorted((each.type, each.name, json.dumps(each.inputs, sort_keys=True)) for each in declared)

    assert comparable(run("test", earlier=recorded(first)).declared) == comparable(first.declared)


def test_nothing_only_a_newer_provider_understands_is_asked(run: Run) -> None:
    for each in run("test").declared:
        asked = each.inputs.get("metadata", {}).get("annotations", {})
        # The older one always does what `patchForce` asks for.
        asks = {key for key in asked if key.startswith("pulumi.com/")}
        assert asks <= {"pulumi.com/skipAwait", "pulumi.com/patchForce"}
        assert not each.type.endswith("Patch")
    assert run("test").of("kubernetes") == []


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, list[str]]]:
    """What the engine is told of a Deployment's properties: name → property → URNs whose Outputs it is made of.

    Mocks give the program's Outputs as plain values, so that only this tells one from the other.
    """
    given: dict[str, dict[str, list[str]]] = {}
    really = MockMonitor.RegisterResource  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]

    def register(monitor: MockMonitor, request: Any) -> Any:
        if request.type.endswith(":Deployment"):
            given[request.name] = {name: list(each.urns) for name, each in request.propertyDependencies.items()}
        return really(monitor, request)  # pyright: ignore[reportUnknownVariableType]

    monkeypatch.setattr(MockMonitor, "RegisterResource", register)
    return given


def test_no_manifest_waits_on_an_output_for_what_is_known_when_planning(
    run: Run, waits: dict[str, dict[str, list[str]]]
) -> None:
    """A name, selector or namespace that comes from another resource's Output turns a change of that resource into a
    replacement of this one (a Deployment deleted, which is an outage): all of them are plain values."""
    declared = {each.name for each in run("test").of("Deployment")}
    assert declared
    assert waits.keys() == declared
    for name, properties in waits.items():
        assert {"metadata", "spec"} <= properties.keys()
        assert {key: urns for key, urns in properties.items() if urns} == {}, name


def test_the_stack_that_owns_the_ingress_declares_it_whole(run: Run) -> None:
    recording = run("test")
    ours = [each for each in recording.declared if each.name.startswith("ingress")]
    assert [each.type for each in ours if ":index:" in each.type] == ["package-platform:index:HaIngress"]
    kinds = Counter(each.type.rsplit(":", 1)[-1] for each in ours)
    assert kinds == {
        "HaIngress": 1, "Namespace": 1, "ServiceAccount": 2, "ClusterRole": 1, "ClusterRoleBinding": 1, "ConfigMap": 2,
        "PodDisruptionBudget": 1, "IngressClass": 1, "DaemonSet": 2, "Service": 1,
    }  # fmt: skip
    assert recording.outputs["ingress"] == {"className": "nginx", "addresses": ["10.89.0.100"]}


def test_an_environment_beside_it_only_names_its_address(run: Run) -> None:
    recording = run("uat")
    assert recording.of("HaIngress") == []
    assert recording.outputs["endpoints"]["packet"]["address"] == "10.89.0.100:80"


def test_bad_settings_stop_the_program_before_anything_is_declared(run: Run) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        run("uat", tags={"SJZY.Package.Api": "latest", "packt": "1"})
    assert str(caught.value).splitlines() == [
        "nothing was changed, the settings have problems:",
        "Pulumi.uat.yaml:package-platform:tags.SJZY.Package.Api: the tag 'latest' is not allowed in uat, "
        "where a release must be repeatable: name the tag that latest stands for",
        "Pulumi.uat.yaml:package-platform:tags.packt: there is no project file for it; did you mean 'packet'?",
    ]


def test_callbacks_of_outputs_find_the_programs_modules_also_when_its_text_has_ended() -> None:
    command = [sys.executable, "-W", "ignore", "-c", AS_A_FOLDER]
    done = subprocess.run(command, cwd=PROGRAM, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
