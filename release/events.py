"""Pulumi's engine events, one JSON object a line (``--event-log``), as what a release wants to know of them. Pure.

https://github.com/pulumi/pulumi/blob/master/sdk/go/common/apitype/events.go
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from model.fields import plain_mapping

_COLOUR = re.compile(r"<\{%[^%]*%\}>")
_QUIET_OPERATIONS = frozenset({"same", "read", "refresh", "discard-replaced", "read-discard"})
_USUAL = re.compile(r"using pulumi-\S+ from \$PATH|resource plugin \S+ is expected to have version")
_LOCKED = "the stack is currently locked by"
_UNFINISHED = re.compile(r"Attempting to deploy or update resources with \d+ pending operations.*(\n  \*.*)*")
"""https://github.com/pulumi/pulumi/blob/master/pkg/resource/deploy/deployment_executor.go; advice comes after it."""

Kind = Literal["begun", "unfinished", "step", "error", "warning", "info"]


@dataclass(frozen=True)
class Event:
    """Something that a person or the release itself wants to know.

    Args:
        kind: ``begun``: the engine holds the stack's lock and runs the program. ``unfinished``: the state has
            operations of a run that was cut off. ``step``: a resource is being changed. Otherwise the severity of a
            message.
        text: For people, one or more lines.
        urn: Of the resource that it is about, empty when there is none.
    """

    kind: Kind
    text: str
    urn: str = ""


def parse_event(line: str) -> Event | None:
    """Return what a line of the event log tells; None when it is of no interest, or incomplete."""
    try:
        event = plain_mapping(json.loads(line)) or {}
    except ValueError:
        return None
    if "preludeEvent" in event:
        return Event("begun", "")
    if "resourcePreEvent" in event:
        return _step(_inner(_inner(event, "resourcePreEvent"), "metadata"))
    if "diagnosticEvent" in event:
        return _message(_inner(event, "diagnosticEvent"))
    return None


def _step(metadata: dict[str, Any]) -> Event | None:
    operation, urn = str(metadata.get("op", "")), str(metadata.get("urn", ""))
    # A component has no operation of its own: only what is in the cluster is told.
    if operation in _QUIET_OPERATIONS or "kubernetes:" not in urn:
        return None
    kind = urn.split("::")[-2].rsplit(":", 1)[-1]
    return Event("step", f"{operation} {kind} {urn.rsplit('::', maxsplit=1)[-1]}", urn)


def _message(diagnostic: dict[str, Any]) -> Event | None:
    severity = str(diagnostic.get("severity", ""))
    if diagnostic.get("ephemeral"):
        return None
    text = plain_text(str(diagnostic.get("message", "")))
    urn = str(diagnostic.get("urn", ""))
    if severity.startswith("error"):
        return Event("error", text, urn)
    if severity == "warning" and _USUAL.match(text):
        return None
    if severity == "warning":
        unfinished = _UNFINISHED.match(text)
        return Event("unfinished", unfinished[0]) if unfinished else Event("warning", text, urn)
    return Event("info", text, urn) if severity == "info" and text else None


def plain_text(text: str) -> str:
    """Return a message without Pulumi's marks for colours."""
    return _COLOUR.sub("", text).strip()


def is_locked(output: str) -> bool:
    """Tell whether a command of pulumi failed because another one holds the stack's lock."""
    return _LOCKED in output


def _inner(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return plain_mapping(mapping.get(key)) or {}
