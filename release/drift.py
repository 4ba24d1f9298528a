"""Does the cluster run what the record says? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from model.names import slot_name
from model.release import REVISION_LABEL, SLOT_LABEL, Record
from release.objects import Object, inner, name_of


def drifted_slots(record: Record, name: str, deployments: Sequence[Object]) -> list[str]:
    """Return what is wrong with a project's Deployments, a line for each slot.

    Args:
        record: Of the project.
        name: The project's name in Kubernetes.
        deployments: All of the project.
    """
    by_name = {name_of(each): each for each in deployments}
    found: list[str] = []
    for slot, content in record.slots.items():
        deployment = by_name.get(slot_name(name, slot))
        if deployment is None:
            found.append(f"slot {slot} has no Deployment")
            continue
        labels = inner(deployment, "spec", "template", "metadata", "labels")
        revision = str(labels.get(REVISION_LABEL, ""))
        if revision != content.revision:
            found.append(f"slot {slot} runs revision {revision or 'unknown'}, not {content.revision or 'unknown'}")
    return found


def drift_of(record: Record, name: str, service: Object | None, deployments: Sequence[Object]) -> list[str]:
    """Return everything in which the cluster differs from a project's record, a line each.

    Args:
        record: Of the project.
        name: The project's name in Kubernetes.
        service: The project's Service.
        deployments: All of the project.
    """
    found = drifted_slots(record, name, deployments)
    selector = inner(service or {}, "spec", "selector")
    live = record.slots[record.live]
    follows = selector.get(REVISION_LABEL, live.revision) == live.revision
    if not follows or selector.get(SLOT_LABEL, record.live) != record.live:
        found.append("the Service selects other pods than the live slot's")
    return found
