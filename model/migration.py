"""Migrations: the Job that runs with a release's image before its pods, once for each release. Pure.

What the record remembers of them decides: which release's Job there is to be, and what lies before a migration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence

from model.release import Migrated, Record, Release

JOB_SUFFIX = "migrate"
_HASH_LENGTH = 8


def job_name(name: str, release: Release, command: Sequence[str], failed: Collection[str] = ()) -> str:
    """Return the name of a release's Job: the same each time, but for an attempt after one that has failed.

    A Job can't be changed, and never runs again: what failed is tried anew under another name.

    Args:
        name: The project's name in Kubernetes.
        release: What it migrates to.
        command: What it runs.
        failed: Names of Jobs that are there and have failed.
    """
    attempt = 0
    while True:
        text = json.dumps([release.tag, release.digest, list(command), attempt])
        found = f"{name}-{JOB_SUFFIX}-{hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]}"
        if found not in failed:
            return found
        attempt += 1


def next_migration(
    record: Record | None, wanted: Release, canary: Release | None, command: Sequence[str] | None
) -> Release | None:
    """Return the release whose migration must run now; None where none must.

    Args:
        record: What the project runs, and ran.
        wanted: What it shall run.
        canary: What its canary shall run. Of two new ones its migration is the one that runs: it is the newer.
        command: What a migration runs; None for a project without.
    """
    if command is None:
        return None
    return next((each for each in (canary, wanted) if each and _is_new(record, each)), None)


def migrated(  # noqa: PLR0913, PLR0917 - the facts that the rules stand on
    record: Record | None,
    name: str,
    wanted: Release,
    canary: Release | None,
    command: Sequence[str] | None,
    failed: Collection[str] = (),
) -> Migrated | None:
    """Return what the next record says of migrations. Arguments as of ``next_migration`` and ``job_name``."""
    kept = record.migrated if record else None
    new = next_migration(record, wanted, canary, command)
    if new and command:
        return noted(record, new, job_name(name, new, command, failed), wanted)
    if kept is None:
        return None
    # Without a command the Job goes. It must not come back with a command, as it would run again.
    job = kept.job if command else ""
    # What runs now has run with what was migrated.
    before = tuple(tag for tag in kept.before if tag != wanted.tag)
    return kept.model_copy(update={"job": job, "before": before})


def noted(record: Record | None, release: Release, job: str, live: Release) -> Migrated:
    """Return the note of a migration.

    Args:
        record: What ran before it.
        release: What was migrated to.
        job: Name of its Job.
        live: What serves with what was migrated.
    """
    earlier = record.history if record else ()
    before = tuple(dict.fromkeys(each.tag for each in earlier if each.tag not in {live.tag, release.tag}))
    return Migrated(release=release, job=job, before=before)


def _is_new(record: Record | None, release: Release) -> bool:
    """Tell whether a release's image has never run, and was never migrated to.

    Its configuration does not matter: other configuration of an image that ran before a later migration would let that
    image migrate a schema that is newer than it.
    """
    if record is None:
        return True
    known = [*record.history, *(slot.release for slot in record.slots.values())]
    if record.migrated:
        known.append(record.migrated.release)
    same = [each for each in known if each.tag == release.tag]
    if not same and record.migrated:
        return release.tag not in record.migrated.before  # it ran, however much the history has forgotten
    return all(release.digest != each.digest for each in same)
