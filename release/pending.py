"""What a killed run left in the state, and how the next one gets over it.

A killed ``pulumi`` leaves the operations that it had begun. An update that was cut off may have reached the cluster
while the state has the old inputs, so a later run that wants the old ones again would see no difference: it is read
anew. A creation that was cut off would be tried again, which the cluster refuses when the object is there: it is
imported, or forgotten where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, cast

from release.objects import Object, inner, items

CREATING = "creating"
_FIELD = b'"pending_operations"'
_KUBERNETES = "kubernetes:"


@dataclass(frozen=True)
class Operation:
    """One operation that has no end in the state.

    Args:
        kind: ``creating``, ``updating``, ``deleting``, ``reading``, ``importing``.
        urn: Of the resource.
        namespace: Of the Kubernetes object, empty where it has none.
        name: Of the Kubernetes object.
    """

    kind: str
    urn: str
    namespace: str
    name: str

    @property
    def type(self) -> str:
        """The resource's own type: ``kubernetes:apps/v1:Deployment``."""
        return self.urn.split("::")[2].rsplit("$", 1)[-1]

    @property
    def of_kubernetes(self) -> bool:
        """Whether it is about an object of the cluster, and not about a cloud's resource."""
        return self.type.startswith(_KUBERNETES)

    @property
    def id(self) -> str:
        """What the provider calls the object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.type.rsplit(':', 1)[-1]} {self.name}"

    def path(self) -> str:
        """Return the object's path in the Kubernetes API."""
        group, kind = self.type.removeprefix(_KUBERNETES).rsplit(":", 1)
        plural = kind.lower() + ("es" if kind.endswith("s") else "s")
        root = "api/v1" if group == "core/v1" else f"apis/{group}"
        inside = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"{root}{inside}/{plural}/{self.name}"


def pending(checkpoint: bytes) -> list[Operation]:
    """Return the operations on Kubernetes objects without an end, from the stored state. Pure.

    Those on a cloud's resources stay in the state: what they have made is not known here, and may cost. A state of
    hundreds of projects is many megabytes: it is parsed only when the field is there.
    """
    if _FIELD not in checkpoint:
        return []
    content = cast("Object", json.loads(checkpoint))
    deployment = inner(content, "checkpoint", "latest") or inner(content, "deployment")
    operations = map(_operation, items(deployment, "pending_operations"))
    return [each for each in operations if each.of_kubernetes]


def completed(state: Object, existing: Collection[Operation]) -> dict[str, Any]:
    """Return an exported state without the creations of Kubernetes objects that have no end.

    Those whose object is there become resources like all others. (``pulumi refresh --import-pending-creates`` only
    drops them, seen in 3.259: it marks them as imports, which nothing carries out.)

    Args:
        state: As ``pulumi stack export`` tells it.
        existing: Creations whose object is in the cluster.
    """
    deployment = dict(inner(state, "deployment"))
    there = {each.urn: each.id for each in existing}
    pending_operations = items(deployment, "pending_operations")
    ended = [each for each in pending_operations if each.get("type") == CREATING and _operation(each).of_kubernetes]
    begun = [inner(each, "resource") for each in ended]
    added = [{**each, "id": there[str(each["urn"])]} for each in begun if str(each.get("urn")) in there]
    deployment["resources"] = [*items(deployment, "resources"), *added]
    deployment["pending_operations"] = [each for each in pending_operations if each not in ended]
    return {**state, "deployment": deployment}


def to_read(operations: Iterable[Operation], existing: Iterable[Operation]) -> list[str]:
    """Return the URNs of the resources that are to be read anew: what was changed, and what was made.

    Args:
        operations: All that have no end.
        existing: Creations whose object is in the cluster.
    """
    changed = (each.urn for each in operations if each.kind != CREATING)
    return sorted({*changed, *(each.urn for each in existing)})


def _operation(told: Object) -> Operation:
    resource = inner(told, "resource")
    metadata = inner(resource, "inputs", "metadata")
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    return Operation(str(told.get("type", "")), str(resource.get("urn", "")), namespace, name)
