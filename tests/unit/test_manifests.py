"""What the committed projects don't use: autoscaling, no routes, switched-off protections, overrides."""

import re
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests import Manifest
from manifests.workload import Workload
from model.stack import parse_stack
from tests.conftest import rendered

ENVIRONMENT: dict[str, Any] = {
    "namespace": "package-test",
    "domain": "test.example.com",
    "registry": {"host": "harbor.example.com"},
}


def render(tag: str = "1", **fields: Any) -> Workload:
    files: dict[str, object] = {"projects/Some.Api.yaml": {"kind": "backend", **fields}}
    stack = parse_stack("f", "test", {"environment": ENVIRONMENT, "tags": {"Some.Api": tag}}, files)
    (application,) = stack.deployed
    workload = rendered(application, stack.environment)
    for manifest in workload.manifests():
        kubernetes_validate.validate(manifest, "1.37", strict=True)
    return workload


def container(workload: Workload) -> dict[str, Any]:
    return deployment(workload)["spec"]["template"]["spec"]["containers"][0]


def deployment(workload: Workload) -> Manifest:
    return workload.slots[0].deployment


def test_autoscaling() -> None:
    workload = render(autoscaling={"maxReplicas": 6}, replicas=3)
    assert workload.slots[0].autoscaler is not None
    spec = workload.slots[0].autoscaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    assert spec["scaleTargetRef"]["name"] == deployment(workload)["metadata"]["name"] == "some-api"
    assert deployment(workload)["spec"]["replicas"] == 3


def test_no_autoscaler_unless_asked() -> None:
    assert render().slots[0].autoscaler is None


def test_a_project_without_routes_has_no_ingress() -> None:
    workload = render(routes=[])
    assert workload.ingress is None
    assert [manifest["kind"] for manifest in workload.manifests()] == [
        "ServiceAccount", "Deployment", "PodDisruptionBudget", "Service",
    ]  # fmt: skip


def test_routes_of_one_host_share_a_rule() -> None:
    routes = [{"host": "api", "path": "/a"}, {"host": "www.example.org"}, {"host": "api", "path": "/b"}]
    workload = render(routes=routes)
    assert workload.ingress is not None
    found = {
        rule["host"]: [path["path"] for path in rule["http"]["paths"]] for rule in workload.ingress["spec"]["rules"]
    }
    assert found == {"api.test.example.com": ["/a", "/b"], "www.example.org": ["/"]}


def test_an_environment_overrides_field_by_field() -> None:
    fields: dict[str, Any] = {
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "environments": {"test": {"replicas": 5, "resources": {"requests": {"cpu": "10m"}}}, "uat": {"replicas": 9}},
    }
    workload = render(**fields)
    assert deployment(workload)["spec"]["replicas"] == 5
    assert container(workload)["resources"]["requests"] == {"cpu": "10m", "memory": "128Mi"}


def test_the_protections_can_be_switched_off() -> None:
    workload = render(shutdown={"preStopSeconds": 0, "drainSeconds": 0})
    assert "lifecycle" not in container(workload)
    assert deployment(workload)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 0


def test_grace_is_sleep_and_drain() -> None:
    workload = render(shutdown={"preStopSeconds": 7, "drainSeconds": 20})
    assert deployment(workload)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 27


def pod_spec(workload: Workload) -> dict[str, Any]:
    return deployment(workload)["spec"]["template"]["spec"]


def lost_node(seconds: int | None) -> list[dict[str, Any]]:
    bounded = {} if seconds is None else {"tolerationSeconds": seconds}
    return [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", **bounded}
        for taint in ("not-ready", "unreachable")
    ]


def test_pods_leave_a_lost_node_in_seconds() -> None:
    assert pod_spec(render())["tolerations"] == lost_node(10)
    assert pod_spec(render(nodeLostSeconds=60))["tolerations"] == lost_node(60)
    environment = {**ENVIRONMENT, "nodeLostSeconds": 30}
    files: dict[str, object] = {"projects/Some.Api.yaml": {"kind": "backend"}}
    stack = parse_stack("f", "test", {"environment": environment, "tags": {"Some.Api": "1"}}, files)
    assert pod_spec(rendered(stack.deployed[0], stack.environment))["tolerations"] == lost_node(30)


def test_a_singleton_stays_on_a_lost_node_unless_it_is_allowed_to_leave() -> None:
    """Without a time: the old one may still run there, and a second one would be started."""
    assert pod_spec(render(singleton=True, replicas=1))["tolerations"] == lost_node(None)
    assert pod_spec(render(singleton=True, replicas=1, nodeLostSeconds=0))["tolerations"] == lost_node(0)


@pytest.mark.parametrize("fields", [{}, {"replicas": 1}, {"singleton": True, "replicas": 1}])
def test_no_disruption_budget_can_block_a_drain(fields: dict[str, Any]) -> None:
    """One pod may always go, also when there is only one; and what is not ready does not count."""
    spec = render(**fields).slots[0].disruption_budget["spec"]
    assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert "minAvailable" not in spec


def test_a_container_that_hangs_is_not_waited_for_as_one_that_leaves() -> None:
    probe = container(render(shutdown={"preStopSeconds": 10, "drainSeconds": 30}))["livenessProbe"]
    assert probe["terminationGracePeriodSeconds"] == 5
    own = {"path": "/x", "terminationGracePeriodSeconds": 20}
    probes = {"startup": {"path": "/x"}, "readiness": {"path": "/x"}, "liveness": own}
    assert container(render(probes=probes))["livenessProbe"]["terminationGracePeriodSeconds"] == 20


def test_a_project_may_set_the_port_variable_itself() -> None:
    workload = render(env={"ASPNETCORE_HTTP_PORTS": "9000"})
    found = [each["value"] for each in container(workload)["env"] if each["name"] == "ASPNETCORE_HTTP_PORTS"]
    assert found == ["9000"]


def expanded(text: str, variables: dict[str, str]) -> str:
    """Return what the kubelet makes of a text: as ``Expand`` in third_party/forked/golang/expansion of Kubernetes."""

    def of(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        return variables.get(match["name"], match[0])

    return re.sub(r"\$(\$|\((?P<name>[^)]*)\))", of, text)


@settings(deadline=None)
@given(st.text(alphabet="$()AB ", max_size=12))
@example("do $$ begin end $$")
@example("^a$$")
@example("$(A)")
def test_a_variable_is_what_the_project_file_says(text: str) -> None:
    (found,) = (each["value"] for each in container(render(env={"Z": text}))["env"] if each["name"] == "Z")
    assert expanded(found, {"A": "x", "AB": "y", "": "z"}) == text
    # So that no project's pods are replaced for nothing.
    assert found == text or "$$" in text or "$(" in text


def test_without_a_digest_the_tag_is_pulled_each_time() -> None:
    assert container(render())["image"] == "harbor.example.com/back/some.api:1"
    assert container(render())["imagePullPolicy"] == "Always"


@pytest.mark.parametrize("tag", ["a" * 100, "1.0-"])
def test_a_tag_that_is_no_label_value_is_shown_as_far_as_it_can_be(tag: str) -> None:
    labels = deployment(render(tag=tag))["metadata"]["labels"]
    assert tag.startswith(labels["app.kubernetes.io/version"])
