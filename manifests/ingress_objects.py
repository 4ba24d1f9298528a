"""What the objects of the cluster's ingress share: labels, the nodes that they run on, their namespace."""

from manifests import Manifest
from manifests.labels import PART_OF
from model.environment import Environment

APP_LABEL = "app.kubernetes.io/name"
INGRESS_NODE = {"package-platform/ingress": "true"}
"""The label of the nodes that carry the ingress."""


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
            "app.kubernetes.io/instance": f"{component}-{environment.name}",
            "app.kubernetes.io/component": "ingress",
            "app.kubernetes.io/part-of": PART_OF,
            "app.kubernetes.io/managed-by": "pulumi",
        },
    }
