"""Changing a stack: one project at a time, watched, and put back when it fails.

The order of things matters. The stack is held on this host first. What a killed run left is cleared away. Then the
records are read, and pulumi is started; as soon as its engine holds the stack's own lock, the project's record is read
again: had another host's release moved it meanwhile, the run would stand on what is no longer true, and is begun anew
before its program has declared anything.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal

from model.fields import plain_mapping
from model.names import GITEA_PROJECT
from model.release import Instruction, Record, Release, mounted_bridges, recorded_canary
from model.rollout import missing_pods
from model.stack import Application, Image, name_taken
from release import lock as locks
from release.cluster import Cluster, ClusterError
from release.config import deploys, wanted_revisions
from release.diagnosis import Found, Limits
from release.drift import changed_pods, drift_by_slot, drifted_slots
from release.errors import InterruptedRunError, LockedError, PulumiError, RefusedError, ReleaseError, UnexpectedError
from release.events import is_locked
from release.hold import POLL_SECONDS, Hold, held
from release.inputs import CANARIES, TAGS, Program
from release.language_host import Ahead
from release.migrations import failed_jobs, known_uids, migrates, with_what_ran
from release.objects import Object, inner, name_of
from release.pending import CREATING, completed, pending, to_read
from release.pulumi import Command, Pulumi, Run, end_leftovers, up
from release.screen import Screen
from release.signals import Signals
from release.watch import UNTOUCHED, Attempt, Watch, Watched

WATCH_SECONDS = 0.05
STOP_SECONDS = 15.0
KILL_SECONDS = 10.0
SAME_AGAIN_SECONDS = 30.0
"""How long pods that were bad before a release may stay as they are: pulumi has come to them by then."""
Action = Literal["release", "restore", "tidy"]


@dataclass(frozen=True)
class Options:
    """How a change is made.

    Args:
        message: Why, for ``pulumi stack history``.
        limits: How long what may mend is waited for.
        unschedulable: How long a node with room is waited for instead, in seconds; None for what the stack file says.
        lock_seconds: How long another run is waited for.
        put_back: Whether the release before is put back when this one fails.
    """

    message: str
    limits: Limits = field(default_factory=Limits)
    unschedulable: float | None = None
    lock_seconds: float = 1800.0
    put_back: bool = True


def _as_it_is(_: Record | None) -> None:
    """Run the application's own image, whatever runs."""


@dataclass(frozen=True)
class Wish:
    """What is to become of a project.

    Args:
        action: What the program is told to do.
        target: Checks the record that was found, and may choose from it what to run; None for the application's own
            image.
        config: Keys of the stack file that differ for this run, with their namespace.
        watched: The image whose pods are watched, where it is not the application's: a canary's.
        tag: What it is about, where that is not the application's tag: a canary's.
        canary: The canary that is to run beside the application.
        repeatable: Whether the same command again asks for the same: a rollback would go on to the release before.
        returns: Whether it is a way back, for which warm pods get the traffic as they are, whatever the project file
            makes of their release now.
    """

    action: Action
    target: Callable[[Record | None], Release | None] = _as_it_is
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    watched: str = ""
    tag: str = ""
    canary: Release | None = None
    repeatable: bool = True
    returns: bool = False


@dataclass(frozen=True)
class Before:
    """What there is of a project before a run.

    Args:
        record: What its Service records.
        deployments: Its Deployments.
    """

    record: Record | None
    deployments: Sequence[Object]


@dataclass(frozen=True)
class Changed:
    """What became of a change.

    Args:
        attempt: The run that counts.
        before: What the project's record said before it.
        after: What it says at the end; None also where it could not be read.
        restored: Whether the state before was put back, the pods as they were; None when there was no need to.
    """

    attempt: Attempt
    before: Record | None
    after: Record | None
    restored: bool | None = None


class Changer:
    """Changes one stack."""

    def __init__(
        self, program: Program, cluster: Cluster, screen: Screen, options: Options, ahead: Ahead | None = None
    ) -> None:
        """Prepare it; nothing is asked yet.

        Args:
            program: The stack.
            cluster: Where it runs.
            screen: Is told everything.
            options: How to go about it.
            ahead: The program, where its loading was begun.
        """
        self._program = program
        self._ahead = ahead or Ahead()
        self._pulumi = Pulumi(program)
        self._cluster = cluster
        self._screen = screen
        self._options = options
        self._signals = Signals()
        self._hold: Hold | None = None
        self._left = UNTOUCHED

    @contextmanager
    def hold(self, what: str) -> Generator[None]:
        """Hold the stack on this host, and clear away what a killed run left.

        Args:
            what: What is going to be done, for those who wait.

        Raises:
            LockedError: If another run does not end in time.
        """
        deadline = time.monotonic() + self._options.lock_seconds

        def wait(holder: str) -> bool:
            self._signals.check(self._left)
            self._ahead.drop()
            self._screen.waiting(f"waits for {holder}")
            time.sleep(POLL_SECONDS)
            return time.monotonic() < deadline

        with self._signals.noted(), held(self._pulumi.key, what, wait) as self._hold:
            self._clear(deadline)
            yield

    def make(self, application: Application, wish: Wish) -> Changed:
        """Bring one project to what is wanted; the stack is held.

        Args:
            application: The project, with the image that it is to run.
            wish: What is to become of it.

        Raises:
            LockedError: If a run elsewhere does not end in time.
            ReleaseError: Whatever ``wish.target`` raises.
        """
        deadline = time.monotonic() + self._options.lock_seconds
        while True:
            records = self._cluster.records()
            before = Before(records.get(application.name), self._deployments(application))
            _refuse_taken(application, before.deployments)
            wanted = wish.target(before.record)
            chosen = application.running(wanted) if wanted else application
            attempt = self._attempt(chosen, wish, records, before.deployments)
            if attempt.end not in ("locked", "moved"):
                break
            if attempt.end == "locked":
                self._wait_for_lock(attempt, deadline)
        tried = wish.canary or chosen.release
        return self._concluded(chosen, before, attempt, tried)

    def whole(self, config: str) -> Attempt:
        """Bring the whole stack to what a config says; the stack is held.

        Args:
            config: Text of the stack file to run with.
        """
        deadline = time.monotonic() + self._options.lock_seconds
        while True:
            attempt = self._watch(up(config, self._options.message), None)
            if attempt.end != "locked":
                return attempt
            self._wait_for_lock(attempt, deadline)

    # One run of pulumi.

    def _attempt(
        self, application: Application, wish: Wish, records: dict[str, Record], there: Sequence[Object]
    ) -> Attempt:
        before, chosen = records.get(application.name), application.release
        reading = self._reading(application, before, there)
        command = self._command(application, wish, records, reading, there)
        watched = wish.watched or (application.image.reference if application.image else "")
        moving = wish.action == "release" and migrates(application)
        known = known_uids(self._cluster, application.name) if moving else frozenset[str]()
        # A migration runs for as long as it needs, and until then nothing is replaced.
        patience = SAME_AGAIN_SECONDS if wish.action == "release" and not moving else inf
        found = Found.of(there, self._cluster.pods(application.name), patience)
        finishes = f"`{self._deploys(application, chosen)}` finishes it"
        left = f"{'run the same command again' if wish.repeatable else finishes}{self._or_back(application, before)}"
        stateful = application.project.stateful
        return self._watch(command, Watched(application.name, watched, before, moving, known, stateful, found, left))

    def _or_back(self, application: Application, record: Record | None) -> str:
        """Return what else brings a project to a known state. The record has the release that serves, and no other."""
        if record is None:
            return f"; nothing of {application.gitea_name} was deployed before: there is nothing to go back to"
        return f", or `{self._deploys(application, record.release)}`, to get to a known state"

    def _deploys(self, application: Application, release: Release) -> str:
        return deploys(application.gitea_name, release, self._program.stack)

    def _command(  # noqa: PLR0913 - what is known before a run
        self,
        application: Application,
        wish: Wish,
        records: dict[str, Record],
        reading: Sequence[str],
        there: Sequence[Object],
        *,
        earlier: Sequence[Object] = (),
    ) -> Command:
        image = application.image
        if image is None:
            raise ValueError(f"{application.gitea_name} has no image")
        tags = {**self._program.tags, **self._program.deployed_tags(records), application.gitea_name: image.tag}
        mine = {name: record for name, record in records.items() if name == application.name}
        failed = failed_jobs(self._cluster, application.name) if migrates(application) else ()
        record = mine.get(application.name)
        # The record says nothing sure of a slot without traffic: a release that was cut off may have taken it.
        touched = drift_by_slot(record, application.name, there) if record else {}
        returns = wish.returns and record is not None and not touched
        pods = {**wanted_pods(there if application.project.autoscaling else ()), **wanted_pods(earlier)}
        instruction = Instruction(
            project=application.gitea_name,
            action=wish.action,
            returns_to=application.release if returns else None,
            touched=tuple(touched) if wish.action == "restore" else (),
            records=mine,
            failed_jobs=failed,
            pods=pods,
            ready=complete(there),
            bridges=self._bridges(there),
            autoscaled=self._names("HorizontalPodAutoscaler", application, wish),
            ingresses=self._names("Ingress", application, wish),
            digests=digests(image, wish.canary or self._canary(application, wish, records.get(application.name))),
        )
        revisions = wanted_revisions(self._program, application)
        config = self._program.config_text({TAGS: tags, **revisions, **wish.config})
        message = self._options.message
        if wish.action == "restore":
            message = message.replace("release ", "release restore after ", 1)
        return up(config, message, instruction, self._program.urn(application), *reading)

    def _names(self, kind: str, application: Application, wish: Wish) -> tuple[str, ...] | None:
        """Return the names of what only a release may make or take away; None where it does not matter."""
        singleton = application.project.singleton and kind == "HorizontalPodAutoscaler"
        return self._cluster.names(kind, application.name) if singleton or wish.action != "release" else None

    def _canary(self, application: Application, wish: Wish, record: Record | None) -> Release | None:
        wishes = plain_mapping({**self._program.config, **wish.config}.get(CANARIES)) or {}
        wanted = plain_mapping(wishes.get(application.gitea_name)) or {}
        return recorded_canary(str(wanted.get("tag", "")), record)

    def _bridges(self, there: Sequence[Object]) -> dict[str, dict[str, str]]:
        """Return what the asset bridges of Deployments are configured with: what is left as it is needs it on."""
        names = frozenset[str]().union(*map(mounted_bridges, there))
        found = {name: self._cluster.config_map(name) for name in sorted(names)}
        return {name: {**inner(each, "data")} for name, each in found.items() if each}

    def _deployments(self, application: Application) -> list[Object]:
        return self._cluster.deployments(application.name, stateful=application.project.stateful)

    def _reading(self, application: Application, record: Record | None, there: Sequence[Object]) -> list[str]:
        """Return the options that read the cluster anew, where a Deployment is not what the record says.

        A run that was killed may have changed it without the state knowing; a state that is believed would then see no
        difference, and leave it. Each resource is named: the engine does not load the provider for those that a refresh
        reaches as dependents only (seen in 3.259).
        """
        if not record or not drifted_slots(record, application.name, there):
            return []
        self._screen.line("the cluster differs from the record, as after a run that was cut off: it is read anew")
        urns = self._pulumi.children(self._program.urn(application))
        return ["--refresh", *(f"--target={urn}" for urn in urns)] if urns else []

    def _watch(self, command: Command, watched: Watched | None) -> Attempt:
        """Run pulumi, and bring to an end what a run before has left undone.

        In a backend that is a folder it was seen beforehand. Elsewhere only the CLI can read the state, which takes a
        second: there the engine's warning is waited for. It comes before anything is changed, but not with a refresh.
        """
        elsewhere = not self._pulumi.backend_folder
        if elsewhere and "--refresh" in command.words:
            attempt = Attempt("unfinished")
        else:
            attempt = self._run(command, watched, minds_unfinished=elsewhere)
        if attempt.end != "unfinished":
            return attempt
        try:
            self._finish(self._pulumi.stored())
        except PulumiError as error:
            return Attempt("locked" if is_locked(str(error)) else "refused", error.lines)
        return self._run(command, watched, minds_unfinished=False)

    def _run(self, command: Command, watched: Watched | None, *, minds_unfinished: bool) -> Attempt:
        with self._pulumi.start(command, self._held, self._ahead.take()) as run:
            watch = Watch(self._cluster, self._screen, self._limits(), watched, minds_unfinished=minds_unfinished)
            left = watched.left if watched else "run the same command again"
            try:
                details = self._follow(run, watch, left)
            except ReleaseError:
                raise
            except Exception as error:
                self._stop(run)
                raise UnexpectedError(error, left) from error
            finally:
                self._screen.settle()
            watch.events(run)
            if watch.unfinished and run.code != 0:
                return Attempt("unfinished")
            details = watch.last(run) or details
            if watch.moved:
                self._screen.line("another release has moved this project meanwhile: begun anew from what it runs")
                return Attempt("moved")
            if watch.unsure and run.code != 0:
                return Attempt("failed" if watch.touched else "refused", (watch.unsure,))
            if watch.hopeless:
                return Attempt("hopeless", tuple(watch.errors), watch.hopeless, tuple(details), watch.ready_seconds)
            return watch.ended(run)

    def _limits(self) -> Limits:
        told = self._options.unschedulable
        waited = self._program.environment.unschedulable_seconds if told is None else told
        return replace(self._options.limits, unschedulable=waited)

    def _follow(self, run: Run, watch: Watch, left: str) -> list[str]:
        """Watch a run until it has ended, or is ended; returns what the cluster knows of a failure."""
        while not run.wait(WATCH_SECONDS):
            watch.step(run)
            if self._signals.number:
                self._stop(run)
                self._signals.check(left)
            if watch.over:
                details = watch.details()
                self._stop(run)
                return details
        return []

    def _stop(self, run: Run) -> None:
        """End a run: pulumi is asked first, so that it saves what it knows; then nothing of it is left."""
        run.interrupt()
        if not run.wait(STOP_SECONDS):
            self._screen.line(f"pulumi did not stop within {STOP_SECONDS:.0f} s: it is killed")
            run.kill()
            run.wait(KILL_SECONDS)
            if self._hold:
                self._hold.killed = True

    @property
    def _held(self) -> tuple[int, ...]:
        return (self._hold.descriptor,) if self._hold else ()

    # What follows.

    def _concluded(self, application: Application, before: Before, attempt: Attempt, tried: Release) -> Changed:
        record = before.record
        if attempt.end == "refused":
            return Changed(attempt, record, record)
        if attempt.end == "done":
            return Changed(attempt, record, self._read(application.name, "it is done, and only the report lacks"))
        if not self._options.put_back or record is None:
            return Changed(attempt, record, self._read(application.name, "the report lacks"), restored=False)
        noted = Before(self._noted(application, record, tried), before.deployments)
        return self._put_back(application, noted, attempt, tried)

    def _noted(self, application: Application, before: Record, tried: Release) -> Record:
        """Return the record with the migration that a failed release has run; it is not undone."""
        if not migrates(application):
            return before
        try:
            record = with_what_ran(before, self._cluster, application, tried)
        except ClusterError as error:
            self._screen.line(str(error))
            return before
        if record != before:
            self._screen.line(f"the migration of {tried.tag} has run and is not undone: {before.release.tag} meets it")
        return record

    def _put_back(self, application: Application, before: Before, attempt: Attempt, tried: Release) -> Changed:
        """Bring back what ran. Whatever goes wrong with that is told beside why the release failed, not instead."""
        record = before.record
        if record is None:
            raise ValueError(f"{application.gitea_name} has nothing to put back")
        self._screen.line(f"puts {application.gitea_name} {record.release.tag} back")
        what = f"{application.gitea_name} {tried.tag} has failed ({attempt.reason})"
        self._left = f"{what}, and is not put back: `{self._deploys(application, record.release)}`"
        try:
            problems = self._restore(application.running(record.release), record, before.deployments, tried)
        except InterruptedRunError:
            raise
        except ReleaseError as error:
            problems = list(error.lines)
        after = self._read(application.name, "it is not known whether all was put back, and the report lacks")
        good = not problems and after is not None and after.release == record.release
        told = replace(attempt, details=(*attempt.details, *(f"put back: {line}" for line in problems)))
        return Changed(told, record, after, restored=good)

    def _restore(self, old: Application, record: Record, there: Sequence[Object], tried: Release) -> list[str]:
        """Make every slot be as the record says; returns what is not as it was before, a line each.

        Args:
            old: The project with the release that serves.
            record: What is to be again.
            there: The Deployments as they were before the release that failed.
            tried: The release that failed.
        """
        deadline = time.monotonic() + self._options.lock_seconds
        image = old.image.reference if old.image else ""
        # What pulumi was stopped in, it knows as unfinished and brings to its end; only where it does not know is it
        # told to look.
        reading: list[str] = []
        while True:
            self._clear(deadline)
            records = self._cluster.records()
            recorded = records.get(old.name)
            if recorded and recorded.release not in (record.release, tried):
                # The stack was free since the failed run was ended.
                return [f"another run has released {recorded.release.tag} meanwhile, which is left as it is"]
            remaining = self._deployments(old)
            command = self._command(
                old, Wish("restore"), {**records, old.name: record}, reading, remaining, earlier=there
            )
            found = Found.of(remaining, self._cluster.pods(old.name))
            watched = Watched(old.name, image, recorded, stateful=old.project.stateful, found=found, left=self._left)
            again = self._watch(command, watched)
            if again.end == "locked":
                self._wait_for_lock(again, deadline)
                continue
            if again.end == "moved":
                continue
            if again.end != "done":
                return [*([f"{again.reason}: {again.hopeless.message}"] if again.hopeless else []), *again.errors]
            now = self._deployments(old)
            asked, reading = bool(reading), self._reading(old, record, now)
            if asked or not reading:
                break
        if reading:
            return drifted_slots(record, old.name, now)
        lines = changed_pods(record, old.name, there, now)
        way_on = f"revert what has changed in {old.file} or the stack file, then `{self._deploys(old, record.release)}`"
        return [*lines, way_on] if lines else []

    def _read(self, name: str, lacks: str) -> Record | None:
        try:
            return self._cluster.record(name)
        except ClusterError as error:
            self._screen.line(f"{lacks} what runs now: {error}; `release status -s {self._program.stack}`")
            return None

    # What is in the way.

    def _clear(self, deadline: float) -> None:
        """Clear away what a killed run left on this host: processes, its lock, operations without an end."""
        ended = end_leftovers(self._pulumi.key)
        if ended:
            self._screen.line(f"a run before was killed and left {ended} processes: they are ended")
        folder = self._pulumi.lock_folder
        while folder:
            found = self._alive(locks.locks_in(folder))
            if not found:
                break
            self._sleep(found, deadline)
        self._finish(self._pulumi.checkpoint())

    def _finish(self, stored: bytes) -> None:
        """Bring to an end what a run that was cut off has left undone.

        Args:
            stored: The stack's state.

        Raises:
            PulumiError: If the state can't be replaced, as while another run holds its lock.
        """
        operations = pending(stored)
        if not operations:
            return
        told = ", ".join(map(str, operations))
        self._screen.line(f"a run before was cut off while {told}: the state is brought to what is in the cluster")
        creations = [each for each in operations if each.kind == CREATING]
        existing = [each for each in creations if self._cluster.exists(each.path())]
        if creations:
            self._pulumi.replace_state(completed(self._pulumi.state(), existing))
        urns = to_read(operations, existing)
        if urns:
            self._refresh(urns)

    def _refresh(self, urns: Sequence[str]) -> None:
        """Read resources anew from the cluster."""
        words = ("refresh", "--yes", "--skip-preview", *(f"--target={urn}" for urn in urns))
        with self._pulumi.start(Command(words, self._program.config_text({})), self._held) as run:
            while not run.wait(WATCH_SECONDS):
                self._signals.check(self._left)
            if run.code:
                # The run that follows says by itself what is wrong; this one only makes it easier.
                self._screen.line(f"that failed:\n{run.output().strip()[-1000:]}")

    def _alive(self, found: Sequence[locks.Lock]) -> list[locks.Lock]:
        """Return the locks whose holders may be at work, after removing those whose holders are gone."""
        host = self._host(found)
        folder = self._pulumi.lock_folder
        for lock in found:
            if folder and locks.is_stale(lock, host):
                self._screen.line(f"the lock of {lock} is cleared: that process is gone")
                for name in (lock.name, f"{lock.name}.attrs"):
                    (folder / name).unlink(missing_ok=True)
        return [lock for lock in found if not locks.is_stale(lock, host)]

    def _host(self, found: Sequence[locks.Lock]) -> locks.Host:
        left_here = self._hold is not None and (self._hold.cut_off or self._hold.killed)
        return locks.this_host((lock.pid for lock in found), sure=left_here)

    def _wait_for_lock(self, attempt: Attempt, deadline: float) -> None:
        text = "\n".join(attempt.errors)
        told = locks.locks_told(text)
        host = self._host(told)
        if told and all(locks.is_stale(lock, host) for lock in told) and not self._pulumi.lock_folder:
            self._screen.line(f"the lock of {told[0]} is cleared: that process is gone")
            self._pulumi.read("cancel", "--yes")
            return
        self._sleep(told, deadline)
        self._clear(deadline)

    def _sleep(self, found: Sequence[locks.Lock], deadline: float) -> None:
        """Wait a moment for the holders of locks; of two that see each other, chance lets one be first."""
        holders = ", ".join(map(str, found)) or "another run"
        self._signals.check(self._left)
        if time.monotonic() > deadline:
            raise LockedError(
                f"the stack is locked by {holders}; if that is gone: release unlock -s {self._program.stack}"
            )
        self._ahead.drop()
        self._screen.waiting(f"waits for the lock of {holders}")
        time.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - spreads retries


def wanted_pods(deployments: Sequence[Object]) -> dict[str, int]:
    """Return how many pods each Deployment wants: by its name. Pure."""
    return {name_of(each): int(inner(each, "spec").get("replicas", 1)) for each in deployments}


def complete(deployments: Sequence[Object]) -> tuple[str, ...]:
    """Return the names of those that have pods, and all of them. Pure."""
    return tuple(
        name_of(each) for each in deployments if inner(each, "spec").get("replicas", 1) and not missing_pods(each)
    )


def _refuse_taken(application: Application, deployments: Sequence[Object]) -> None:
    """Refuse what would be made anew under names that another project's objects have."""
    owners = {str(inner(each, "metadata", "annotations").get(GITEA_PROJECT, "")) for each in deployments} - {""}
    taken = [message for owner in sorted(owners) if (message := name_taken(application, owner))]
    if taken:
        raise RefusedError(f"{application.file}: {taken[0]}")


def digests(image: Image, canary: Release | None) -> dict[str, str]:
    """Return what is known of the images of a run, so that the program need not ask the registry again. Pure.

    What is put back or ended must not need a registry, and what was checked is what runs, also if its tag is moved.

    Args:
        image: What the project is to run.
        canary: What is to run beside it.
    """
    found = {"tags": image.digest, "canaries": canary and canary.digest}
    return {key: digest for key, digest in found.items() if digest}


def drain(pulumi: Pulumi, command: Command) -> tuple[int, str]:
    """Run a command to its end, and return its exit code with its answer, or with all that it printed if it failed.

    Args:
        pulumi: Of the stack.
        command: One that needs a config or an instruction, and no lock.
    """
    with pulumi.start(command) as run:
        while not run.wait(WATCH_SECONDS):
            pass
        return run.code or 0, run.output() if run.code else run.answer()
