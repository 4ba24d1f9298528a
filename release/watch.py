"""What is seen while pulumi runs: its events, the pods, and whether the run stands on what is still true."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from model.release import Record
from release.cluster import Cluster, ClusterError
from release.diagnosis import Diagnosis, Found, Hopeless, Limits, event_lines
from release.events import Event, is_locked
from release.migrations import MigrationWatch
from release.pulumi import Run
from release.screen import Screen

LOOK_SECONDS = 0.4
LOG_LINES = 15
UNTOUCHED = "nothing was changed"
_BY_SIGNAL = range(129, 160)
End = Literal["done", "locked", "moved", "unfinished", "hopeless", "failed", "refused"]


@dataclass(frozen=True)
class Watched:
    """What is looked at while pulumi runs.

    Args:
        name: The project's name in Kubernetes.
        image: The reference that its new pods run.
        before: What the record said when the run was begun, None where there was none: it must still say so. ``any``
            where it does not matter.
        migrates: Whether a Job may run before the pods.
        jobs: Unique ids of the Jobs that were there before, and of their pods.
        stateful: Whether its pods are those of a StatefulSet.
        found: What was there before.
        left: What a person is told who interrupts it.
    """

    name: str
    image: str
    before: Record | Literal["any"] | None = "any"
    migrates: bool = False
    jobs: frozenset[str] = frozenset()
    stateful: bool = False
    found: Found = field(default_factory=Found)
    left: str = UNTOUCHED


@dataclass(frozen=True)
class Attempt:
    """How a run of pulumi ended.

    Args:
        end: ``moved``: another release changed the record meanwhile. ``unfinished``: it was ended because the state
            has operations of a run that was cut off. ``refused``: it failed before it touched anything.
        errors: Lines of pulumi.
        hopeless: Why it was ended early.
        details: Log lines and events of what failed, and what went wrong when it was put back.
        ready_seconds: When the first new pod was ready, None when none was.
    """

    end: End
    errors: tuple[str, ...] = ()
    hopeless: Hopeless | None = None
    details: tuple[str, ...] = ()
    ready_seconds: float | None = None

    @property
    def reason(self) -> str:
        """Why it failed, in a few words."""
        return self.hopeless.reason if self.hopeless else next(iter(self.errors), self.end)


class Watch:
    """What is seen while pulumi runs.

    Attributes:
        errors: Lines of pulumi.
        hopeless: Why the run can't succeed, None for as long as it can.
        moved: Whether another release has changed the record since it was read.
        unsure: Why that could not be seen; empty when it could.
        unfinished: Whether the run stands on a state with operations of a run that was cut off, and that matters.
        touched: Whether pulumi has begun to change anything.
        ready_seconds: When the first new pod was ready, None when none was.
    """

    def __init__(
        self,
        cluster: Cluster,
        screen: Screen,
        limits: Limits,
        watched: Watched | None,
        *,
        minds_unfinished: bool = False,
    ) -> None:
        """Prepare it; nothing is asked yet.

        Args:
            cluster: Where the pods are.
            screen: Is told everything.
            limits: How long what may mend is waited for.
            watched: What is looked at; None when no project is.
            minds_unfinished: Whether it matters what the state has of a run that was cut off.
        """
        self.errors: list[str] = []
        self.hopeless: Hopeless | None = None
        self.moved = False
        self.unsure = ""
        self.unfinished = False
        self.touched = False
        self.ready_seconds: float | None = None
        self._cluster = cluster
        self._screen = screen
        self._watched = watched
        self._minds_unfinished = minds_unfinished
        self._diagnosis = Diagnosis(watched.image, limits, watched.found) if watched else None
        moving = watched if watched and watched.migrates else None
        self._migration = MigrationWatch(cluster, screen, moving.name, moving.image, moving.jobs) if moving else None
        self._begun = False
        self._silent = False
        self._looked = 0.0

    @property
    def over(self) -> bool:
        """Whether the run is to be ended."""
        return bool(self.moved or self.unfinished or self.hopeless or self.unsure)

    def step(self, run: Run) -> None:
        """Take in what has happened since the last step."""
        self.events(run)
        if self._begun and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
            self._looked = time.monotonic()

    def events(self, run: Run) -> None:
        """Take in the engine's events."""
        for event in run.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        if event.kind == "begun":
            self._begun = True
            self._check_record()
        elif event.kind == "error":
            self.errors += event.text.splitlines()
        elif event.text:
            self.unfinished |= self._minds_unfinished and event.kind == "unfinished"
            self.touched |= event.kind == "step"
            self._screen.line(event.text)

    def _check_record(self) -> None:
        """The lock is held from here on: what was read before it must still be true."""
        watched = self._watched
        if watched is None or watched.before == "any":
            return
        try:
            self.moved = self._cluster.record(watched.name) != watched.before
        except ClusterError as error:
            self.unsure = f"whether another release came between could not be seen: {error}; run the same command again"

    def _look(self) -> None:
        watched, diagnosis = self._watched, self._diagnosis
        if not watched or not diagnosis:
            return
        try:
            deployments = self._cluster.deployments(watched.name, stateful=watched.stateful)
            pods = self._cluster.pods(watched.name)
            jobs, failed = self._migration.look(pods) if self._migration else ([], None)
        except ClusterError as error:
            # The release goes on without being watched; pulumi has its own way of waiting for the API server.
            if not self._silent:
                self._screen.line(str(error))
            self._silent = True
            return
        self._silent = False
        look = diagnosis.look(deployments, pods, time.monotonic())
        self._screen.pods(look.pods)
        self.hopeless = failed or diagnosis.of_job(jobs, time.monotonic()) or look.hopeless
        if self.ready_seconds is None and any(pod.ready for pod in look.pods):
            self.ready_seconds = self._screen.seconds

    def last(self, run: Run) -> list[str]:
        """Look at a migration once more when pulumi has ended by itself: it may have logged more, and failed."""
        if not self._migration or not self._begun or self.hopeless or self.moved:
            return []
        watched = self._migration
        try:
            failed = watched.look(self._cluster.pods(watched.name))[1]
        except ClusterError as error:
            self._screen.line(str(error))
            return []
        if run.code and failed:
            self.hopeless = failed
            return self.details()
        return []

    def details(self) -> list[str]:
        """Return what the cluster knows of the failure: the container's last lines, and events."""
        found = self.hopeless
        if not found:
            return []
        lines: list[str] = []
        try:
            if found.container:
                log = self._cluster.log(found.pod, found.container, LOG_LINES, previous=found.previous)
                log = log or self._cluster.log(found.pod, found.container, LOG_LINES, previous=not found.previous)
                lines += [f"log: {line}" for line in log]
            lines += [f"event: {line}" for line in event_lines(self._cluster.events(found.uid))]
        except ClusterError as error:
            lines.append(str(error))
        return lines

    def ended(self, run: Run) -> Attempt:
        """Return how a run ended by itself."""
        if run.code == 0:
            return Attempt("done", ready_seconds=self.ready_seconds)
        output = run.output()
        if is_locked(output):
            return Attempt("locked", tuple(output.splitlines()))
        errors = tuple(self.errors) or tuple(output.strip().splitlines()[-20:]) or (f"pulumi ended with {run.code}",)
        killed = run.code in _BY_SIGNAL
        return Attempt("failed" if self.touched or killed else "refused", errors, ready_seconds=self.ready_seconds)
