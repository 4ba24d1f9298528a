"""Projects behind an ALB: both kinds, all strategies, as they would be applied to prod."""

import json
from itertools import product
from typing import Any

import kubernetes_validate
import pytest
from syrupy.assertion import SnapshotAssertion

from manifests import Manifest, alb
from manifests.frontend_app import frontend_app, frontend_app_plan
from manifests.package_app import package_app, package_app_plan
from manifests.workload import Workload
from model.plan import CanaryWish
from model.project import parse_project
from model.release import parse_record
from model.stack import Application, Image
from tests.conftest import committed_stack, digest_of
from tests.golden.test_golden import KUBERNETES_VERSIONS, YamlFiles

PROD = committed_stack("prod").environment
PREFIX = "alb.ingress.kubernetes.io"
CASES = list(product(("backend", "frontend"), ("rolling", "blueGreen", "canary")))
WISH = CanaryWish(tag="3", weight=10, header="X-Canary")


def application(kind: str, strategy: str, tag: str, **changes: Any) -> Application:
    fields = {"kind": kind, "strategy": strategy, "routes": [{"host": "api"}, {"host": "api", "path": "/v2"}]}
    image = Image(repository="harbor.package.test/x", tag=tag, digest=digest_of("x", tag))
    return Application(
        gitea_name="Some.Project",
        file="projects/Some.Project.yaml",
        project=parse_project("projects/Some.Project.yaml", {**fields, **changes.pop("fields", {})}, "prod"),
        image=image,
        **changes,
    )


def rendered(given: Application) -> Workload:
    if given.project.kind == "backend":
        return package_app(given, PROD, package_app_plan(given, PROD))
    return frontend_app(given, PROD, frontend_app_plan(given, PROD))


def second(kind: str, strategy: str, **changes: Any) -> Workload:
    """Return a project's second release; that of a canary has one beside it."""
    first = rendered(application(kind, strategy, "1"))
    record = parse_record(first.service["metadata"]["annotations"]["package-platform/release"])
    canary = {"canary": WISH} if strategy == "canary" else {}
    return rendered(application(kind, strategy, "2", record=record, **canary, **changes))


def annotations(workload: Workload) -> dict[str, str]:
    assert workload.ingress is not None
    return workload.ingress["metadata"]["annotations"]


def weights(workload: Workload, by: str = "by-weight") -> dict[str, int]:
    (action,) = json.loads(annotations(workload)[f"{PREFIX}/actions.{by}"])
    assert action["type"] == "ForwardGroup"
    groups = action["ForwardConfig"]["ServerGroups"]
    assert {group["ServicePort"] for group in groups} == {80}
    return {group["ServiceName"].removeprefix("some-project-"): group["Weight"] for group in groups}


def paths(workload: Workload) -> list[tuple[str, str]]:
    assert workload.ingress is not None
    (rule,) = workload.ingress["spec"]["rules"]
    entries: list[Manifest] = rule["http"]["paths"]
    assert {each["backend"]["service"]["port"]["name"] for each in entries} == {"use-annotation"}
    return [(each["path"], each["backend"]["service"]["name"]) for each in entries]


@pytest.mark.parametrize(("kind", "strategy"), CASES)
def test_golden(kind: str, strategy: str, snapshot: SnapshotAssertion) -> None:
    manifests = second(kind, strategy).manifests()
    assert manifests == snapshot(name=f"alb/{kind}-{strategy}", extension_class=YamlFiles)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize(("kind", "strategy"), CASES)
def test_valid_for_kubernetes(kind: str, strategy: str, version: str) -> None:
    for manifest in second(kind, strategy).manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(("kind", "strategy"), CASES)
def test_pods_wait_for_the_load_balancer_in_every_slot(kind: str, strategy: str) -> None:
    workload = second(kind, strategy)
    for slot in workload.slots:
        spec = slot.deployment["spec"]
        assert spec["template"]["spec"]["readinessGates"] == [{"conditionType": alb.READINESS_GATE}]
        assert spec["minReadySeconds"] > alb.CHECK_SECONDS * alb.HEALTHY_ANSWERS


@pytest.mark.parametrize(("kind", "strategy"), CASES)
def test_every_slot_with_pods_is_in_the_ingress_by_a_service_that_finds_them(kind: str, strategy: str) -> None:
    workload = second(kind, strategy)
    services = {each["metadata"]["name"]: each["spec"] for each in workload.slot_services}
    listed = weights(workload)
    assert {f"some-project-{slot}" for slot in listed} <= services.keys()
    assert sum(listed.values()) == 100
    for slot in workload.slots:
        labels = slot.deployment["spec"]["template"]["metadata"]["labels"]
        own = services[f"some-project-{slot.plan.name}"]
        assert own["selector"].items() <= labels.items()
        assert [port["port"] for port in own["ports"]] == [alb.SERVICE_PORT]


def test_weights_follow_the_strategy() -> None:
    assert weights(second("backend", "rolling")) == {"main": 100, "blue": 0, "green": 0, "canary": 0}
    assert weights(second("frontend", "blueGreen")) == {"main": 0, "blue": 0, "green": 100, "canary": 0}
    assert weights(second("backend", "canary")) == {"main": 90, "blue": 0, "green": 0, "canary": 10}


def test_a_canarys_header_is_asked_before_the_weights_and_deeper_paths_before_others() -> None:
    workload = second("backend", "canary")
    assert paths(workload) == [("/v2", "by-header"), ("/v2", "by-weight"), ("/", "by-header"), ("/", "by-weight")]
    assert weights(workload, "by-header") == {"canary": 100}
    (condition,) = json.loads(annotations(workload)[f"{PREFIX}/conditions.by-header"])
    assert condition == {"type": "Header", "headerConfig": {"key": "X-Canary", "values": ["always"]}}
    assert workload.canary_ingress is None
    aborted = rendered(application("backend", "canary", "2"))
    assert paths(aborted) == [("/v2", "by-weight"), ("/", "by-weight")]
    assert "by-header" not in json.dumps(aborted.ingress)


def test_the_load_balancer_asks_what_the_kubelet_asks() -> None:
    workload = second("backend", "rolling")
    readiness = workload.slots[0].deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    assert annotations(workload)[f"{PREFIX}/healthcheck-path"] == readiness["httpGet"]["path"]
    assert annotations(workload)[f"{PREFIX}/healthcheck-enabled"] == "true"


def test_an_order_is_written_only_where_it_is_asked_for() -> None:
    assert f"{PREFIX}/order" not in annotations(second("backend", "rolling"))
    ordered = second("backend", "rolling", fields={"order": 7})
    assert annotations(ordered)[f"{PREFIX}/order"] == "7"


def test_names_of_annotations_are_valid_for_any_project() -> None:
    for key in annotations(second("backend", "canary")):
        assert len(key.rsplit("/", 1)[-1]) <= 63


def test_a_migration_does_not_wait_for_the_load_balancer() -> None:
    workload = second("backend", "rolling", fields={"migrate": ["migrate"]})
    assert workload.migration is not None
    assert "readinessGates" not in workload.migration["spec"]["template"]["spec"]


def test_the_gate_is_part_of_no_release_elsewhere() -> None:
    test = committed_stack("test").environment
    given = application("backend", "rolling", "1")
    pod = package_app(given, test, package_app_plan(given, test)).slots[0].deployment["spec"]["template"]["spec"]
    assert "readinessGates" not in pod
