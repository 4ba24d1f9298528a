"""The table of what heals by itself, and how it is written. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.ingress_figures import Circumstances
from bench.report import markdown_table

BEGIN = "<!-- healing: begin; written by `make bench-healing WRITE=1`, do not edit -->"
END = "<!-- healing: end -->"


@dataclass(frozen=True)
class Healed:
    """What one event did to one application.

    Args:
        seconds: From the event until all its pods were ready without those that were lost; 0 when none was lost, None
            when it did not come to that while it was looked at.
        looked: Seconds for which it was looked at.
        failed: Requests without a 200.
        sent: All requests.
    """

    seconds: float | None
    looked: float
    failed: int
    sent: int

    def cells(self) -> list[str]:
        """Return the two cells of the table."""
        if self.seconds is None:
            time = f"not in {self.looked:.0f}"
        else:
            time = f"{self.seconds:.0f}" if self.seconds else "none lost"
        return [time, f"{self.failed} / {self.sent}"]


@dataclass(frozen=True)
class Outcome:
    """What one event did.

    Args:
        event: What happened, for people.
        ours: To the project.
        plain: To the plain Deployment; None when it has nothing that could be broken so.
    """

    event: str
    ours: Healed
    plain: Healed | None


def render(outcomes: Sequence[Outcome], about: Circumstances) -> str:
    """Return the report as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    machine = f"{about.date}; {about.cores} cores, {about.memory_gib:.0f} GiB of memory, three nodes on it"
    start, end = about.load
    load = f"load average {start:.1f} at the start and {end:.1f} at the end, the cluster and the requests included"
    rate = f"Up to {about.rate} requests a second to each side, half of them on new connections, half of them POSTs"
    lines = [f"{machine}; {load}.", f"Versions: {versions}. {rate}."]
    heads = ["event", "s to healthy", "failed / sent", "plain: s to healthy", "plain: failed / sent"]
    rows = [[each.event, *each.ours.cells(), *(each.plain.cells() if each.plain else ["-", "-"])] for each in outcomes]
    return "\n".join(lines) + "\n\n" + markdown_table(heads, rows) + "\n"
