"""What a Deployment or StatefulSet still lacks of what it is to be, as the API tells it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from model.fields import plain_mapping


def missing_pods(workload: Mapping[str, object], least: int = 0) -> str:
    """Return what a Deployment or StatefulSet lacks; empty when all its pods are of what it was given, and available.

    The rule of ``kubectl rollout status``, and pods ready for ``minReadySeconds``. Old pods of a Deployment that are
    still leaving don't count.

    Args:
        workload: The object.
        least: How many pods it must have, whatever it was scaled to.
    """
    metadata, spec, status = (plain_mapping(workload.get(key)) or {} for key in ("metadata", "spec", "status"))
    wanted = max(int(spec.get("replicas", 1)), least)
    if int(status.get("observedGeneration", 0)) < int(metadata.get("generation", 0)):
        return "the cluster has not begun with its pods"
    updated, available = int(status.get("updatedReplicas", 0)), int(status.get("availableReplicas", 0))
    # Only a StatefulSet has these; a Deployment counts the pods of its latest template.
    behind = status.get("updateRevision") != status.get("currentRevision")
    if behind or available < wanted or ("updateRevision" not in status and updated < wanted):
        return f"{min(updated, available)} of {wanted} pods are ready"
    return ""
