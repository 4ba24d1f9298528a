"""Who released what, when and why: ``pulumi stack history`` beside a project's own record. Pure.

The record knows what ran and is the truth; the history of the stack supplies the people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.fields import plain_mapping
from model.release import Record, Release
from release.inputs import CONFIG_REVISIONS, TAGS

_MESSAGE = re.compile(
    r"release (?P<what>[a-z ]+?) (?P<project>\S+) (?P<tag>\S+) by (?P<who>.+?)(?:: (?P<why>.*))?\Z", re.DOTALL
)


@dataclass(frozen=True)
class Update:
    """One update of the stack.

    Args:
        version: Its number in the stack's history, 0 where the backend numbers none.
        tags: Gitea project → tag, as its config had them.
        at: When it began.
        result: ``succeeded``, ``failed`` or ``in-progress``.
        kind: ``update``, ``refresh``, ``destroy``.
        message: Why.
        revisions: Gitea project → commit of the config repository, where its config named one.
    """

    version: int
    tags: Mapping[str, str]
    at: str
    result: str
    kind: str
    message: str
    revisions: Mapping[str, str] = field(default_factory=dict[str, str])

    def brought(self, project: str, release: Release) -> bool:
        """Tell whether its config asked for a release of a project."""
        revision = self.revisions.get(project)
        same = release.config is None or revision is None or release.config.revision.startswith(revision)
        return same and self.tags.get(project) == release.tag

    @property
    def project(self) -> str:
        """The one project that the command released with it; empty for a plain ``pulumi up``."""
        match = _MESSAGE.match(self.message)
        return match["project"] if match else ""

    @property
    def who(self) -> str:
        """Who made it; empty where nobody wrote it down."""
        match = _MESSAGE.match(self.message)
        return match["who"] if match else ""

    @property
    def why(self) -> str:
        """Why, in that person's words; what kind of release it was where there are none."""
        match = _MESSAGE.match(self.message)
        return (match["why"] or match["what"]) if match else self.message


@dataclass(frozen=True)
class Made:
    """A release of a project with the update that made it.

    Args:
        release: What was released.
        live: Whether it gets the traffic.
        update: The latest update that brought it; None where the history does not reach back so far.
    """

    release: Release
    live: bool
    update: Update | None


def message(what: str, project: str, tag: str, who: str, why: str) -> str:
    """Return the message of an update, in the form in which it is found again."""
    return f"release {what} {project} {tag} by {who}" + (f": {why}" if why else "")


def parse_updates(told: Sequence[Mapping[str, Any]]) -> list[Update]:
    """Return updates as ``pulumi stack history --json`` tells them, the newest first."""
    return [
        Update(
            version=int(each["version"]),
            tags=_told(each, TAGS),
            at=str(each.get("startTime", "")),
            result=str(each.get("result", "")),
            kind=str(each.get("kind", "")),
            message=str(each.get("message", "")),
            revisions=_told(each, CONFIG_REVISIONS),
        )
        for each in told
    ]


def made(project: str, record: Record, updates: Sequence[Update]) -> list[Made]:
    """Return a project's good releases with the people behind them, the live one first.

    Args:
        project: Gitea project.
        record: Its own record.
        updates: Of the stack, the newest first.
    """
    left = [each for each in bringing(project, updates) if each.result == "succeeded"]
    found: list[Made] = []
    for release in record.history:
        update = next((each for each in left if each.brought(project, release)), None)
        found.append(Made(release, release == record.release, update))
    return found


def bringing(project: str, updates: Sequence[Update]) -> list[Update]:
    """Return the updates that brought a project another tag, or were made for it; the newest first.

    A later update of another project carries the same tag in its config and brings nothing.
    """
    own = [each for each in updates if each.kind == "update"]
    found: list[Update] = []
    for index, update in enumerate(own):
        earlier = next((each for each in own[index + 1 :] if each.result == "succeeded"), None)
        changed = earlier is None or _asked(earlier, project) != _asked(update, project)
        if update.project == project or (not update.project and project in update.tags and changed):
            found.append(update)
    return found


def find(updates: Sequence[Update], wanted: str) -> Update | None:
    """Return the update with a number or a start, None when it is not among them.

    Args:
        updates: Of the stack.
        wanted: A number, or a time as far as it is needed to tell one: ``2026-11-23T18:42``. Backends of one's own
            (a folder, object storage) do not number updates.
    """
    return next((each for each in updates if wanted in {str(each.version or ""), each.at}), None) or next(
        (each for each in updates if "T" in wanted and each.at.startswith(wanted)), None
    )


def _asked(update: Update, project: str) -> tuple[str | None, str | None]:
    return update.tags.get(project), update.revisions.get(project)


def _told(update: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return a mapping of an update's config: project → tag, or commit."""
    told = plain_mapping((plain_mapping(update.get("config")) or {}).get(key)) or {}
    return {name: str(value) for name, value in (plain_mapping(told.get("objectValue")) or {}).items()}
