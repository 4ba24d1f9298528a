"""The commands, each from its arguments to its answer."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from model.names import slot_name
from model.release import Record, Release
from model.stack import Application, Image
from registry import ImageMissingError, Registry, RegistryError
from release import history as past
from release.change import Changed, Changer, Options, Wish
from release.cluster import Cluster, ClusterError
from release.config import deploys, newer, not_older, short, with_config
from release.diagnosis import ready_text
from release.drift import drifted_slots
from release.errors import (
    BROKEN,
    DONE,
    FAILED,
    REFUSED,
    InterruptedRunError,
    LockedError,
    RefusedError,
    ReleaseError,
)
from release.inputs import ALLOW_OLDER, CONFIG_REVISIONS, TAGS, Program
from release.language_host import Ahead
from release.migrations import Leave
from release.objects import name_of
from release.pulumi import Pulumi
from release.screen import Screen

_NOT_KNOWN = "not known"
HISTORY_PAGE = 100
"""Updates that are asked of `pulumi stack history`."""
NO_TAG = "unknown"
"""Gives a project's image its shape where the tag is not known yet."""


@dataclass(frozen=True)
class Session:
    """What every command has.

    Args:
        program: The stack.
        screen: For people and programs.
        options: How a change is made.
        ahead: The program, where its loading was begun.
    """

    program: Program
    screen: Screen
    options: Options
    ahead: Ahead = field(default_factory=Ahead)

    def cluster(self) -> Cluster:
        """Return the cluster that the stack's files and the environment name."""
        return Cluster.connect(self.program.config, self.program.environment.namespace)

    def changer(self, cluster: Cluster, message: str) -> Changer:
        """Return what changes the stack, for a reason."""
        return Changer(self.program, cluster, self.screen, replace(self.options, message=message), self.ahead)


def live_pods(cluster: Cluster, application: Application, record: Record) -> str:
    """Return ``ready/wanted`` pods of the slot that gets the traffic."""
    name = slot_name(application.name, record.live)
    found = cluster.deployments(application.name, stateful=application.project.stateful)
    return ready_text(each for each in found if name_of(each) == name)


@dataclass(frozen=True)
class Order:
    """What was asked for.

    Args:
        what: The command.
        stack: The stack.
        project: Gitea project.
        tag: Image tag.
    """

    what: str
    stack: str
    project: str
    tag: str


def deploy(  # noqa: PLR0913 - the options of a command
    session: Session, project: str, tag: str, leave: Leave, config_revision: str = "", *, or_newer: bool = False
) -> int:
    """Release a tag of a project; returns the exit code.

    Args:
        session: The stack.
        project: Gitea project.
        tag: Image tag.
        leave: To go back past a migration, if it is an earlier one.
        config_revision: Commit of the config repository; empty for the one in the stack file, or what is checked out.
            One that is named may be older than what runs.
        or_newer: Whether the configuration that runs stays where it is newer than the named one.
    """
    program = session.program
    application = pinned(with_config(program, program.application(project, tag), config_revision))
    with closing(session.cluster()) as cluster:
        given = leave.asked(project, cluster.record(application.name), application.release)
    current, of_now = not_older(program, application), newer(program, application)

    def target(record: Record | None) -> Release | None:
        given.check(project, record, application.release)
        if not config_revision:
            current(record)
        stays = of_now(record) if or_newer else None
        if stays is None:
            return None
        session.screen.line(
            f"{project} keeps the configuration of {short(stays.revision)}, which runs and is newer than "
            f"{short(config_revision)}"
        )
        return application.release.model_copy(update={"config": stays})

    return change(session, application, "deploy", Wish("release", target))


def rollback(session: Session, project: str, tag: str, steps: int, leave: Leave) -> int:
    """Go back to an earlier good release of a project; returns the exit code.

    Args:
        session: The stack.
        project: Gitea project.
        tag: Of the release to go back to; empty for ``steps``.
        steps: How many good releases back.
        leave: To go back past a migration.
    """
    # The tag only gives the image its shape here: what to run is chosen from the record when the stack is held.
    application = session.program.application(project, tag or NO_TAG)

    with closing(session.cluster()) as cluster:
        record = cluster.record(application.name)
    chosen = earlier(application, record, tag, steps, session.program.stack)
    session.screen.line(f"{project} goes back to {chosen.tag}")
    given = leave.asked(project, record, chosen)

    def target(record: Record | None) -> Release:
        found = earlier(application, record, tag, steps, session.program.stack)
        given.check(project, record, found)
        return found

    wish = Wish("release", target, repeatable=False, returns=True)
    return change(session, application.running(chosen), "rollback", wish)


def tidy(session: Session, project: str, *, at_once: bool) -> int:
    """Scale down slots that get no traffic and were kept warm for long enough; returns the exit code.

    Args:
        session: The stack.
        project: Gitea project; empty for all of the stack.
        at_once: Also those that are to stay warm for longer.
    """
    program = session.program
    names = [program.known(project)] if project else list(program.projects.values())
    applications = [unpinned(program, name) for name in names]
    with closing(session.cluster()) as cluster:
        records = cluster.records()
    lines, tidied, code = list[str](), list[dict[str, Any]](), DONE
    for each in applications:
        try:
            made = _tidied(session, each, records.get(each.name), at_once=at_once)
        except InterruptedRunError:
            raise
        except ReleaseError as error:
            # What was done before it is told all the same; those that follow would fail alike, or wait as long.
            session.screen.line(str(error))
            lines.append(f"tidy of {each.gitea_name} in {program.stack} failed, see above; what follows it was left")
            tidied.append({"command": "tidy", "project": each.gitea_name, **failure(error)})
            code = max(code, error.code)
            break
        if made:
            lines += told(made.order, made.changed, session.screen.seconds, made.pods)
            tidied.append(facts(made.order, made.changed, session.screen.seconds, made.code))
            code = max(code, made.code)
    session.screen.result(lines or ["nothing is past its time"], {"stack": program.stack, "tidied": tidied})
    return code


def _tidied(session: Session, application: Application, record: Record | None, *, at_once: bool) -> Made | None:
    """Tidy one project; returns None where there is nothing to tidy, or it must not be."""
    if record is None or not is_due(application, record, datetime.now(UTC), at_once=at_once):
        return None
    wish = Wish("tidy", _still_due(session, application, at_once=at_once))
    try:
        return make(session, application.running(record.release), "tidy", wish)
    except _LeftAloneError as error:
        session.screen.line(str(error))
        return None


class _LeftAloneError(ReleaseError):
    """A project is not to be tidied now."""


def _still_due(session: Session, application: Application, *, at_once: bool) -> Callable[[Record | None], Release]:
    """Return what chooses the release to tidy around, from the record as it is when the stack is held.

    A release that ended while the stack was waited for has made other pods warm, and these only now.
    """

    def target(record: Record | None) -> Release:
        name = application.gitea_name
        if record is None or not is_due(application, record, datetime.now(UTC), at_once=at_once):
            raise _LeftAloneError(f"{name} is left alone: it was released meanwhile, and nothing is past its time")
        with closing(session.cluster()) as cluster:
            cut_off = _is_cut_off(cluster, application, record)
        if cut_off:
            way_on = deploys(name, record.release, session.program.stack)
            raise _LeftAloneError(f"{name} is left alone: its last release was cut off; `{way_on}` brings it in order")
        return record.release

    return target


def failure(error: ReleaseError) -> dict[str, Any]:
    """Return an error for a program. Pure."""
    outcomes = {RefusedError: "refused", LockedError: "locked", InterruptedRunError: "interrupted"}
    outcome = next((name for kind, name in outcomes.items() if isinstance(error, kind)), "failed")
    return {"outcome": outcome, "errors": list(error.lines), "exitCode": error.code}


def _is_cut_off(cluster: Cluster, application: Application, record: Record) -> bool:
    """Tell whether pods run that the record does not know: to tidy by it would take their configuration from them."""
    return bool(drifted_slots(record, application.name, cluster.deployments(application.name)))


def is_due(application: Application, record: Record | None, now: datetime, *, at_once: bool) -> bool:
    """Tell whether a project has warm pods without traffic that are past ``blueGreen.warmFor``. Pure.

    Args:
        application: The project.
        record: What it runs.
        now: The time.
        at_once: Whether ``warmFor`` does not matter.
    """
    if record is None:
        return False
    live = record.slots[record.live]
    pair = record.live != "main"  # the other half of an A/B pair has the same revision, and serves
    idle = [
        slot
        for name, slot in record.slots.items()
        if name not in (record.live, "canary") and slot.warm and not (pair and slot.revision == live.revision)
    ]
    if not idle or at_once or not record.since:
        return bool(idle)
    return (now - datetime.fromisoformat(record.since)).total_seconds() >= application.project.blue_green.warm_for


@dataclass(frozen=True)
class Made:
    """A change that was made, or failed.

    Args:
        order: What was asked for.
        changed: What became of it.
        pods: ``ready/wanted`` pods of the slot that gets the traffic.
    """

    order: Order
    changed: Changed
    pods: str

    @property
    def code(self) -> int:
        """The exit code."""
        return exit_code(self.changed)


def change(session: Session, application: Application, what: str, wish: Wish) -> int:
    """Make a change of one project and tell its outcome; returns the exit code. Arguments as of ``make``."""
    return answered(session, make(session, application, what, wish))


def answered(session: Session, made: Made) -> int:
    """Tell the outcome of a change as the command's answer; returns the exit code."""
    seconds = session.screen.seconds
    lines = told(made.order, made.changed, seconds, made.pods)
    session.screen.result(lines, facts(made.order, made.changed, seconds, made.code))
    return made.code


def make(session: Session, application: Application, what: str, wish: Wish) -> Made:
    """Make a change of one project.

    Args:
        session: The stack.
        application: The project, with the image that it is to run.
        what: The command, for people.
        wish: What is to become of the project.
    """
    project, tag = application.gitea_name, wish.tag or _image(application).tag
    why = past.message(what, project, tag, who_runs(), session.options.message)
    with closing(session.cluster()) as cluster:
        changer = session.changer(cluster, why)
        with changer.hold(f"{what} of {project} {tag} by {who_runs()}"):
            changed = changer.make(application, wish)
        pods = _pods_now(session, cluster, application, changed)
    return Made(Order(what, session.program.stack, project, tag), changed, pods)


def _pods_now(session: Session, cluster: Cluster, application: Application, changed: Changed) -> str:
    """Return how many pods are ready after a change; that it was made does not depend on this question."""
    if changed.attempt.end != "done":
        return ""
    try:
        return live_pods(cluster, application, changed.after) if changed.after else _NOT_KNOWN
    except ClusterError as error:
        session.screen.line(f"it is done, and only its pods are not known: {error}")
        return _NOT_KNOWN


def exit_code(changed: Changed) -> int:
    """Return the exit code of a change. Pure."""
    if changed.attempt.end == "done":
        return DONE
    if changed.attempt.end == "refused":
        return REFUSED
    return FAILED if changed.restored else BROKEN


def told(order: Order, changed: Changed, seconds: float, pods: str) -> list[str]:
    """Return the one-screen answer of a change. Pure."""
    what, stack, project, tag = order.what, order.stack, order.project, order.tag
    attempt = changed.attempt
    before = changed.before.release.tag if changed.before else "nothing"
    if attempt.end == "done":
        live = changed.after.release.tag if changed.after else tag
        head = f"{project} {live} is live in {stack}"
        if what == "canary":
            beside = changed.after.release.tag if changed.after else before
            head = f"{project} {tag} is the canary in {stack}, beside {beside}"
        lines = [head, f"  before    {before}", f"  took      {seconds:.1f} s"]
        if attempt.ready_seconds is not None:
            lines.append(f"  ready     first new pod after {attempt.ready_seconds:.1f} s")
        lines += [f"  pods      {pods}" if pods == _NOT_KNOWN else f"  pods      {pods} ready"]
        commit = _commit(changed.after)
        if commit:
            lines.append(f"  config    {short(commit)}" + _commit_before(changed))
        if changed.before and (changed.before.release.tag != live or _commit_before(changed)):
            lines.append(f"  undo      release rollback {project} -s {stack}")
        return lines
    head = f"{what} of {project} {tag} to {stack} failed after {seconds:.1f} s"
    if attempt.end == "refused":
        return [f"{what} of {project} {tag} to {stack} was refused; nothing was changed", *_indented(attempt.errors)]
    found = attempt.hopeless
    where = f" in pod {found.pod}, container {found.container}" if found and found.container else ""
    where = where or (f" in pod {found.pod}" if found and found.pod else "")
    why = [f"  {found.reason}{where}: {found.message}"] if found else _indented(attempt.errors)
    return [head, *why, *_indented(attempt.details), _aftermath(changed, order)]


def _commit(record: Record | None) -> str | None:
    """Return the commit of the config repository that a live release was made with."""
    return record.release.config.revision if record and record.release.config else None


def _commit_before(changed: Changed) -> str:
    """Tell which configuration was replaced; empty when it is the same, or there was none."""
    before, after = changed.before, changed.after
    if not before or not after or not before.release.config or before.release.config == after.release.config:
        return ""
    return f" (was {short(before.release.config.revision)})"


def _aftermath(changed: Changed, order: Order) -> str:
    if changed.before is None:
        return f"  {order.project} had no release before this one: nothing was put back"
    before, after = changed.before.release, changed.after.release if changed.after else None
    if changed.restored:
        return f"  {before.tag} serves as before: everything else was put back"
    if after and after != before and after.tag != order.tag:
        return f"  {after.tag} serves: another run has released it meanwhile, and nothing was put back"
    way_on = deploys(order.project, before, order.stack)
    return f"  NOT put back: what the failed release changed is there; `{way_on}`"


def facts(order: Order, changed: Changed, seconds: float, code: int) -> dict[str, Any]:
    """Return the answer of a change for a program. Pure."""
    attempt = changed.attempt
    ready = attempt.ready_seconds
    return {
        "command": order.what,
        "project": order.project,
        "stack": order.stack,
        "tag": order.tag,
        "outcome": {"done": "released", "refused": "refused"}.get(attempt.end, "failed"),
        "before": changed.before.release.tag if changed.before else None,
        "live": changed.after.release.tag if changed.after else None,
        "config": _commit(changed.after),
        "configBefore": _commit(changed.before),
        "restored": changed.restored,
        "seconds": round(seconds, 2),
        "firstReadySeconds": None if ready is None else round(ready, 2),
        "failure": asdict(attempt.hopeless) if attempt.hopeless else None,
        "errors": list(attempt.errors),
        "details": list(attempt.details),
        "exitCode": code,
    }


def earlier(application: Application, record: Record | None, tag: str, steps: int, stack: str) -> Release:
    """Return the good release to go back to.

    Args:
        application: The project.
        record: What it runs and ran; None when it is not deployed.
        tag: The one that is asked for; empty for ``steps``.
        steps: How many good releases back.
        stack: Its name.

    Raises:
        RefusedError: If there is none, or its image is gone; with what is possible.
    """
    project = application.gitea_name
    if record is None:
        raise RefusedError(f"{project} is not deployed: there is nothing to go back from")
    others = [release for release in record.history if release != record.release]
    if tag:
        found = next((release for release in others if release.tag == tag), None)
        problem = f"{project} has no good release {tag} before {record.release.tag}"
    else:
        found = others[steps - 1] if 0 < steps <= len(others) else None
        problem = f"{project} has {len(others)} good releases before {record.release.tag}, not {steps}"
    if found is None:
        raise RefusedError([problem, *possible(application, others, stack)])
    missing = absent(application, found, stack)
    if missing:
        left = [release for release in others if release != found]
        raise RefusedError([missing, *possible(application, left, stack)])
    return found


def possible(application: Application, releases: Sequence[Release], stack: str) -> list[str]:
    """Return a line for each release that can be gone back to."""
    there = [release.tag for release in releases if not absent(application, release, stack)]
    project = application.gitea_name
    lines = [f"possible: release rollback {project} -s {stack} --to {tag}" for tag in there]
    return lines or ["there is none to go back to"]


def absent(application: Application, release: Release, stack: str) -> str:
    """Return why a release's image can't be run again; empty when it can."""
    image = _image(application)
    try:
        host, _, repository = image.repository.partition("/")
        digest = Registry(host).digest(repository, release.tag)
    except RegistryError as error:
        return str(error)
    if release.digest and digest != release.digest:
        return (
            f"{release.tag} was pushed anew: it was {release.digest}, and is {digest}; "
            f"to run that: release deploy {application.gitea_name} {release.tag} -s {stack}"
        )
    return ""


def pinned(application: Application) -> Application:
    """Return a project with the digest of its image, as the registry tells it.

    Raises:
        RefusedError: If there is no such image, or the registry can't be asked.
    """
    image = _image(application)
    host, _, repository = image.repository.partition("/")
    try:
        digest = Registry(host).digest(repository, image.tag)
    except ImageMissingError as error:
        raise RefusedError(str(error)) from None
    except RegistryError as error:
        raise RefusedError(str(error)) from None
    return application.running(Release(tag=image.tag, digest=digest, config=application.config))


def unpinned(program: Program, project: str) -> Application:
    """Return a project whose image has no tag yet."""
    return program.application(project, NO_TAG)


def who_runs() -> str:
    """Return who runs this: Jenkins' user where it tells one, or the login name with its host."""
    return os.environ.get("BUILD_USER_ID") or f"{_login()}@{socket.gethostname()}"


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user that has no name there
        return f"uid {os.getuid()}"


def _image(application: Application) -> Image:
    if application.image is None:
        raise ValueError(f"{application.gitea_name} has no image")
    return application.image


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def rollback_all(session: Session, wanted_update: str, leave: Leave) -> int:
    """Bring the whole stack to the tags of an earlier update; returns the exit code.

    Args:
        session: The stack.
        wanted_update: Number of the update in ``pulumi stack history``, or its start as it stands there, in UTC.
        leave: To go back past migrations.
    """
    program = session.program
    update = past.find(past.parse_updates(Pulumi(program).history(HISTORY_PAGE)), wanted_update)
    if update is None or update.kind != "update" or update.result != "succeeded":
        raise RefusedError(f"{program.stack} has no good update {wanted_update} among its last {HISTORY_PAGE}")
    wanted = {name: tag for name, tag in update.tags.items() if name in program.projects.values()}
    problems = [problem for name, tag in wanted.items() if (problem := _missing(program, name, tag))]
    if problems or not wanted:
        raise RefusedError(problems or [f"update {wanted_update} says no tags of projects that are here"])
    why = past.message("rollback to update", "*", wanted_update, who_runs(), session.options.message)
    with closing(session.cluster()) as cluster:
        records = cluster.records()
        for kubernetes, name in program.projects.items():
            if name in wanted:
                leave.asked(name, records.get(kubernetes), Release(tag=wanted[name]))
        changer = session.changer(cluster, why)
        with changer.hold(f"rollback of {program.stack} to update {wanted_update} by {who_runs()}"):
            records = cluster.records()
            tags = {**program.tags, **program.deployed_tags(records), **wanted}
            older = [f"{name}:{tag}" for name, tag in tags.items()]
            revisions = _revisions_then(program, update, records, wanted)
            config = {TAGS: tags, ALLOW_OLDER: older, **({CONFIG_REVISIONS: revisions} if revisions else {})}
            attempt = changer.whole(program.config_text(config))
            after = program.deployed_tags(cluster.records())
    code = DONE if attempt.end == "done" else REFUSED if attempt.end == "refused" else BROKEN
    head = (
        f"{program.stack} is at the tags of update {wanted_update}"
        if code == DONE
        else f"rollback to {wanted_update} failed"
    )
    lines = [head, *_indented([f"{name} {tag}" for name, tag in after.items()]), *_indented(attempt.errors)]
    session.screen.result(lines, {"stack": program.stack, "update": wanted_update, "live": after, "exitCode": code})
    return code


def _revisions_then(
    program: Program, update: past.Update, records: Mapping[str, Record], tags: Mapping[str, str]
) -> dict[str, str]:
    """Return the commits of the config repository that go with the tags of an update, and what runs for the others.

    The update says them where it was made with any; else each project's own record knows with which it ran its tag.
    """
    found = {**program.config_revisions, **program.deployed_revisions(records)}
    for project, tag in tags.items():
        record = records.get(unpinned(program, project).name)
        ran = [each.config.revision for each in (record.history if record else ()) if each.tag == tag and each.config]
        revision = update.revisions.get(project) or next(iter(ran), None)
        if revision:
            found[project] = revision
    here = program.projects.values()
    return {name: each for name, each in found.items() if name in here and unpinned(program, name).project.config}


def _missing(program: Program, project: str, tag: str) -> str:
    try:
        pinned(program.application(project, tag))
    except RefusedError as error:
        return str(error)
    return ""
