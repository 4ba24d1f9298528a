"""What is counted, and what is told of it. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MILLISECONDS = 1000.0


@dataclass(frozen=True)
class Sample:
    """What a command took once.

    Args:
        seconds: By the clock.
        cpu_seconds: CPU time of the command and of all that it started and waited for; what a busy machine changes
            least.
    """

    seconds: float
    cpu_seconds: float

    def __add__(self, other: "Sample") -> "Sample":
        """Return what both took, one after the other."""
        return Sample(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


@dataclass(frozen=True)
class Timing:
    """What the same command took in several rounds.

    Args:
        samples: One for each round.
    """

    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> tuple[float, ...]:
        """The clock's figures."""
        return tuple(sample.seconds for sample in self.samples)

    @property
    def cpu(self) -> float:
        """The CPU time in the middle, in seconds."""
        return statistics.median(sample.cpu_seconds for sample in self.samples)

    @property
    def median(self) -> float:
        """The figure in the middle, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The quickest and the slowest round, in seconds."""
        return min(self.seconds), max(self.seconds)


@dataclass(frozen=True)
class Part:
    """A process that took part in a command.

    Args:
        name: What it is for.
        start_seconds: When it began, from the start of the command.
        life_seconds: How long it was there.
        cpu_seconds: CPU time that it used.
        peak_bytes: The most memory that it held at once (resident set).
    """

    name: str
    start_seconds: float
    life_seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Phase:
    """A stretch of a command's time.

    Args:
        name: What went on.
        seconds: How long.
    """

    name: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    """One run that was looked into.

    Args:
        command: What was run, for people.
        projects: Projects of the stack.
        seconds: How long it took, with the looking.
        phases: Its stretches, which add up to `seconds`.
        parts: Its processes.
    """

    command: str
    projects: int
    seconds: float
    phases: tuple[Phase, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class SizeFigures:
    """What was measured at one size of the stack.

    Args:
        projects: Projects of the stack.
        resources: Resources in its state.
        state_bytes: Size of its state as a backend keeps it, in compact JSON.
        timings: Command → what it took.
    """

    projects: int
    resources: int
    state_bytes: int
    timings: Mapping[str, Timing]


def ratio(first: Timing, second: Timing) -> float:
    """Return how many times as long the first one takes, by the medians."""
    return first.median / second.median


def slope_milliseconds(sizes: Sequence[SizeFigures], command: str) -> float | None:
    """Return what one more resource costs a command, in milliseconds; None when there is only one size."""
    return _slope([(each.resources, each.timings[command].median) for each in sizes if command in each.timings])


def cpu_slope_milliseconds(sizes: Sequence[SizeFigures], command: str) -> float | None:
    """Return the same for the CPU time of a command."""
    return _slope([(each.resources, each.timings[command].cpu) for each in sizes if command in each.timings])


def _slope(points: Sequence[tuple[int, float]]) -> float | None:
    if len({resources for resources, _ in points}) < 2:  # noqa: PLR2004 - a line needs two points
        return None
    fit = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    return fit.slope * MILLISECONDS


def phases_of(events: Sequence[tuple[float, str]], program_start: float, seconds: float) -> tuple[Phase, ...]:
    """Cut a command's time at the engine's events.

    The SDK tells the engine of the stack only when the program first waits for an answer, which is after it has
    imported everything, read its settings and asked the registry; so all of that lies before the first resource.

    Args:
        events: Seconds since the start and kind of event, in the order in which they were told.
        program_start: When the Python process began, in seconds since the start.
        seconds: How long the command took.
    """

    def first(kind: str, otherwise: float) -> float:
        return next((at for at, each in events if each == kind), otherwise)

    begun = first("preludeEvent", seconds)
    registered = first("resourcePreEvent", seconds)
    # The stack itself is the first resource, what the program declares comes after it.
    declared = next(iter([at for at, each in events if each == "resourcePreEvent"][1:2]), seconds)
    done = max((at for at, each in events if each in _RESOURCE_EVENTS), default=seconds)
    return (
        Phase("engine starts, opens the state and the stack file", begun),
        Phase("plugins are looked up", max(program_start - begun, 0.0)),
        Phase(
            "program starts: SDKs are imported, settings and registry are read",
            registered - max(program_start, begun),
        ),
        Phase("records of what runs are read, manifests are rendered, the provider starts", declared - registered),
        Phase("resources are compared and changed", max(done - declared, 0.0)),
        Phase("last write of the state, plugins end", seconds - max(done, declared)),
    )


_RESOURCE_EVENTS = ("resourcePreEvent", "resOutputsEvent")
