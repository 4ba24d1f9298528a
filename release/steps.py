"""A canary that goes up step by step, judged by what the ingress itself counts, and ended by itself when it is bad.

The stack is held only while a step is made, so other projects are released in the pauses. Each step is an ordinary
canary in the stack file: whoever stops this process in a pause leaves the weight where it is.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

from model.ingress import NlbIngress, VipIngress
from model.plan import CanaryWish
from model.release import Record, Release
from model.stack import Application
from release import analysis
from release.analysis import PAUSE_SECONDS, Judgement, Rule
from release.canary import NotWrittenError, give, give_up, of_strategy, take_over
from release.cluster import Cluster, ClusterError
from release.commands import Made, Session, told
from release.errors import BROKEN, DONE, FAILED, REFUSED, InterruptedRunError, RefusedError, ReleaseError
from release.metrics import Figures, Reading, UnreadableMetricsError, Window, parse, service_names
from release.objects import uid_of
from release.screen import table
from release.signals import Signals

PROMOTE_AT = 100
"""The step that is the promotion."""
EXTENSIONS = 3
"""So many more pauses are waited when there were too few requests to judge by; then the canary is ended."""
LOOK_SECONDS = 5.0
"""The proxies are asked so often, or four times in a shorter pause."""
_LOOKS = 4
_SIGNAL_SECONDS = 0.1
Outcome = Literal["promoted", "waiting", "aborted", "failed"]


@dataclass(frozen=True)
class Steps:
    """How a canary goes up.

    Args:
        weights: Percent of the requests, rising; 100 promotes.
        pause: Seconds that each weight is watched.
        rule: What it must keep to.
    """

    weights: tuple[int, ...]
    pause: float
    rule: Rule


@dataclass(frozen=True)
class Observed:
    """What was seen at one weight.

    Args:
        weight: Percent of the requests.
        seconds: How long it was watched.
        canary: What the canary did.
        stable: What the live release did meanwhile.
        judgement: What that means.
    """

    weight: int
    seconds: float
    canary: Figures
    stable: Figures
    judgement: Judgement

    def facts(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "weight": self.weight,
            "seconds": round(self.seconds, 1),
            "verdict": self.judgement.verdict,
            "reason": self.judgement.reason,
            "canary": analysis.facts(self.canary),
            "stable": analysis.facts(self.stable),
        }


def run(session: Session, project: str, wish: CanaryWish, steps: Steps) -> int:
    """Take a canary up step by step; returns the exit code.

    Args:
        session: The stack.
        project: Gitea project.
        wish: Tag and header; its weight does not matter.
        steps: How it goes up.

    Raises:
        RefusedError: If the ingress of the stack, or the project, can't be measured; nothing was changed.
        InterruptedRunError: If this process was asked to end; the weight stays where it is.
    """
    application = of_strategy(session.program, project, wish.tag)
    climb = _Climb(session, application, wish, steps)
    climb.refuse_what_cannot_be_measured()
    with climb.signals.noted():
        try:
            return climb.to_the_top()
        except InterruptedRunError as error:
            raise InterruptedRunError([*error.lines, *climb.ways_on()], error.code - 128) from None


class MovedError(ReleaseError):
    """Another command has changed the project between two steps."""

    code = BROKEN


@dataclass
class _Climb:
    """One canary on its way."""

    session: Session
    application: Application
    wish: CanaryWish
    steps: Steps
    signals: Signals = field(default_factory=Signals)
    seen: list[Observed] = field(default_factory=list[Observed])
    weight: int | None = None
    """What the canary has; None before its first step."""
    live: Release | None = None
    """What ran when it began."""

    @property
    def project(self) -> str:
        """The Gitea project."""
        return self.application.gitea_name

    def refuse_what_cannot_be_measured(self) -> None:
        """Make sure that there are figures to judge by, before anything is changed.

        Raises:
            RefusedError: If there are not.
        """
        ingress = self.session.program.environment.ingress
        if ingress.dialect != "nginx":
            raise RefusedError(
                f"automatic steps read the metrics of the ingress on VMs; with the dialect {ingress.dialect} "
                "they are not supported yet: use --weight, and promote or abort"
            )
        if not self.application.project.routes:
            raise RefusedError(
                f"{self.application.file}:routes: there are none, so the ingress has nothing to measure: use --weight"
            )
        with closing(self.session.cluster()) as cluster:
            readings = self._look(cluster)
        if not readings:
            raise RefusedError(
                f"no proxy of the platform's own ingress serves the class {ingress.class_name}: automatic steps read "
                "its metrics; use --weight"
            )
        if all(reading is None for reading in readings.values()):
            raise RefusedError("no proxy of the ingress told its metrics: see above, or use --weight")

    def to_the_top(self) -> int:
        """Make all steps; returns the exit code. What ends them ends the canary, as nobody watches it any longer.

        Raises:
            ReleaseError: If the first step could not be made; nothing was changed.
            InterruptedRunError: If this process was asked to end; the weight stays where it is.
        """
        try:
            return self._up()
        except MovedError as error:
            return self._left("\n".join(error.lines))
        except InterruptedRunError:
            raise
        except ReleaseError as error:
            if self.weight is None:
                raise
            return self._abort("\n".join(error.lines))

    def _up(self) -> int:
        for weight in self.steps.weights:
            if weight == PROMOTE_AT:
                return self._promote()
            made = self._step(weight)
            if made.code != DONE:
                return self._failed(made)
            try:
                seen = self._observe(weight)
            finally:
                self.session.screen.settle()
            self.seen.append(seen)
            self.session.screen.line(f"at {weight}%: {_compared(seen)}")
            if seen.judgement.verdict != "good":
                return self._abort(f"at {weight}%: {seen.judgement.reason}; {_compared(seen)}")
        return self._answer("waiting", DONE, "")

    def _step(self, weight: int) -> Made:
        try:
            made = give(self.session, self.project, self.wish.model_copy(update={"weight": weight}), self._check)
        except NotWrittenError as error:
            self._reached(weight, error.made)
            raise ReleaseError(error.why) from None  # what ends the canary writes the file anew
        if made.code == DONE:
            self._reached(weight, made)
        return made

    def _reached(self, weight: int, made: Made) -> None:
        self.weight = weight
        # Where the record could not be read afterwards, what serves is what served before: a step does not change it.
        record = made.changed.after or made.changed.before
        self.live = record.release if record else None

    def _promote(self) -> int:
        try:
            made = take_over(self.session, self.project, self._check)
        except NotWrittenError as error:
            return self._answer("promoted", error.code, "\n".join(error.lines), error.made)
        return self._answer("promoted", DONE, "", made) if made.code == DONE else self._failed(made)

    def _check(self, record: Record | None) -> None:
        """Make sure that nobody else has moved the project since the last step."""
        if self.weight is None:
            return
        canary = record.slots.get("canary") if record else None
        if record is None or record.release != self.live or canary is None or canary.release.tag != self.wish.tag:
            raise MovedError(
                f"another command has changed {self.project} since the canary had {self.weight}%: the steps end here, "
                "and leave it as it is now"
            )

    # Looking.

    def _observe(self, weight: int) -> Observed:
        """Watch the versions for the pause, or longer while there is too little to judge by."""
        window, rule, pause = Window(), self.steps.rule, self.steps.pause
        began, length, extensions = time.monotonic(), pause, 0
        with closing(self.session.cluster()) as cluster:
            window.take(self._look(cluster))
            while True:
                self._sleep(min(LOOK_SECONDS, pause / _LOOKS), began + length)
                window.take(self._look(cluster))
                passed = time.monotonic() - began
                seen = Observed(weight, passed, window.figures("canary"), window.figures("stable"), Judgement("good"))
                self.session.screen.progress(f"at {weight}% for {passed:.0f} of {length:.0f} s: {_compared(seen)}")
                lost = analysis.lost_already(seen.canary, rule, passed / length)
                judgement = lost or analysis.judge(seen.canary, rule)
                if not lost and passed < length:
                    continue
                if judgement.verdict != "scarce" or extensions == EXTENSIONS:
                    return Observed(weight, passed, seen.canary, seen.stable, judgement)
                extensions, length = extensions + 1, length + pause
                self.session.screen.line(f"{judgement.reason}: watches for {pause:.0f} s more")

    def _sleep(self, seconds: float, end: float) -> None:
        until = min(time.monotonic() + seconds, end)
        while (left := until - time.monotonic()) > 0:
            self.signals.check("the canary was being watched")
            time.sleep(min(_SIGNAL_SECONDS, left))
        self.signals.check("the canary was being watched")

    def _look(self, cluster: Cluster) -> dict[str, Reading | None]:
        """Return what every proxy counted so far, by its unique id; None for one that does not answer."""
        ingress = self.session.program.environment.ingress
        namespace = ingress.ha.namespace if isinstance(ingress.ha, VipIngress | NlbIngress) else ""
        names = service_names(cluster.namespace, self.application.name)
        readings: dict[str, Reading | None] = {}
        try:
            pods = cluster.proxies(ingress.class_name, namespace)
        except ClusterError as error:
            self.session.screen.waiting(str(error))
            return {}
        for pod in pods:
            try:
                readings[uid_of(pod)] = parse(cluster.metrics(pod), names)
            except (ClusterError, UnreadableMetricsError) as error:
                self.session.screen.waiting(str(error))
                readings[uid_of(pod)] = None
        return readings

    # Ending.

    def _failed(self, made: Made) -> int:
        """End after a step that could not be made; the release of before serves, as ``made`` tells."""
        why = told(made.order, made.changed, self.session.screen.seconds, made.pods)
        if self.weight is None or made.code not in (FAILED, REFUSED):
            return self._answer("failed", made.code, "\n".join(why), made)
        return self._abort("\n".join(why))

    def _abort(self, reason: str) -> int:
        self.session.screen.line(f"ends the canary: {reason}")
        try:
            made = give_up(self.session, self.project, self._check)
        except InterruptedRunError:
            raise
        except MovedError as error:
            return self._left("\n".join([reason, *error.lines]))
        except NotWrittenError as error:
            self.weight = 0
            return self._answer("aborted", error.code, "\n".join([reason, *error.lines]), error.made)
        except ReleaseError as error:
            made = None
            reason = "\n".join([reason, *error.lines])
        if made is None or made.code != DONE:
            return self._answer("failed", BROKEN, "\n".join([reason, *self.ways_on()]), made)
        self.weight = 0
        return self._answer("aborted", FAILED, reason, made)

    def _left(self, reason: str) -> int:
        """End where somebody else has moved the project: what it has now is not known here."""
        self.weight = self.live = None
        return self._answer("failed", BROKEN, reason)

    def ways_on(self) -> list[str]:
        """Return what a person can do where this was left."""
        stack, project, tag = self.session.program.stack, self.project, self.wish.tag
        if self.weight is None:
            return [f"the canary had no step yet: release status {project} -s {stack}"]
        left = [each for each in self.steps.weights if each > self.weight]
        steps = ",".join(map(str, [self.weight, *left]))
        onward = f"release canary {project} {tag} -s {stack} --steps {steps}{self._options()}"
        return [
            f"{project} {tag} keeps its {self.weight}% of the requests",
            f"to go on: {onward}",
            f"to end it: release abort {project} -s {stack}",
        ]

    def _options(self) -> str:
        """Return the options with which it was begun, as far as they are not the usual ones."""
        rule, usual = self.steps.rule, Rule()
        told = {
            "--header": self.wish.header or "",
            "--pause": f"{self.steps.pause:g}s" if self.steps.pause != PAUSE_SECONDS else "",
            "--max-error-rate": f"{100 * rule.max_error_rate:g}%"
            if rule.max_error_rate != usual.max_error_rate
            else "",
            "--max-p99": f"{rule.max_p99:g}s" if rule.max_p99 else "",
            "--min-requests": f"{rule.min_requests}" if rule.min_requests != usual.min_requests else "",
        }
        return "".join(f" {option} {value}" for option, value in told.items() if value)

    def _answer(self, outcome: Outcome, code: int, reason: str, made: Made | None = None) -> int:
        stack, tag = self.session.program.stack, self.wish.tag
        after = made.changed.after if made else None
        live = after.release if after else self.live
        served = f"{live.tag} gets all requests" if live else ""
        heads = {
            "promoted": f"{self.project} {tag} passed all steps and is live in {stack}",
            "waiting": f"{self.project} {tag} passed all steps and keeps {self.weight}% of the requests in {stack}",
            "aborted": f"the canary {self.project} {tag} in {stack} was ended: {served}",
            "failed": f"the canary {self.project} {tag} in {stack} failed",
        }
        rows = [("WEIGHT", "CANARY", "STABLE"), *map(_row, self.seen)] if self.seen else []
        lines = [heads[outcome], *(f"  {line}" for line in [*reason.splitlines(), *table(rows)])]
        if outcome == "waiting":
            lines.append(f"  next      release promote {self.project} -s {stack}, or release abort")
        facts = {
            "command": "canary",
            "project": self.project,
            "stack": stack,
            "tag": tag,
            "outcome": outcome,
            "live": live.tag if live else None,
            "weight": None if outcome == "promoted" else self.weight,
            "reason": reason,
            "rule": self.steps.rule.facts(),
            "pauseSeconds": self.steps.pause,
            "steps": list(self.steps.weights),
            "windows": [each.facts() for each in self.seen],
            "seconds": round(self.session.screen.seconds, 2),
            "exitCode": code,
        }
        self.session.screen.result(lines, facts)
        return code


def _compared(seen: Observed) -> str:
    return f"canary {analysis.told(seen.canary)}; stable {analysis.told(seen.stable)}"


def _row(seen: Observed) -> tuple[str, str, str]:
    return (f"{seen.weight}%", analysis.told(seen.canary), analysis.told(seen.stable))
