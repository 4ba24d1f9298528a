"""The table of what the ingress loses, and how it is written. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.report import markdown_table

BEGIN = "<!-- ingress: begin; written by `make bench-ingress WRITE=1`, do not edit -->"
END = "<!-- ingress: end -->"


@dataclass(frozen=True)
class Lost:
    """What became of one stream of requests.

    Args:
        failed: Requests without a 200.
        sent: All requests.
        seconds: From the first that failed to the last one; 0 when fewer than two did.
        silent: Seconds of the longest time in which none was answered.
    """

    failed: int
    sent: int
    seconds: float
    silent: float

    def __str__(self) -> str:
        return f"{self.failed} / {self.sent}"


@dataclass(frozen=True)
class Outcome:
    """What one event cost.

    Args:
        event: What happened, for people.
        fresh: Through the VIP, each request on a connection of its own.
        kept: Through the VIP, on connections that were used again.
        both: The two together.
        baseline: Both kinds of request to the single proxy; None when it has no such event.
    """

    event: str
    fresh: Lost
    kept: Lost
    both: Lost
    baseline: Lost | None


@dataclass(frozen=True)
class Circumstances:
    """What the figures depend on.

    Args:
        date: Day of the run.
        cores: CPU cores of the machine.
        memory_gib: Its memory.
        load: Load average (1 min) at the start and at the end.
        rate: Requests a second to the VIP, and as many to the single proxy.
        versions: Program → version.
    """

    date: str
    cores: int
    memory_gib: float
    load: tuple[float, float]
    rate: int
    versions: Mapping[str, str]


def render(outcomes: Sequence[Outcome], about: Circumstances) -> str:
    """Return the report as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    machine = f"{about.date}; {about.cores} cores, {about.memory_gib:.0f} GiB of memory, three nodes on it"
    start, end = about.load
    load = f"load average {start:.1f} at the start and {end:.1f} at the end, the cluster and the requests included"
    rate = f"{about.rate} requests a second to each side, half of them on new connections, half of them POSTs"
    reading = "failed / sent, the seconds from the first failure to the last, and the longest time without any answer"
    lines = [f"{machine}; {load}.", f"Versions: {versions}. {rate}; {reading}."]
    ours = ["new connections", "kept-alive", "s of errors", "s without answer"]
    heads = ["event", *ours, "one proxy, no VIP", "s of errors ", "s without answer "]
    return "\n".join(lines) + "\n\n" + markdown_table(heads, [_row(each) for each in outcomes]) + "\n"


def _row(outcome: Outcome) -> list[str]:
    other = [str(outcome.baseline), *_seconds(outcome.baseline)] if outcome.baseline else ["-"] * 3
    return [outcome.event, str(outcome.fresh), str(outcome.kept), *_seconds(outcome.both), *other]


def _seconds(lost: Lost) -> list[str]:
    return [f"{lost.seconds:.1f}", f"{lost.silent:.1f}"]
