"""The namespace of an environment."""

from manifests import Manifest
from manifests.labels import PART_OF
from model.environment import Environment


def namespace(environment: Environment) -> Manifest:
    """Return the namespace; it admits only pods that pass the "restricted" Pod Security Standard.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": environment.namespace,
            "labels": {
                "app.kubernetes.io/part-of": PART_OF,
                "app.kubernetes.io/managed-by": "pulumi",
                **levels,
            },
        },
    }
