"""What runs, as each project's own record tells it.

The record is a JSON annotation on the project's Service, written by the request that moves the traffic. It is the
truth of what is deployed; stack outputs and the history of the stack are views of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from model.fields import Frozen, Tag, plain_mapping
from model.names import SlotName

RECORD_ANNOTATION = "package-platform/release"
"""Annotation of a Service that holds the project's record."""

_SERVICE_TYPE = "kubernetes:core/v1:Service"

KEPT_RELEASES = 10
"""Good releases that a record remembers, the live one included."""


class Release(Frozen):
    """One release of a project: what a slot was given to run."""

    tag: Tag
    """Image tag."""
    digest: str | None = None
    """``sha256:…`` of the image, None where the registry was not asked."""


class Record(Frozen):
    """What a project runs now and ran before."""

    live: SlotName
    """The slot that gets the traffic."""
    slots: Mapping[SlotName, Release]
    """What each slot runs."""
    history: tuple[Release, ...]
    """Releases that got traffic, the latest first, at most ``KEPT_RELEASES``."""

    def to_annotation(self) -> str:
        """Return the record as the text of the annotation, in a stable form."""
        return self.model_dump_json(exclude_none=True)

    @property
    def release(self) -> Release:
        """The live release."""
        return self.slots[self.live]


def parse_record(text: str) -> Record | None:
    """Read a record from the text of its annotation; None when it is not readable as one.

    An unreadable record is no error: the next release writes a fresh one, and refusing to release because of a
    damaged note would turn a small fault into an outage.
    """
    try:
        return Record.model_validate_json(text)
    except ValidationError:
        return None


def records_of(resources: Mapping[str, object]) -> dict[str, Record]:
    """Return the records that a stack's resources hold: Kubernetes name of the project → record.

    Args:
        resources: URN → ``{type, outputs}``, as ``pulumi:pulumi:readStackResourceOutputs`` answers. What has no
            readable record is passed over.
    """
    records: dict[str, Record] = {}
    for resource in resources.values():
        described = plain_mapping(resource) or {}
        if described.get("type") != _SERVICE_TYPE:
            continue
        metadata = plain_mapping((plain_mapping(described.get("outputs")) or {}).get("metadata")) or {}
        annotations = plain_mapping(metadata.get("annotations")) or {}
        record = parse_record(str(annotations.get(RECORD_ANNOTATION, "")))
        if record:
            records[str(metadata.get("name"))] = record
    return records


def rolled(previous: Record | None, wanted: Release) -> Record:
    """Return the record after a rolling release of ``wanted`` into the slot ``main``.

    A release that is already live changes nothing, so the record (and the Service that holds it) stays as it is.
    """
    earlier = previous.history if previous else ()
    if earlier and earlier[0] == wanted:
        history = earlier
    else:
        history = (wanted, *(release for release in earlier if release != wanted))[:KEPT_RELEASES]
    return Record(live="main", slots={"main": wanted}, history=history)
