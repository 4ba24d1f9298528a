"""The one place where a rendered manifest becomes a Pulumi resource.

The typed constructors of pulumi-kubernetes take the API's own camelCase dicts unchanged, so the manifest that the
golden files and the schema check have seen is the very one that is applied. The class of a Secret also tells the engine
that its data is secret, going in and coming back.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.apps.v1 import DaemonSet, Deployment, StatefulSet
from pulumi_kubernetes.autoscaling.v2 import HorizontalPodAutoscaler
from pulumi_kubernetes.core.v1 import ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service, ServiceAccount
from pulumi_kubernetes.networking.v1 import Ingress, IngressClass
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget
from pulumi_kubernetes.rbac.v1 import ClusterRole, ClusterRoleBinding
from pydantic.alias_generators import to_snake

from manifests import Manifest

Resource = TypeVar("Resource", bound=pulumi.CustomResource)

_TYPES: dict[type[pulumi.CustomResource], tuple[str, str]] = {
    ClusterRole: ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ClusterRoleBinding: ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ConfigMap: ("v1", "ConfigMap"),
    DaemonSet: ("apps/v1", "DaemonSet"),
    Deployment: ("apps/v1", "Deployment"),
    HorizontalPodAutoscaler: ("autoscaling/v2", "HorizontalPodAutoscaler"),
    Ingress: ("networking.k8s.io/v1", "Ingress"),
    IngressClass: ("networking.k8s.io/v1", "IngressClass"),
    Namespace: ("v1", "Namespace"),
    PersistentVolumeClaim: ("v1", "PersistentVolumeClaim"),
    PodDisruptionBudget: ("policy/v1", "PodDisruptionBudget"),
    Secret: ("v1", "Secret"),
    Service: ("v1", "Service"),
    ServiceAccount: ("v1", "ServiceAccount"),
    StatefulSet: ("apps/v1", "StatefulSet"),
}
# By the class' own name: its module is imported only by a project that needs it, as that takes 0.1 s.
_RARE_TYPES = {"Job": ("batch/v1", "Job"), "StorageClass": ("storage.k8s.io/v1", "StorageClass")}
_ENVELOPE = {"apiVersion", "kind"}
NOTES = ["metadata.labels", "metadata.annotations"]
"""To be ignored where an object is left as it is. Never ``metadata`` as a whole: provider 4.x sends what is live of an
ignored path, and the API server refuses a patch with ``managedFields`` (``handleSSAIgnoreFields`` in
``provider/pkg/await/await.go`` of pulumi-kubernetes)."""


def apply(kind: type[Resource], name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> Resource:
    """Declare a manifest as a resource of its type.

    Args:
        kind: The class of pulumi-kubernetes.
        name: The resource's name in Pulumi.
        manifest: The rendered object.
        opts: Parent, dependencies and the rest.

    Raises:
        ValueError: If the manifest is of another kind.
    """
    declared = (manifest["apiVersion"], manifest["kind"])
    if (_TYPES.get(kind) or _RARE_TYPES[kind.__name__]) != declared:
        raise ValueError(f"a manifest of {declared} can't become a {kind.__name__}")
    constructor = cast("Callable[..., Resource]", kind)
    fields: dict[str, Any] = {to_snake(key): value for key, value in manifest.items() if key not in _ENVELOPE}
    return constructor(name, **fields, opts=opts)


def apply_any(name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    """Declare a manifest as whatever it says it is; one of a kind that is not listed here as a custom resource.

    Args:
        name: The resource's name in Pulumi.
        manifest: The rendered object.
        opts: Parent, dependencies and the rest.
    """
    declared = (manifest["apiVersion"], manifest["kind"])
    for kind, known in _TYPES.items():
        if known == declared:
            return apply(kind, name, manifest, opts)
    return CustomResource(
        name,
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        metadata=manifest["metadata"],
        spec=manifest["spec"],
        opts=opts,
    )
