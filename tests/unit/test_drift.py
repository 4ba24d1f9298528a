"""What was changed by hand: the applied manifests beside what the cluster has."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from release.cluster import KINDS
from release.drift import applied, differences
from tests.unit.fake_stack import PROJECT

COMPONENT = f"urn:pulumi:test::p::package-platform:index:PackageApp::{PROJECT}"
CONTAINER = {
    "name": "x",
    "image": "a:1",
    "resources": {"requests": {"cpu": "0.5"}},
    "env": [{"name": "A", "value": "1"}],
    "ports": [{"name": "http", "containerPort": 8080}],
}
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "x", "labels": {"l": "1"}, "annotations": {}},
    "spec": {
        "replicas": 2,
        "minReadySeconds": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [CONTAINER], "tolerations": [{"key": "k", "effect": "NoExecute"}]}},
    },
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "x", "annotations": {"n": "1"}},
    "spec": {"selector": {"a": "b"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
}
AUTOSCALER: dict[str, Any] = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "x"},
    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "x"}},
}


def live() -> dict[tuple[str, str], Any]:
    """Return the objects as the API server has them: with more fields, other notations, and no empty ones."""
    found = {(each["kind"], "x"): copy.deepcopy(each) for each in (DEPLOYMENT, SERVICE, AUTOSCALER)}
    for each in found.values():
        # So they are in the answer to a list.
        del each["apiVersion"], each["kind"]
    deployment = found["Deployment", "x"]
    del deployment["metadata"]["annotations"], deployment["spec"]["minReadySeconds"]
    deployment["metadata"]["uid"] = "u"
    deployment["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    container_of(deployment)["resources"]["requests"]["cpu"] = "500m"
    container_of(deployment)["imagePullPolicy"] = "Always"
    found["Service", "x"]["spec"]["clusterIP"] = "10.0.0.1"
    return found


def container_of(deployment: dict[str, Any]) -> dict[str, Any]:
    return deployment["spec"]["template"]["spec"]["containers"][0]


def lines(change: Callable[[dict[tuple[str, str], Any]], object], *manifests: dict[str, Any]) -> list[str]:
    objects = live()
    change(objects)
    return differences(manifests or (DEPLOYMENT, SERVICE), objects, frozenset(KINDS))


def test_what_the_api_server_adds_and_writes_otherwise_is_no_drift() -> None:
    assert lines(lambda _: None, DEPLOYMENT, SERVICE, AUTOSCALER) == []


IMAGE = "spec.template.spec.containers[x].image"
EACH: list[tuple[Callable[[dict[tuple[str, str], Any]], object], str]] = [
    (
        lambda found: container_of(found["Deployment", "x"]).update(image="a:2"),
        f"Deployment x: {IMAGE} is a:2, not a:1",
    ),
    (lambda found: found["Deployment", "x"]["spec"].update(replicas=5), "Deployment x: spec.replicas is 5, not 2"),
    (
        lambda found: found["Service", "x"]["spec"]["selector"].update(a="c"),
        "Service x: spec.selector.a is c, not b",
    ),
    (
        lambda found: found["Service", "x"]["spec"]["selector"].update(c="d"),
        "Service x: spec.selector.c is d, which nobody declared",
    ),
    (lambda found: found.pop(("Service", "x")), "Service x is missing"),
    (
        lambda found: found["Deployment", "x"]["metadata"]["labels"].update(l="2"),
        "Deployment x: metadata.labels.l is 2, not 1",
    ),
    (
        lambda found: found["Service", "x"]["metadata"]["annotations"].clear(),
        "Service x: metadata.annotations.n is gone, not 1",
    ),
    (
        lambda found: container_of(found["Deployment", "x"])["env"].append({"name": "B", "value": "2"}),
        "Deployment x: spec.template.spec.containers[x].env[B] is there, which nobody declared",
    ),
    (
        lambda found: container_of(found["Deployment", "x"]).update(env=[]),
        "Deployment x: spec.template.spec.containers[x].env[A] is gone",
    ),
    (
        lambda found: found["Deployment", "x"]["spec"]["template"]["spec"].update(tolerations=[]),
        "Deployment x: spec.template.spec.tolerations[0] is gone",
    ),
]


@pytest.mark.parametrize(("change", "line"), EACH, ids=[line for _, line in EACH])
def test_a_change_by_hand_is_told(change: Callable[[dict[tuple[str, str], Any]], object], line: str) -> None:
    assert lines(change) == [line]


def test_the_number_of_pods_belongs_to_the_autoscaler_where_there_is_one() -> None:
    def scale(found: dict[tuple[str, str], Any]) -> None:
        found["Deployment", "x"]["spec"]["replicas"] = 5

    assert lines(scale, DEPLOYMENT, AUTOSCALER) == []


def test_an_encrypted_value_and_a_kind_that_is_not_read_are_not_compared() -> None:
    service = copy.deepcopy(SERVICE)
    service["metadata"]["annotations"]["n"] = {"4dabf18193072939515e22adb298388d": "1b47", "ciphertext": "v1:x"}
    assert lines(lambda _: None, service, {"kind": "Job", "metadata": {"name": "gone"}}) == []


def test_only_a_project_s_own_manifests_are_taken_from_the_state() -> None:
    resources: list[dict[str, Any]] = [
        {"urn": COMPONENT, "inputs": {}},
        {"urn": "1", "parent": COMPONENT, "inputs": SERVICE},
        {"urn": "2", "parent": "another", "inputs": DEPLOYMENT},
    ]
    assert applied({"resources": resources}, COMPONENT) == [SERVICE]
