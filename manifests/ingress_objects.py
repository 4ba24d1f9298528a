"""What the objects of the cluster's ingress share: labels, nodes, the shape of their DaemonSets and containers."""

from manifests import Manifest
from manifests.labels import PART_OF
from model.environment import Environment
from model.names import label_value

APP_LABEL = "app.kubernetes.io/name"
INGRESS_NODE = {"package-platform/ingress": "true"}
"""The label of the nodes that carry the ingress."""
BUSYBOX = "/bin/busybox"
"""In keepalived's image: the shell of its scripts and of those beside the proxy."""
USER = 65532
"""Whoever needs no right at all runs as this user and group."""


def metadata(environment: Environment, namespace: str | None, name: str, component: str) -> Manifest:
    """Return an object's name and labels.

    Args:
        environment: of the stack that owns the ingress.
        namespace: None for an object of the whole cluster.
        name: of the object.
        component: the part of the ingress that it belongs to.
    """
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "labels": {
            APP_LABEL: component,
            "app.kubernetes.io/instance": label_value(f"{component}-{environment.name}"),
            "app.kubernetes.io/component": "ingress",
            "app.kubernetes.io/part-of": PART_OF,
            "app.kubernetes.io/managed-by": "pulumi",
        },
    }


def daemon_set(
    environment: Environment, namespace: str, component: str, pod: Manifest, *, min_ready_seconds: int
) -> Manifest:
    """Return a DaemonSet that runs a part of the ingress on every ingress node, and is rolled node after node.

    Args:
        environment: of the stack that owns the ingress.
        namespace: of the ingress.
        component: the part, which also names the DaemonSet.
        pod: the pod's ``spec``, without what ties it to nodes.
        min_ready_seconds: how long a new pod has to be ready before the next node's is replaced.
    """
    described = metadata(environment, namespace, component, component)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": described,
        "spec": {
            "selector": {"matchLabels": {APP_LABEL: component}},
            # One node at a time, the others carry the traffic; no surge, for host ports and addresses are there once.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "minReadySeconds": min_ready_seconds,
            "revisionHistoryLimit": 5,
            "template": {
                "metadata": {"labels": dict(described["labels"])},
                # A cordoned, tainted or sick node goes on carrying traffic as long as its proxy answers.
                "spec": {**pod, "nodeSelector": INGRESS_NODE, "tolerations": [{"operator": "Exists"}]},
            },
        },
    }


def field(name: str, path: str) -> Manifest:
    """Return an environment variable that holds a fact of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def resources(cpu: str, memory: str, limit: str) -> Manifest:
    """Return what a container may use: CPU and memory that are set aside, and the memory at which it is ended."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}


def unprivileged() -> Manifest:
    """Return the ``securityContext`` of a container that needs no right at all."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
