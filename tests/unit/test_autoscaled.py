"""Autoscaled projects: who takes over the traffic starts with as many pods as carry it."""

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from manifests.package_app import package_app, package_app_plan
from manifests.workload import Workload
from model.environment import Environment
from model.names import SlotName
from model.plan import CanaryWish
from model.project import parse_project
from model.release import Instruction, Record, Release, Slot, pods_of
from model.stack import Application, Image, instructed, parse_stack
from release.change import Changer, Options, Wish
from release.screen import Screen
from tests.unit.fake_stack import BEGUN, NAME, PROJECT, STEP, FakeStack, deployment

ENVIRONMENT = Environment.model_validate(
    {"name": "test", "namespace": "package-test", "domain": "a.test", "registry": {"host": "harbor.a.test"}}
)
SCALED: dict[str, Any] = {"autoscaling": {"maxReplicas": 8}, "replicas": 3}


def ran(*slots: tuple[SlotName, str]) -> Record:
    """Return the record of a project that runs these; the first one is live."""
    contents: dict[SlotName, Slot] = {name: Slot(release=Release(tag=tag), revision=f"r{tag}") for name, tag in slots}
    return Record(live=slots[0][0], slots=contents, history=tuple(Release(tag=tag) for _, tag in slots))


def rendered(record: Record | None, pods: Mapping[str, int], strategy: str = "blueGreen", **fields: Any) -> Workload:
    project = parse_project("x.yaml", {"kind": "backend", "strategy": strategy, **SCALED, **fields}, "test")
    wish = CanaryWish(tag="9", weight=25) if strategy == "canary" else None
    image = Image(repository="harbor.a.test/back/x", tag="2")
    application = Application(
        gitea_name="x", file="x.yaml", project=project, image=image, record=record, canary=wish, pods=pods
    )
    return package_app(application, ENVIRONMENT, package_app_plan(application, ENVIRONMENT))


def replicas(workload: Workload) -> dict[str, int]:
    return {slot.plan.name: slot.deployment["spec"]["replicas"] for slot in workload.slots}


@pytest.mark.parametrize(
    ("pods", "expected"),
    [({"x-blue": 6}, 6), ({"x-blue": 2}, 3), ({}, 3), ({"x-blue": 20}, 8), ({"x-blue": 5, "x-green": 7}, 7)],
    ids=[
        "what the live one has",
        "not fewer than declared",
        "unknown",
        "not more than allowed",
        "not fewer than it has",
    ],
)
def test_a_colour_starts_with_what_carries_the_load(pods: dict[str, int], expected: int) -> None:
    workload = rendered(ran(("blue", "1")), pods)
    assert replicas(workload)["green"] == expected
    assert scaled(workload) == ["x-green"]


def scaled(workload: Workload) -> list[str]:
    return [slot.autoscaler["spec"]["scaleTargetRef"]["name"] for slot in workload.slots if slot.autoscaler]


def test_a_warm_colour_has_no_autoscaler_that_would_shrink_it_while_the_traffic_comes_back() -> None:
    """It goes by the load of the last five minutes, in which there was none."""
    first = rendered(ran(("blue", "1")), {"x-blue": 6})
    (green, blue) = (slot.plan.content for slot in first.slots)
    record = Record(live="blue", slots={"green": green, "blue": blue}, history=(blue.release,))
    back = rendered(record, {"x-blue": 6, "x-green": 6})
    assert {slot.plan.name: slot.plan.change for slot in back.slots} == {"green": "declare", "blue": "keep"}
    assert replicas(back)["green"] == 6
    assert scaled(back) == ["x-green"]


def test_both_halves_of_a_pair_have_an_autoscaler() -> None:
    pair = rendered(ran(("blue", "1")), {"x-blue": 6}, blueGreen={"after": "both"})
    assert scaled(pair) == ["x-green", "x-blue"]


def test_a_change_of_strategy_starts_with_what_carries_the_load() -> None:
    assert replicas(rendered(ran(("main", "1")), {"x": 7}))["blue"] == 7


def test_without_an_autoscaler_the_number_is_the_declared_one() -> None:
    assert replicas(rendered(ran(("blue", "1")), {"x-blue": 7}, autoscaling=None))["green"] == 3


def test_a_first_release_starts_with_the_declared_number() -> None:
    assert replicas(rendered(None, {"x-blue": 7})) == {"blue": 3}


def test_a_canary_has_its_share_of_what_carries_the_load_and_no_autoscaler() -> None:
    workload = rendered(ran(("main", "2")), {"x": 8}, "canary")
    assert replicas(workload)["canary"] == 2
    assert [slot.plan.name for slot in workload.slots if slot.autoscaler] == ["main"]
    assert replicas(rendered(ran(("main", "2")), {}, "canary"))["canary"] == 1


def test_a_canary_has_at_least_its_share_unless_the_project_says_how_many() -> None:
    stable: dict[str, Any] = {"autoscaling": None, "replicas": 6}
    assert replicas(rendered(ran(("main", "2")), {}, "canary", **stable))["canary"] == 2, "25 % of 6, rounded up"
    assert replicas(rendered(ran(("main", "2")), {}, "canary", **stable, canary={"replicas": 4}))["canary"] == 4


def test_the_state_tells_how_many_pods_there_are() -> None:
    def stored(kind: str, replicas: object) -> dict[str, Any]:
        return {"type": kind, "outputs": {"metadata": {"name": "x"}, "spec": {"replicas": replicas}}}

    assert pods_of(
        {"a": stored("kubernetes:apps/v1:Deployment", 6.0), "b": {"type": "kubernetes:apps/v1:Deployment"}}
    ) == {"x": 6}
    assert pods_of({"a": stored("kubernetes:apps/v1:StatefulSet", 6), "b": 1}) == {}


def test_an_instruction_tells_how_many_pods_there_are() -> None:
    environment = {"namespace": "n", "domain": "a.test", "registry": {"host": "h.test"}}
    data = {"environment": environment, "tags": {"x": "2"}}
    stack = parse_stack("Pulumi.test.yaml", "test", data, {"projects/x.yaml": {"kind": "backend"}})
    (application,) = instructed(stack, Instruction(project="x", pods={"x-blue": 6})).applications
    assert application.pods == {"x-blue": 6}


@pytest.mark.parametrize(("file", "told"), [("autoscaling: {maxReplicas: 9}\n", {NAME: 6}), ("", {})])
def test_a_release_reads_how_many_pods_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, told: dict[str, int]
) -> None:
    stack = FakeStack(tmp_path / "fake")
    (stack.program.folder / "projects" / f"{PROJECT}.yaml").write_text(f"kind: backend\n{file}")
    for name, value in stack.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stack.order({"events": [BEGUN, STEP]})
    live = deployment("1")
    stack.deployments = [{**live, "spec": {**live["spec"], "replicas": 6}}]
    changer = Changer(stack.program, stack.cluster, Screen(quiet=True, out=io.StringIO()), Options("release deploy"))
    with changer.hold("deploy"):
        changer.make(stack.application("2"), Wish("release"))
    (call,) = stack.calls()
    assert call["instruction"].get("pods", {}) == told


def test_a_release_sets_what_it_declares_whoever_owns_it() -> None:
    """An autoscaler, a person with `kubectl scale`: provider 4.x would stop with a conflict."""
    objects = rendered(ran(("blue", "1")), {}).manifests()
    assert {each["metadata"]["annotations"].get("pulumi.com/patchForce") for each in objects} == {"true"}
    templates = [each["spec"]["template"] for each in objects if each["kind"] == "Deployment"]
    assert templates
    assert all("pulumi.com/patchForce" not in each["metadata"]["annotations"] for each in templates), "other pods"
