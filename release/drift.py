"""Does the cluster have what was applied, and run what the record says? Pure.

What was applied is what the stack's state has as the inputs of its resources: the rendered manifests, all of them, with
what Pulumi was told to leave alone already left out. An object of the cluster has more fields than its manifest; only
those of the manifest are compared, and the few in which more is drift as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from model.fields import plain_mapping, quantity_value
from model.names import SlotName, slot_name
from model.release import REVISION_LABEL, SLOT_LABEL, Record
from release.objects import Object, inner, items, name_of

Objects = Mapping[tuple[str, str], Object]
"""Kind and name → object."""
_WHOLE = frozenset({"selector", "matchLabels", "env"})
"""Fields in which something that was added by hand is drift too."""
_OWN_KEYS = ("name", "mountPath", "containerPort", "port", "host", "path")
"""What tells the entries of a list apart, in this order of preference."""
_OF_TOOLS = frozenset({"__fieldManager", "__initialApiVersion", "kubectl.kubernetes.io/last-applied-configuration"})
"""What Pulumi's provider puts among a manifest's fields."""
_SECRET = "4dabf18193072939515e22adb298388d"  # noqa: S105 - Pulumi's mark of an encrypted value, no secret itself
_LONGEST = 60
_SUMMARY = 6


def drifted_slots(record: Record, name: str, deployments: Sequence[Object]) -> list[str]:
    """Return what is wrong with a project's Deployments, a line for each slot. Arguments as of ``drift_by_slot``."""
    return [*drift_by_slot(record, name, deployments).values()]


def drift_by_slot(record: Record, name: str, deployments: Sequence[Object]) -> dict[SlotName, str]:
    """Return what is wrong with a project's Deployments: slot → a line; empty when all are as recorded. Pure.

    Args:
        record: Of the project.
        name: The project's name in Kubernetes.
        deployments: All of the project.
    """
    by_name = {name_of(each): each for each in deployments}
    found: dict[SlotName, str] = {}
    for slot, content in record.slots.items():
        deployment = by_name.get(slot_name(name, slot))
        if deployment is None:
            found[slot] = f"slot {slot} has no Deployment"
            continue
        labels = inner(deployment, "spec", "template", "metadata", "labels")
        revision = str(labels.get(REVISION_LABEL, ""))
        if revision != content.revision:
            found[slot] = f"slot {slot} runs revision {revision or 'unknown'}, not {content.revision or 'unknown'}"
    return found


def changed_pods(record: Record, name: str, before: Sequence[Object], after: Sequence[Object]) -> list[str]:
    """Return in what the pods of a record's slots are not those of before, a line each. Pure.

    An earlier release is rendered with the project file as it is today, under its recorded revision. So the revision
    tells nothing of it, and the pod templates are compared. A slot that was not as recorded before, as after a run that
    was cut off, is passed over: nothing tells how it has to be.

    Args:
        record: What is recorded.
        name: The project's name in Kubernetes.
        before: The Deployments before the release that failed.
        after: Those that were put back.
    """
    was, now = ({name_of(each): _pods(each) for each in found} for found in (before, after))
    touched = drift_by_slot(record, name, before)
    lines: list[str] = []
    for slot, content in record.slots.items():
        deployment = slot_name(name, slot)
        if deployment not in now or slot in touched:
            continue
        old, new = was[deployment], now[deployment]
        found = _differences(old, new)
        if not found and _differences(new, old):
            found = [f"Deployment {deployment}: its pods have fields that they had not"]
        lines += [f"{content.release.tag} has other pods than before, {line}" for line in found]
    return lines


def _pods(deployment: Object) -> Object:
    template = inner(deployment, "spec", "template")
    return {"kind": "Deployment", "metadata": {"name": name_of(deployment)}, "spec": {"template": template}}


def _differences(wanted: Object, live: Object) -> list[str]:
    return differences([wanted], {("Deployment", name_of(live)): live}, frozenset({"Deployment"}))


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


def applied(state: Object, component: str) -> list[Object]:
    """Return the manifests of a project as they were applied last, from the stack's state.

    Args:
        state: What ``pulumi stack export`` has below ``deployment``.
        component: URN of the project's component.
    """
    own = (each for each in items(state, "resources") if each.get("parent") == component)
    return [inner(each, "inputs") for each in own if inner(each, "inputs").get("kind")]


def differences(manifests: Sequence[Object], objects: Objects, kinds: frozenset[str]) -> list[str]:
    """Return in what the objects of the cluster differ from their manifests, a line each.

    Args:
        manifests: As they were applied.
        objects: What the cluster has.
        kinds: The kinds that were asked for; others are not looked at.
    """
    scaled = {inner(each, "spec", "scaleTargetRef").get("name") for each in manifests}
    lines: list[str] = []
    for manifest in manifests:
        kind, name = str(manifest.get("kind")), name_of(manifest)
        if kind not in kinds:
            continue
        live = objects.get((kind, name))
        if live is None:
            lines.append(f"{kind} {name} is missing")
            continue
        # The autoscaler owns the number of pods.
        skipped = "spec.replicas" if kind == "Deployment" and name in scaled else ""
        # What is listed says of itself neither its kind nor its version.
        content = {key: value for key, value in manifest.items() if key not in {"apiVersion", "kind"}}
        found = [line for path, line in _compared(content, live, "") if path != skipped]
        lines += [f"{kind} {name}: {line}" for line in found[:_SUMMARY]]
        if len(found) > _SUMMARY:
            lines.append(f"{kind} {name}: and {len(found) - _SUMMARY} more")
    return lines


def _compared(wanted: object, live: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each difference, and the line that tells it."""
    mapping, several = plain_mapping(wanted), _plain_list(wanted)
    if mapping is not None:
        if _SECRET not in mapping:
            yield from _compared_mapping(mapping, plain_mapping(live) or {}, path)
    elif several is not None:
        yield from _compared_list(several, _plain_list(live) or [], path)
    elif wanted != live and not _same_quantity(wanted, live):
        yield path, f"{path} is {_shown(live)}, not {_shown(wanted)}"


def _compared_mapping(wanted: Mapping[str, Any], live: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for key, value in wanted.items():
        inside = f"{path}.{key}" if path else key
        # An empty field is one that the API server leaves out.
        if value is None or key in _OF_TOOLS or (key not in live and value in ({}, [], "", 0, False)):
            continue
        if key not in live:
            yield inside, f"{inside} is gone, not {_shown(value)}"
        else:
            yield from _compared(value, live[key], inside)
    if path.rpartition(".")[2] in _WHOLE and "matchLabels" not in wanted:
        for key in sorted(live.keys() - wanted.keys()):
            yield f"{path}.{key}", f"{path}.{key} is {_shown(live[key])}, which nobody declared"


def _compared_list(wanted: Sequence[Any], live: Sequence[Any], path: str) -> Iterator[tuple[str, str]]:
    key = _own_key(wanted, live)
    pairs = {str(each[key]): each for each in live} if key else dict(zip(map(str, range(len(live))), live, strict=True))
    names = [str(each[key]) for each in wanted] if key else [str(number) for number in range(len(wanted))]
    for name, value in zip(names, wanted, strict=True):
        if name not in pairs:
            yield f"{path}[{name}]", f"{path}[{name}] is gone"
        else:
            yield from _compared(value, pairs[name], f"{path}[{name}]")
    if path.rpartition(".")[2] in _WHOLE or not key:
        for name in pairs:
            if name not in names:
                yield f"{path}[{name}]", f"{path}[{name}] is there, which nobody declared"


def _own_key(wanted: Sequence[Any], live: Sequence[Any]) -> str:
    """Return the field that tells the entries of both lists apart; empty when none does."""
    for key in _OWN_KEYS:
        if all(
            all(key in (plain_mapping(each) or {}) for each in entries)
            and len({str(each[key]) for each in entries}) == len(entries)
            for entries in (wanted, live)
        ):
            return key if wanted else ""
    return ""


def _same_quantity(wanted: object, live: object) -> bool:
    """Tell whether two values are one quantity: the API server writes ``0.5`` as ``500m``."""
    try:
        return quantity_value(str(wanted)) == quantity_value(str(live)) and isinstance(live, str)
    except ValueError:
        return False


def _plain_list(value: object) -> Sequence[Any] | None:
    return cast("Sequence[Any]", value) if isinstance(value, list) else None


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
