"""Answers: what runs, what ran, what would change. Nothing here changes a project."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from model.names import kubernetes_name
from model.release import Instruction, Record
from model.stack import Application
from release import history as past
from release import lock as locks
from release.change import drain
from release.cluster import KINDS, Cluster
from release.commands import HISTORY_PAGE, Session, live_pods, pinned, unpinned, who_runs
from release.config import short, wanted_revisions, with_config
from release.drift import Objects, applied, differences, drift_of
from release.errors import DONE, LockedError, PulumiError, RefusedError
from release.hold import held
from release.inputs import CONFIG_REVISIONS, TAGS, Program
from release.objects import Object
from release.pulumi import Command, Pulumi
from release.screen import table

REPAIR = "PULUMI_K8S_ENABLE_DRY_RUN=true pulumi up --refresh"
"""Puts back what was changed by hand. Without the variable the provider 2.0.0 compares what is wanted with what was
applied, and not with what is there; 4.x does not need it."""


def show_history(session: Session, project: str) -> int:
    """Show a project's good releases, and what failed between them."""
    application = unpinned(session.program, project)
    with closing(session.cluster()) as cluster:
        record = cluster.record(application.name)
    if record is None:
        raise RefusedError(f"{project} is not deployed in {session.program.stack}")
    updates = past.parse_updates(Pulumi(session.program).history(HISTORY_PAGE))
    made = past.made(project, record, updates)
    failed = [each for each in past.bringing(project, updates) if each.result == "failed"]
    rows = [("TAG", "CONFIG", "", "WHEN", "UPDATE", "WHO", "WHY"), *(_history_row(each) for each in made)]
    lines = table(rows)
    if failed:
        lines += [
            "",
            "failed:",
            *(f"  {each.at}  {each.tags.get(project, '')}  {each.who} {each.why}" for each in failed),
        ]
    session.screen.result(
        lines,
        {
            "project": project,
            "stack": session.program.stack,
            "releases": [_made_facts(each) for each in made],
            "failed": [{"tag": each.tags.get(project), **_update_facts(each)} for each in failed],
        },
    )
    return DONE


def _made_facts(each: past.Made) -> dict[str, Any]:
    by = _update_facts(each.update) if each.update else {}
    config = each.release.config.revision if each.release.config else None
    return {"tag": each.release.tag, "digest": each.release.digest, "config": config, "live": each.live, **by}


def _update_facts(update: past.Update) -> dict[str, Any]:
    return {"version": update.version, "at": update.at, "who": update.who, "why": update.why}


def _history_row(each: past.Made) -> tuple[str, ...]:
    update = each.update
    live = "live" if each.live else ""
    config = short(each.release.config.revision) if each.release.config else "-"
    if update is None:
        return (each.release.tag, config, live, "", "", "", "")
    return (each.release.tag, config, live, update.at, str(update.version or ""), update.who, update.why)


def show_status(session: Session, project: str) -> int:
    """Show what is deployed and wanted, and where the cluster differs from its record; of one project, or of all."""
    program = session.program
    names = [unpinned(program, project).gitea_name] if project else list(program.projects.values())
    with closing(session.cluster()) as cluster:
        records = cluster.records()
        pulumi = Pulumi(program)
        updates = past.parse_updates(pulumi.history(HISTORY_PAGE)) if records else []
        found = [_status(program, cluster, name, records, updates) for name in names]
        # Before the first release there may be no stack yet.
        state: Object = pulumi.deployed() if records or pulumi.checkpoint() else {}
        objects = cluster.objects()
        for each in found:
            if not each["problems"]:
                each["drift"] = _changed_by_hand(program, each["project"], state, objects) or each["drift"]
    heading = ("PROJECT", "DEPLOYED", "WANTED", "STRATEGY", "LIVE", "PODS", "SINCE", "BY")
    lines = table([heading, *(tuple(str(each[key.lower()] or "-") for key in heading) for each in found)])
    drift = [f"{each['project']}: {line}" for each in found for line in each["drift"]]
    lines += [f"{each['project']}: {line}" for each in found for line in each["problems"]]
    lines += [*drift, *([f"to put that back: {REPAIR} --stack={program.stack}"] if drift else [])]
    session.screen.result(lines, {"stack": program.stack, "projects": found})
    return DONE


def _changed_by_hand(program: Program, project: str, state: Object, objects: Objects) -> list[str]:
    """Return in what a project's objects differ from what was applied; also where its Service, the record, is gone."""
    component = program.urn(unpinned(program, project))
    return differences(applied(state, component), objects, frozenset(KINDS))


def _status(
    program: Program,
    cluster: Cluster,
    project: str,
    records: Mapping[str, Record],
    updates: Sequence[past.Update],
) -> dict[str, Any]:
    """Return a project's row; a project file that is bad is told in it, and does not hide the others."""
    record = records.get(kubernetes_name(project))
    made = past.made(project, record, updates)[0].update if record and record.history else None
    row: dict[str, Any] = {
        "project": project,
        "deployed": record.release.tag if record else None,
        "config": record.release.config.revision if record and record.release.config else None,
        "wanted": program.tags.get(project),
        "strategy": None,
        "live": record.live if record else None,
        "slots": {name: slot.model_dump(exclude_none=True) for name, slot in record.slots.items()} if record else {},
        "pods": None,
        "since": record.since if record else None,
        "by": made.who if made else None,
        "drift": [],
        "problems": [],
    }
    try:
        application = unpinned(program, project)
    except RefusedError as error:
        return {**row, "problems": list(error.lines)}
    row["strategy"] = application.project.strategy
    if record is None:
        return row
    deployments = cluster.deployments(application.name, stateful=application.project.stateful)
    drift = drift_of(record, application.name, cluster.service(application.name), deployments)
    return {**row, "pods": live_pods(cluster, application, record), "drift": drift}


def sync(session: Session) -> int:
    """Write the deployed tags into the stack file."""
    program = session.program
    with closing(session.cluster()) as cluster:
        records = cluster.records()
    changes = _other(program.deployed_tags(records), program.tags)
    # Who names no commit wants what is checked out; that stays so.
    named = {
        name: commit for name, commit in program.deployed_revisions(records).items() if name in program.config_revisions
    }
    commits = _other(named, program.config_revisions)
    for key, values in ((TAGS, changes), (CONFIG_REVISIONS, commits)):
        for name, value in values.items():
            _set(program, f'{key}["{name}"]', value)
    lines = [f"{name}: {program.tags.get(name, 'no tag')} -> {tag}" for name, tag in changes.items()]
    lines += [f"{name}: config {short(program.config_revisions[name])} -> {short(to)}" for name, to in commits.items()]
    session.screen.result(
        lines or ["the stack file has the deployed tags already"],
        {"stack": program.stack, "file": str(program.stack_file), "changed": changes, "changedConfig": commits},
    )
    return DONE


def _other(deployed: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in deployed.items() if wanted.get(name) != value}


def _set(program: Program, path: str, value: str) -> None:
    file = f"--config-file={program.stack_file}"
    Pulumi(program).read("config", "set", "--path", "--type=string", path, value, file)


def diff(session: Session, project: str, tag: str, config_revision: str = "") -> int:
    """Show what a release would change, from a preview of pulumi, which masks secrets."""
    program = session.program
    application = pinned(with_config(program, program.application(project, tag), config_revision))
    with closing(session.cluster()) as cluster:
        records = cluster.records()
    tags = {**program.tags, **program.deployed_tags(records), project: tag}
    mine = {name: record for name, record in records.items() if name == application.name}
    instruction = Instruction(project=project, records=mine)
    words = ("preview", "--json" if session.screen.as_json else "--diff", f"--target={program.urn(application)}")
    command = Command((*words, "--target-dependents"), _config_text(program, application, tags), instruction)
    code, output = drain(Pulumi(program), command)
    if code:
        raise PulumiError(["the preview failed:", *output.splitlines()])
    session.screen.text(output)
    return DONE


def _config_text(program: Program, application: Application, tags: Mapping[str, str]) -> str:
    return program.config_text({TAGS: tags, **wanted_revisions(program, application)})


def unlock(session: Session, *, force: bool) -> int:
    """Remove the stack's lock.

    Args:
        session: The stack.
        force: Also when its holder runs on this host.

    Raises:
        LockedError: If the holder runs on this host.
    """
    pulumi = Pulumi(session.program)
    with contextlib.ExitStack() as here:
        # A backend that is no folder tells nothing of its locks: what is known then is what runs on this host.
        try:
            here.enter_context(held(pulumi.key, f"unlock of {session.program.stack} by {who_runs()}", _at_once))
        except LockedError as error:
            if not force:
                raise LockedError(f"{error}: wait for it, end it, or --force") from None
        _cancel(session, pulumi, force=force)
    return DONE


def _at_once(_: str) -> bool:
    """Wait for nobody."""
    return False


def _cancel(session: Session, pulumi: Pulumi, *, force: bool) -> None:
    folder = pulumi.lock_folder
    found = locks.locks_in(folder) if folder else []
    # Who gives this command knows whose lock it is.
    host = locks.this_host((lock.pid for lock in found), sure=True)
    earlier = [lock for lock in found if lock.host == host.name and lock.since < host.booted]
    alive = [
        lock for lock in found if lock.host == host.name and lock not in earlier and not locks.is_stale(lock, host)
    ]
    if alive and not force:
        raise LockedError([f"the lock of {lock} is in use: end that, or --force" for lock in alive])
    if found or not folder:
        pulumi.read("cancel", "--yes")
    gone = " (from before this host was started: its holder is gone)"
    lines = [f"removed the lock of {lock}{gone if lock in earlier else ''}" for lock in found]
    lines = lines or ["there was no lock" if folder else "locks removed"]
    session.screen.result(lines, {"stack": session.program.stack, "removed": [lock.name for lock in found]})
