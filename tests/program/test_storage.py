"""Volumes in the program under mocks: what is declared, what Pulumi must not delete, and what pods wait for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pulumi
import pytest

import settings
from components import _apply, _workload
from components import storage as component
from model.names import SlotName
from model.problems import Problem
from model.release import INSTRUCTION_VARIABLE, Instruction, parse_record
from model.stack import Application
from tests.program.conftest import Recording, Run, waited_by

API, FILE = "SJZY.Package.Task.Api", "projects/SJZY.Package.Task.Api.yaml"
NAME = "sjzy-package-task-api"
DATA: dict[str, Any] = {"name": "data", "size": "1Gi", "mount": "/data"}
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
PARENTS = "package-platform:index:PackageApp$package-platform:index:Storage"

Options = dict[str, pulumi.ResourceOptions]
Stored = Callable[..., Recording]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Options:
    """The options that each resource of a project was given, by its name in Pulumi."""
    seen: Options = {}

    def watch(module: Any) -> None:
        really = module.apply

        def apply(name: str, manifest: Any, opts: pulumi.ResourceOptions) -> Any:
            seen[f"{manifest['kind']} {name}"] = opts
            return really(name, manifest, opts)

        monkeypatch.setattr(module, "apply", apply)

    for module in (component, _workload, _apply):
        watch(module)
    return seen


@pytest.fixture
def stored(run: Run, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """Run the stack `test`, in which one project has these volumes; None takes its file away."""
    read = settings.read_projects

    def run_with(volumes: list[dict[str, Any]] | None, *, stack: str = "test", **more: Any) -> Recording:
        def with_volumes(program: Path, problems: list[Problem]) -> dict[str, object]:
            files: dict[str, Any] = read(program, problems)
            own = files.pop(FILE)
            return files if volumes is None else {**files, FILE: {**own, "storage": volumes}}

        monkeypatch.setattr(settings, "read_projects", with_volumes)
        return run(stack, **more)

    return run_with


def waited_for(options: pulumi.ResourceOptions) -> set[str]:
    """Return the kinds of the resources that one waits for."""
    return {each.pulumi_resource_type.rpartition(":")[2] for each in cast("list[pulumi.Resource]", options.depends_on)}


def claims(recording: Recording) -> dict[str, Any]:
    return {each.name: each.inputs for each in recording.of("PersistentVolumeClaim")}


def state(*recordings: Recording) -> dict[str, Any]:
    """Return the resources that the engine would tell the next run of."""
    return {
        f"urn:pulumi:test::package-platform::{PARENTS}${each.type}::{each.name}": {
            "type": each.type,
            "outputs": each.inputs,
        }
        for recording in recordings
        for each in (*recording.of("Service"), *recording.of("PersistentVolumeClaim"), *recording.of("StatefulSet"))
    }


def tags_without_api(*, stack: str = "test") -> dict[str, str]:
    tags: dict[str, str] = settings.read_stack_file(settings.PROGRAM, stack)["tags"]
    return {name: tag for name, tag in tags.items() if name != API}


def test_a_claim_is_guarded_and_the_pods_wait_for_it_and_for_its_class(stored: Stored, options: Options) -> None:
    recording = stored([DATA])
    (claim,) = claims(recording).values()
    assert claim["metadata"]["name"] == f"{NAME}-data"
    assert claim["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true"
    assert [each.name for each in recording.of("StorageClass")] == [f"{API}-local-path"]
    given = options[f"PersistentVolumeClaim {API}-data"]
    assert given.protect is True
    assert {"PersistentVolumeClaim", "StorageClass"} <= waited_for(options[f"Deployment {API}-main"])
    assert "StorageClass" in waited_for(given)


def test_a_project_without_volumes_asks_for_nothing(stored: Stored, options: Options) -> None:
    recording = stored([])
    assert claims(recording) == {}
    assert recording.of("StorageClass") == []
    assert not [each for each in recording.declared if each.type.endswith(":Storage")]
    (service,) = (each for each in recording.of("Service") if each.name == API)
    record = parse_record(service.inputs["metadata"]["annotations"]["package-platform/release"])
    assert record
    assert record.storage is None
    assert options[f"Deployment {API}-main"].protect is None


def test_what_may_go_is_not_guarded_unless_it_is_to_grow(stored: Stored, options: Options) -> None:
    volume = {**DATA, "reclaim": "delete"}
    environment = {**settings.read_stack_file(settings.PROGRAM, "test")["environment"]}
    environment["storage"] = {"classes": {"local-path": {"expandable": True}}}
    first = stored([volume], environment=environment)
    assert options[f"PersistentVolumeClaim {API}-data"].protect is False
    stored([{**volume, "size": "2Gi"}], environment=environment, earlier=state(first))
    assert options[f"PersistentVolumeClaim {API}-data"].protect is True


def test_a_removed_volume_is_declared_as_it_is(stored: Stored, options: Options) -> None:
    recording = stored([], earlier=state(stored([DATA])))
    assert list(claims(recording)) == [f"{API}-data"]
    given = options[f"PersistentVolumeClaim {API}-data"]
    assert (given.protect, given.ignore_changes) == (True, ["metadata.labels", "metadata.annotations", "spec"])
    assert claims(stored([], earlier=state(stored([{**DATA, "reclaim": "delete"}])))) == {}


def test_a_removed_project_keeps_its_volume_where_it_was(
    stored: Stored, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = stored([DATA])
    monkeypatch.setattr(pulumi, "info", said.append)
    recording = stored(None, tags=tags_without_api(), earlier=state(first))
    assert list(claims(recording)) == [f"{API}-data"]
    assert options[f"PersistentVolumeClaim {API}-data"].protect is True
    assert [each.name for each in recording.declared if each.type.endswith(":Deployment") and each.name == API] == []
    assert ("package-platform:index:PackageApp", API) in {(each.type, each.name) for each in recording.declared}
    assert f"{API} is not deployed, and its volume {NAME}-data (1Gi) is kept: see docs/how-to/storage.md" in said
    # And it is the same claim again when the project comes back.
    again = stored([DATA], earlier=state(recording))
    assert claims(again) == claims(first)


def test_a_change_that_a_volume_could_not_follow_stops_the_run(stored: Stored) -> None:
    first = stored([DATA])
    with pytest.raises(pulumi.RunError, match=r"can't shrink from 1Gi to 500Mi") as caught:
        stored([{**DATA, "size": "500Mi"}], earlier=state(first))
    assert "nothing was changed" in str(caught.value)
    assert f"{FILE}:storage.0.size" in str(caught.value)


def test_a_singleton_that_would_start_beside_itself_stops_the_run(stored: Stored) -> None:
    first = stored([])
    with pytest.raises(
        pulumi.RunError, match="singleton: it runs as a Deployment, beside which a StatefulSet"
    ) as caught:
        stored([OWN], earlier=state(first))
    assert "nothing was changed" in str(caught.value)


def test_a_targeted_run_declares_what_it_must_not_delete(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stored([DATA])
    (service,) = (each for each in first.of("Service") if each.name == API)
    record = parse_record(service.inputs["metadata"]["annotations"]["package-platform/release"])
    assert record
    assert record.storage is True
    instruction = Instruction(project=API, records={NAME: record})
    monkeypatch.setenv(INSTRUCTION_VARIABLE, instruction.model_dump_json(by_alias=True))
    assert list(claims(stored([], earlier=state(first)))) == [f"{API}-data"]


def test_the_namespace_is_guarded_as_long_as_a_volume_is(stored: Stored, options: Options) -> None:
    def guarded() -> bool | None:
        return options["Namespace package-test"].protect

    first = stored([DATA])
    assert guarded() is True
    stored(None, tags=tags_without_api(), earlier=state(first))
    assert guarded() is True
    stored([])
    assert guarded() is None


OWN: dict[str, Any] = {**DATA, "perPod": True}


def waiting(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[str]:
    """Have the wait for StatefulSets end at once, with this error if there is one; return whom it was for."""
    waited: list[str] = []

    async def wait(application: Application, slot: SlotName, _: str) -> None:
        assert slot == "main"
        waited.append(application.gitea_name)
        if error:
            raise error

    waited_by(monkeypatch, wait)
    return waited


def test_pods_with_volumes_of_their_own_are_those_of_a_stateful_set(
    stored: Stored, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = waiting(monkeypatch)
    recording = stored([OWN])
    (made,) = recording.of("StatefulSet")
    assert made.name == f"{API}-main"
    assert not [each for each in recording.of("Deployment") if each.name.startswith(API)]
    assert claims(recording) == {}
    assert "StorageClass" in waited_for(options[f"StatefulSet {API}-main"])
    assert waited == [API]


def test_nothing_is_recorded_of_a_stateful_set_whose_pods_are_not_ready(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared: list[str] = []
    really = Recording.new_resource

    def new_resource(self: Recording, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        declared.append(f"{args.typ.rsplit(':', 1)[-1]} {args.name}")
        return really(self, args)

    monkeypatch.setattr(Recording, "new_resource", new_resource)
    waiting(monkeypatch, pulumi.RunError("1 of 2 pods are ready"))
    with pytest.raises(pulumi.RunError, match="1 of 2 pods are ready"):
        stored([OWN])
    assert f"StatefulSet {API}-main" in declared
    assert f"Service {API}" not in declared


def test_the_class_of_the_own_server_is_declared_once(stored: Stored) -> None:
    environment = {**settings.read_stack_file(settings.PROGRAM, "test")["environment"]}
    environment["storage"] = {"nfs": {"server": "10.0.0.9", "share": "/export"}}
    recording = stored([{**DATA, "class": "shared"}], environment=environment)
    (made,) = recording.of("StorageClass")
    assert (made.name, made.inputs["provisioner"]) == ("nfs", "nfs.csi.k8s.io")
