"""What the engine is asked for: the same as by the classes of pulumi-kubernetes, for every object of every stack."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import pulumi
import pytest
from pulumi.runtime.mocks import MockMonitor
from pulumi_kubernetes import (
    apiextensions,
    apps,
    autoscaling,
    batch,
    core,
    networking,
    policy,
    rbac,
    storage,
)
from pydantic.alias_generators import to_snake

import components.ha_ingress
import components.storage
from components import _apply, _workload
from components._apply import apply, type_token
from manifests import Manifest
from tests.program import test_library
from tests.program.conftest import Run

TYPED: Mapping[tuple[str, str], Callable[..., pulumi.CustomResource]] = {
    ("v1", "ConfigMap"): core.v1.ConfigMap,
    ("v1", "Namespace"): core.v1.Namespace,
    ("v1", "PersistentVolumeClaim"): core.v1.PersistentVolumeClaim,
    ("v1", "Secret"): core.v1.Secret,
    ("v1", "Service"): core.v1.Service,
    ("v1", "ServiceAccount"): core.v1.ServiceAccount,
    ("apps/v1", "DaemonSet"): apps.v1.DaemonSet,
    ("apps/v1", "Deployment"): apps.v1.Deployment,
    ("apps/v1", "StatefulSet"): apps.v1.StatefulSet,
    ("autoscaling/v2", "HorizontalPodAutoscaler"): autoscaling.v2.HorizontalPodAutoscaler,
    ("batch/v1", "Job"): batch.v1.Job,
    ("networking.k8s.io/v1", "Ingress"): networking.v1.Ingress,
    ("networking.k8s.io/v1", "IngressClass"): networking.v1.IngressClass,
    ("policy/v1", "PodDisruptionBudget"): policy.v1.PodDisruptionBudget,
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): rbac.v1.ClusterRole,
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): rbac.v1.ClusterRoleBinding,
    ("storage.k8s.io/v1", "StorageClass"): storage.v1.StorageClass,
}
METADATA = {"name": "x", "namespace": "n", "labels": {"app.kubernetes.io/name": "x"}, "annotations": {"a/b": "c"}}
POD: Manifest = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "x", "image": "y", "envFrom": []}]},
}
REST: list[Manifest] = [
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": METADATA,
        "type": "Opaque",
        "immutable": True,
        "data": {"a": "b"},
    },
    {"apiVersion": "v1", "kind": "Secret", "metadata": METADATA, "stringData": {"a": "b"}},
    {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": METADATA,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": METADATA, "spec": {"template": POD, "replicas": 2}},
    {"apiVersion": "batch/v1", "kind": "Job", "metadata": METADATA, "spec": {"template": POD, "backoffLimit": 0}},
    {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": METADATA,
        "spec": {"minReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}},
    },
    {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "x"},
        "provisioner": "p",
        "allowVolumeExpansion": True,
        "mountOptions": ["hard"],
        "parameters": {"csi.storage.k8s.io/fstype": "ext4"},
    },
]
"""Of the kinds that the committed stacks do not have."""

Asked = dict[str, dict[str, Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the engine was asked to register: type and name → what tells one request from another."""
    seen: Asked = {}
    really = cast("Any", MockMonitor.RegisterResource)

    def register(monitor: MockMonitor, request: Any) -> Any:
        seen[f"{request.type} {request.name}"] = {
            "object": request.object,
            "version": request.version,
            "url": request.pluginDownloadURL,
            "secret": sorted(request.additionalSecretOutputs),
            "custom": request.custom,
        }
        return really(monitor, request)

    monkeypatch.setattr(MockMonitor, "RegisterResource", register)
    return seen


def typed(name: str, manifest: Manifest) -> pulumi.CustomResource:
    """Declare a manifest by the class of its kind."""
    kind = TYPED.get((manifest["apiVersion"], manifest["kind"]))
    fields = {to_snake(key): value for key, value in manifest.items()}
    if kind is None:
        return apiextensions.CustomResource(name, **fields)
    return kind(name, **{key: value for key, value in fields.items() if key not in {"api_version", "kind"}})


def same(manifests: Mapping[str, Manifest], asked: Asked) -> None:
    """Check that both ways ask for the same."""

    def all_typed() -> None:
        for name, manifest in manifests.items():
            typed(name, manifest)

    def all_applied() -> None:
        for name, manifest in manifests.items():
            apply(name, manifest, pulumi.ResourceOptions())

    asked.clear()
    test_library.run(all_typed)
    expected = dict(asked)
    asked.clear()
    test_library.run(all_applied)
    assert asked == expected
    names = {f"{type_token(manifest)} {name}" for name, manifest in manifests.items()}
    assert names <= asked.keys()


@pytest.mark.parametrize("stack", ["test", "uat", "prod"])
def test_every_object_of_a_stack_is_asked_for_as_by_its_class(
    stack: str, run: Run, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests: dict[str, Manifest] = {}

    def noted(name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
        manifests[f"{len(manifests)} {name}"] = manifest
        return apply(name, manifest, opts)

    for module in (_apply, _workload, components.storage, components.ha_ingress):
        monkeypatch.setattr(module, "apply", noted)
    run(stack, tags={"SJZY.Package.Api": "2022-08-03-18-54", "packet": "2022-08-03-18-54"})
    assert len(manifests) > 10
    same(manifests, asked)


def test_kinds_that_the_stacks_do_not_have_are_asked_for_as_by_their_classes(asked: Asked) -> None:
    same({str(number): manifest for number, manifest in enumerate(REST)}, asked)


def test_the_data_of_a_secret_is_secret_whoever_looks(asked: Asked) -> None:
    test_library.run(lambda: apply("x", REST[0], pulumi.ResourceOptions()))
    request = asked["kubernetes:core/v1:Secret x"]
    assert request["secret"] == ["data", "stringData"]
    assert "1b47061264138c4ac30d75fd1eb44270" in str(request["object"]["data"]), "Pulumi's sign of a secret"
