"""What a release costs each contestant, where our time goes, and the tables of it. Pure."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from bench.contestants import (
    ARGO_BLUE_GREEN,
    CONTESTANTS,
    KUBECTL_ALONE,
    OURS_BLUE_GREEN,
    OURS_ROLLING,
    Contestant,
)
from bench.figures import Part, Phase, Profile, SizeFigures, Timing, ratio
from bench.processes import ENGINE
from bench.report import markdown_table, profile_tables
from model.fields import plain_mapping

BEGIN = "<!-- release: begin; written by `make bench-release WRITE=1`, do not edit -->"
END = "<!-- release: end -->"
RELEASE = "`release deploy`"
KUBECTL = "`kubectl set image` + `rollout status`"
Action = Literal["deploy", "rollback"]
ACTIONS: tuple[Action, ...] = ("deploy", "rollback")
_UNCHANGING = frozenset({"same", "read", "refresh", "discard-replaced", "read-discard"})
_MEBIBYTE = 1024 * 1024


class MixedAnswersError(Exception):
    """The change is over by its command's word, and the old version still answers."""


@dataclass(frozen=True)
class Answer:
    """One request that was sent while something changed.

    Args:
        sent: Seconds since the command was started, negative before it.
        seconds: Until the answer was complete.
        code: HTTP status, 0 when there was no answer.
        tag: The version that answered.
    """

    sent: float
    seconds: float
    code: int
    tag: str


@dataclass(frozen=True)
class Change:
    """One release or one way back.

    Args:
        seconds: From the command's start to its end.
        last_old: From the command's start to the last answer of the version before.
        failed: Requests without a 200.
        sent: All requests.
    """

    seconds: float
    last_old: float
    failed: int
    sent: int


def change(answers: Sequence[Answer], seconds: float, old: str, new: str) -> Change:
    """Return what a change came to.

    Args:
        answers: To every request, from before the command to some time after it.
        seconds: How long the command took.
        old: The version before.
        new: The version after.

    Raises:
        MixedAnswersError: The last answers are not all of the new version.
    """
    good = [each for each in answers if each.code == HTTPStatus.OK]
    end = max((each.sent for each in good), default=0.0)
    late = sorted({each.tag for each in good if each.sent > end - 1 and each.tag != new})
    if not good or late:
        raise MixedAnswersError(f"at the end {' and '.join(late) or 'nothing'} answered beside {new}")
    last_old = max((each.sent + each.seconds for each in good if each.tag == old), default=0.0)
    return Change(seconds, max(last_old, 0.0), len(answers) - len(good), len(answers))


@dataclass(frozen=True)
class Row:
    """What one contestant did in all rounds.

    Args:
        contestant: Who.
        changes: Action → one change for each round that went well.
        failure: Why it was left out of further rounds, empty when it was not.
    """

    contestant: Contestant
    changes: Mapping[Action, tuple[Change, ...]]
    failure: str = ""

    def seconds(self, action: Action) -> float | None:
        """Return the median time to the command's end; None when nothing went well."""
        return _median([each.seconds for each in self.changes.get(action, ())])

    def last_old(self, action: Action) -> float | None:
        """Return the median time to the last answer of the version before."""
        return _median([each.last_old for each in self.changes.get(action, ())])


def times(ours: float | None, other: float | None) -> float | None:
    """Return how many times as long ours takes; None where one of the two was not measured."""
    return ours / other if ours is not None and other else None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


@dataclass(frozen=True)
class Circumstances:
    """What the figures depend on.

    Args:
        date: Day of the run.
        cores: CPU cores of the machine.
        memory_gib: Its memory.
        load: Load average (1 min) at the start and at the end.
        rate: Requests a second during a change.
        rounds: How often each change was made.
        versions: Program → version.
    """

    date: str
    cores: int
    memory_gib: float
    load: tuple[float, float]
    rate: int
    rounds: int
    versions: Mapping[str, str]


# Where the time of `release` goes.


@dataclass(frozen=True)
class EngineEvent:
    """An event of Pulumi's engine.

    Args:
        at: Seconds since the command was started, when it was seen in the engine's log.
        kind: `preludeEvent`, `resourcePreEvent`, `resOutputsEvent` and others.
        operation: Of a resource: `same`, `update`; empty for other events.
        type: Of a resource: `kubernetes:apps/v1:Deployment`.
    """

    at: float
    kind: str
    operation: str = ""
    type: str = ""

    @property
    def changes(self) -> bool:
        """Whether something in the cluster is changed."""
        return self.type.startswith("kubernetes:") and self.operation not in _UNCHANGING


def engine_event(at: float, line: str) -> EngineEvent | None:
    """Return what a line of the engine's event log tells; None when it is something else, or incomplete.

    Args:
        at: When it was seen.
        line: One JSON object.
    """
    try:
        event = plain_mapping(json.loads(line)) or {}
    except ValueError:
        return None
    kind = next((key for key in event if key.endswith("Event")), "")
    if not kind:
        return None
    about = plain_mapping((plain_mapping(event[kind]) or {}).get("metadata")) or {}
    return EngineEvent(at, kind, str(about.get("op", "")), str(about.get("type", "")))


def release_phases(events: Sequence[EngineEvent], parts: Sequence[Part], seconds: float) -> tuple[Phase, ...]:
    """Cut the time of one run of `release` at the engine's events and at the comings and goings of its processes.

    A stretch that a run does not have, such as pods that start when only traffic moves, has no length.

    Args:
        events: Of the engine, in order.
        parts: The processes.
        seconds: How long the command took.
    """
    begins = {part.name: part.start_seconds for part in parts}
    ends = {part.name: part.start_seconds + part.life_seconds for part in parts}
    resources = [each for each in events if each.kind == "resourcePreEvent"]
    outputs = [each for each in events if each.kind == "resOutputsEvent"]
    pods = [each for each in outputs if each.changes and each.type.endswith(":Deployment")]
    cuts: list[tuple[str, float | None]] = [
        ("`release` starts: Python, stack file, registry, lock, records", begins.get(ENGINE)),
        ("engine starts, opens the state", _first(each for each in events if each.kind == "preludeEvent")),
        ("program: what its loading takes longer, settings are read", _first(resources)),
        ("provider starts, resources are compared", _first(each for each in resources if each.changes)),
        ("pods: Deployments are changed and roll out", max((each.at for each in pods), default=None)),
        ("traffic and record move, the rest is compared", max((each.at for each in outputs), default=None)),
        ("last write of the state, plugins end", ends.get(ENGINE)),
        ("`release` reads the record and answers", seconds),
    ]
    phases: list[Phase] = []
    before = 0.0
    for name, cut in cuts:
        at = min(max(before, before if cut is None else cut), seconds)
        phases.append(Phase(name, at - before))
        before = at
    return tuple(phases)


def _first(events: Iterable[EngineEvent]) -> float | None:
    return next((each.at for each in events), None)


# The report.


@dataclass(frozen=True)
class Report:
    """Everything that one run found.

    Args:
        about: What the figures depend on.
        rows: A row for each contestant that took part.
        sizes: `release deploy` in stacks of several sizes, beside kubectl.
        profiles: Single runs of `release` that were looked into.
        notes: What else is to be known, such as a part that failed.
    """

    about: Circumstances
    rows: tuple[Row, ...]
    sizes: tuple[SizeFigures, ...] = ()
    profiles: tuple[Profile, ...] = ()
    notes: tuple[str, ...] = ()


def render(report: Report) -> str:
    """Return the report as Markdown."""
    parts = [_header(report.about)]
    parts += [_contest_table(report.rows, action) for action in ACTIONS if report.rows]
    failures = [f"- {row.contestant.title}: {_one_line(row.failure)}" for row in report.rows if row.failure]
    failures += [f"- {_one_line(note)}" for note in report.notes]
    parts += ["\n".join(["What failed:", "", *failures])] if failures else []
    parts += [_size_table(report.sizes)] if report.sizes else []
    goals = _goals(report)
    parts += [markdown_table(["goal", "at most", "measured"], goals)] if goals else []
    parts += [profile_tables(profile) for profile in report.profiles]
    return "\n\n".join(parts) + "\n"


def _goals(report: Report) -> list[list[str]]:
    """Return a line for each goal that was measured. Those beyond kubectl's are meant for a Kubernetes provider 4.x."""
    by_title = {row.contestant.title: row for row in report.rows}
    ours, kubectl = by_title.get(OURS_ROLLING.title), by_title.get(KUBECTL_ALONE.title)
    blue_green, argo = by_title.get(OURS_BLUE_GREEN.title), by_title.get(ARGO_BLUE_GREEN.title)
    lines: list[list[str]] = []
    deploys = [row.seconds("deploy") if row else None for row in (ours, kubectl)]
    if deploys[0] is not None and deploys[1] is not None:
        lines.append(["rolling `release deploy`: seconds beyond kubectl's", "2.0", f"{deploys[0] - deploys[1]:.1f}"])
    if report.sizes:
        smallest = report.sizes[0]
        what = f"`release deploy` without pods, {smallest.projects} projects: seconds beyond kubectl's"
        lines.append([what, "2.0", f"{_beyond(smallest):.1f}"])
    for what in ("seconds", "last_old"):
        pair = [getattr(row, what)("rollback") if row else None for row in (blue_green, argo)]
        found = times(pair[0], pair[1])
        if found is not None:
            name = "until the command returns" if what == "seconds" else "until the last old answer"
            lines.append([f"blue-green `release rollback`, {name}: times Argo Rollouts'", "1.0", f"{found:.1f}"])
    if len(report.sizes) > 1:
        first, last = report.sizes[0], report.sizes[-1]
        what = f"`release deploy` at {last.projects} projects: times that at {first.projects}"
        lines.append([what, "1.3", _times(last.timings[RELEASE], first.timings[RELEASE])])
    return lines


def _header(about: Circumstances) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    machine = f"{about.date}; {about.cores} cores, {about.memory_gib:.0f} GiB of memory, three nodes on it"
    start, end = about.load
    load = f"load average {start:.1f} at the start and {end:.1f} at the end, the cluster and the requests included"
    rounds = f"Rounds: {about.rounds}, in turn; {about.rate} requests a second, half of them on new connections"
    reading = "figures are the median in seconds, with the quickest and the slowest round"
    return "\n".join([f"{machine}; {load}.", f"Versions: {versions}.", f"{rounds}; {reading}."])


def _contest_table(rows: Sequence[Row], action: Action) -> str:
    """A row for each contestant; the ratios are those of the command's time and of the last old answer."""
    by_name = {row.contestant.gitea_name: row for row in rows}
    ours = [by_name.get(each.gitea_name) for each in (OURS_ROLLING, OURS_BLUE_GREEN)]
    lines: list[list[str]] = []
    for row in sorted(rows, key=lambda row: CONTESTANTS.index(row.contestant)):
        changes = row.changes.get(action, ())
        who = f"{row.contestant.title}: {getattr(row.contestant, action)}"
        if not changes:
            lines.append([who, *(["failed" if row.failure else "-"] * 3), "-", "-"])
            continue
        requests = f"{sum(each.failed for each in changes)} / {sum(each.sent for each in changes)}"
        figures = [_spread([each.seconds for each in changes]), _spread([each.last_old for each in changes])]
        lines.append([who, *figures, requests, *(_ratios(each, row, action) for each in ours)])
    heads = [
        action,
        "command returns, s",
        "last old answer, s",
        "failed / sent",
        "release, rolling: times its",
        "release, blue-green: times its",
    ]
    return markdown_table(heads, lines)


def _ratios(ours: Row | None, row: Row, action: Action) -> str:
    if ours is None or ours is row:
        return "-"
    pair = (times(ours.seconds(action), row.seconds(action)), times(ours.last_old(action), row.last_old(action)))
    return " / ".join("-" if each is None else f"{each:.1f}" for each in pair)


def _spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.1f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.1f}–{max(values):.1f})"  # noqa: RUF001 - a range


def _size_table(sizes: Sequence[SizeFigures]) -> str:
    first = sizes[0].timings[RELEASE]
    lines = [
        [RELEASE, *(_spread(each.timings[RELEASE].seconds) for each in sizes)],
        [KUBECTL, *(_spread(each.timings[KUBECTL].seconds) for each in sizes)],
        [f"{RELEASE}: CPU", *(f"{each.timings[RELEASE].cpu:.1f}" for each in sizes)],
        [f"{RELEASE}: times kubectl's", *(_times(each.timings[RELEASE], each.timings[KUBECTL]) for each in sizes)],
        [f"{RELEASE}: seconds beyond kubectl's", *(f"{_beyond(each):.1f}" for each in sizes)],
        [f"{RELEASE}: times that of the smallest stack", *(_times(each.timings[RELEASE], first) for each in sizes)],
        ["state, MiB", *(f"{each.state_bytes / _MEBIBYTE:.1f}" for each in sizes)],
    ]
    heads = [f"{each.projects} projects, {each.resources} resources" for each in sizes]
    return markdown_table(["one project, no pods", *heads], lines)


def _beyond(figures: SizeFigures) -> float:
    return figures.timings[RELEASE].median - figures.timings[KUBECTL].median


def _times(first: Timing, second: Timing) -> str:
    return f"{ratio(first, second):.1f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
