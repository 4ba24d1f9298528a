"""The order of a project's resources behind an ALB, whose Ingress moves the traffic from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from components import FrontendApp, FrontendAppArgs, PackageApp, PackageAppArgs
from model.environment import Environment, Ingress, Registry
from model.plan import Action, CanaryWish
from model.project import parse_project
from model.release import RECORD_ANNOTATION, Record, parse_record
from model.stack import Application, Image
from tests.program.conftest import Order, Recording
from tests.program.test_library import run

ENVIRONMENT = Environment(
    name="prod",
    namespace="n",
    domain="example.com",
    registry=Registry(host="harbor.example.com"),
    ingress=Ingress(dialect="alb", class_name="alb", scheme="https"),
)


def release(  # noqa: PLR0913 - the facts of a release
    tag: str,
    record: Record | None,
    *,
    kind: str = "backend",
    canary: CanaryWish | None = None,
    action: Action = "release",
    check: Callable[..., None] | None = None,
    environment: Environment = ENVIRONMENT,
    **fields: Any,
) -> Recording:
    fields = {"kind": kind, "routes": [{"host": "api"}], **fields}
    project = parse_project("projects/x.yaml", fields, "prod")
    image = Image(repository="harbor.example.com/x", tag=tag)
    application = Application(
        gitea_name="X", file="projects/x.yaml", project=project, image=image, record=record, canary=canary,
        action=action,
    )  # fmt: skip
    if kind == "backend":
        return run(lambda: PackageApp("X", PackageAppArgs(application, environment, check=check)))
    return run(lambda: FrontendApp("X", FrontendAppArgs(application, environment, check=check)))


def record_of(recording: Recording) -> Record:
    (service,) = (each for each in recording.of("Service") if each.name == "X")
    record = parse_record(service.inputs["metadata"]["annotations"][RECORD_ANNOTATION])
    assert record is not None
    return record


def ran(*tags: str, **fields: Any) -> Record:
    record: Record | None = None
    for tag in tags:
        record = record_of(release(tag, record, **fields))
    assert record is not None
    return record


@pytest.mark.parametrize("kind", ["backend", "frontend"])
@pytest.mark.parametrize("strategy", ["rolling", "blueGreen", "canary"])
def test_at_the_first_release_the_load_balancer_knows_the_slots_before_their_pods(
    order: Order, kind: str, strategy: str
) -> None:
    release("1", None, kind=kind, strategy=strategy)
    pods = "Deployment X-blue" if strategy == "blueGreen" else "Deployment X-main"
    for slot in ("main", "blue", "green", "canary"):
        assert order.after("Ingress X", f"Service X-{slot}")
    assert order.after(pods, "Ingress X"), "its pods would wait for ever"
    assert order.after("Service X", pods), "the record is written last"


@pytest.mark.parametrize("kind", ["backend", "frontend"])
def test_a_release_moves_weights_then_service_and_only_then_touches_the_rest(order: Order, kind: str) -> None:
    before = ran("1", kind=kind, strategy="blueGreen")
    order.waits.clear()
    release("2", before, kind=kind, strategy="blueGreen")
    assert order.after("Ingress X", "Deployment X-green")
    assert order.after("Service X", "Ingress X")
    assert order.after("Deployment X-blue", "Service X")
    assert not order.after("Deployment X-green", "Ingress X")


def test_what_is_tidied_up_has_lost_its_weight(order: Order) -> None:
    before = ran("1", "2", strategy="blueGreen")
    order.waits.clear()
    tidied = release("2", before, strategy="blueGreen", action="tidy")
    assert {each.name: each.inputs["spec"]["replicas"] for each in tidied.of("Deployment")}["X-blue"] == 0
    assert order.after("Deployment X-blue", "Ingress X")


def test_a_canary_gets_weight_when_it_is_ready(order: Order) -> None:
    before = ran("1", strategy="canary")
    order.waits.clear()
    recording = release("1", before, strategy="canary", canary=CanaryWish(tag="2", weight=10))
    assert order.after("Ingress X", "Deployment X-canary")
    assert order.after("Ingress X", "Deployment X-main")
    assert [each.name for each in recording.of("Ingress")] == ["X"]


def test_another_strategy_finds_its_slot_known_already(order: Order) -> None:
    before = ran("1", strategy="rolling")
    order.waits.clear()
    release("2", before, strategy="blueGreen")
    assert order.after("Ingress X", "Deployment X-blue")
    assert order.after("Deployment X-main", "Service X")


def test_the_smoke_check_stands_before_the_weights(order: Order) -> None:
    smoke = {"smoke": [{"path": "/"}]}
    before = ran("1", strategy="blueGreen", blueGreen=smoke)
    order.waits.clear()

    def fails(*_: object) -> None:
        raise pulumi.RunError("wrong answer")

    with pytest.raises(pulumi.RunError, match="wrong answer"):
        release("2", before, strategy="blueGreen", blueGreen=smoke, check=fails)
    declared = {urn.rsplit("::", 1)[0].rsplit(":", 1)[1] + " " + urn.rsplit("::", 1)[1] for urn in order.waits}
    assert "Deployment X-green" in declared
    assert declared.isdisjoint({"Ingress X", "Service X"}), "nothing has moved"


def test_without_a_route_nothing_waits_for_a_load_balancer(order: Order) -> None:
    recording = release("1", None, strategy="rolling", routes=[])
    assert recording.of("Ingress") == []
    assert [each.name for each in recording.of("Service")] == ["X"]
    (deployment,) = recording.of("Deployment")
    assert "readinessGates" not in deployment.inputs["spec"]["template"]["spec"]
    assert record_of(recording).weighted is None
    assert order.after("Service X", "Deployment X-main")
