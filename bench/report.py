"""The tables that people read, and their place in the documentation. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Profile, SizeFigures, Timing, cpu_slope_milliseconds, ratio, slope_milliseconds

BEGIN = "<!-- bench: begin; written by `make bench WRITE=1`, do not edit -->"
END = "<!-- bench: end -->"
PREVIEW = "`pulumi preview`, no change"
UP = "`pulumi up`, new tag for one project"
TARGETED = "`pulumi up --target` that project"
KUBECTL = "`kubectl set image` + `rollout status`"
CREATE = "`pulumi up` that adds the projects"
_MEBIBYTE = 1024 * 1024


class MarkersMissingError(ValueError):
    """The document has no place for the tables."""


@dataclass(frozen=True)
class Circumstances:
    """What the figures depend on.

    Args:
        date: Day of the run.
        cores: CPU cores of the machine.
        memory_gib: Its memory.
        load: Load average (1 min) at the start: how much else the machine was doing.
        versions: Program → version.
        rounds: How often each command was timed.
    """

    date: str
    cores: int
    memory_gib: float
    load: float
    versions: dict[str, str]
    rounds: int


@dataclass(frozen=True)
class Results:
    """Everything that one run found.

    Args:
        circumstances: What the figures depend on.
        sizes: The stack at each size, the smallest first.
        startup: What every run begins with, each alone: command → what it took.
        pods: The same release with real pods, by command; empty when it was left out.
        profiles: Single runs that were looked into.
    """

    circumstances: Circumstances
    startup: dict[str, Timing]
    sizes: tuple[SizeFigures, ...]
    pods: dict[str, Timing]
    profiles: tuple[Profile, ...]


def render(results: Results, *, load_end: float) -> str:
    """Return the whole report as Markdown.

    Args:
        results: What was found.
        load_end: Load average (1 min) at the end of the run.
    """
    parts = [_header(results.circumstances, load_end), _release_table(results)]
    parts += [_slope_table(results.sizes), _startup_table(results.startup)]
    parts += [profile_tables(profile) for profile in results.profiles]
    return "\n\n".join(part for part in parts if part) + "\n"


def replace_section(document: str, section: str, markers: tuple[str, str] = (BEGIN, END)) -> str:
    """Return the document with the part between two markers replaced.

    Args:
        document: The whole text.
        section: What comes between the markers.
        markers: The line before it and the line after it.

    Raises:
        MarkersMissingError: If a marker is missing, or they are in the wrong order.
    """
    first, last = markers
    begin, end = document.find(first), document.find(last)
    if begin < 0 or end < begin:
        raise MarkersMissingError(f"the document needs the lines {first!r} and {last!r}, in this order: add them")
    return f"{document[: begin + len(first)]}\n\n{section.strip()}\n\n{document[end:]}"


def _header(about: Circumstances, load_end: float) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    machine = f"{about.date}; {about.cores} cores, {about.memory_gib:.0f} GiB of memory"
    load = f"load average {about.load:.1f} at the start and {load_end:.1f} at the end, the cluster included"
    order = f"Rounds: {about.rounds}, in turn (preview, up, kubectl, up --target, kubectl, and again)"
    reading = "figures are the median in seconds, with the quickest and the slowest round"
    setup = "the smallest stack was made by `pulumi up`, the larger ones by importing a copied state and kubectl"
    return "\n".join([f"{machine}; {load}.", f"Versions: {versions}.", f"{order}; {reading}; {setup}."])


def _release_table(results: Results) -> str:
    """The main table: a row for each command, a column for each size, and how it compares to kubectl."""
    rows: list[list[str]] = []
    for command in (PREVIEW, UP, TARGETED, KUBECTL, CREATE):
        cells = [_timing(each.timings.get(command)) for each in results.sizes]
        rows.append([command, *cells, _timing(results.pods.get(command))])
    for command in (PREVIEW, UP, TARGETED, KUBECTL):
        cells = [_cpu(each.timings.get(command)) for each in results.sizes]
        rows.append([f"{command}: CPU", *cells, _cpu(results.pods.get(command))])
    for command in (UP, TARGETED):
        ratios = [_ratio(each.timings.get(command), each.timings.get(KUBECTL)) for each in results.sizes]
        pods = _ratio(results.pods.get(command), results.pods.get(KUBECTL))
        rows.append([f"{command}: times kubectl's", *ratios, pods])
    rows.append(["state, MB", *(f"{each.state_bytes / 1e6:.1f}" for each in results.sizes), "-"])
    heads = [f"{each.projects} projects, {each.resources} resources" for each in results.sizes]
    return markdown_table(["", *heads, "2 real pods, smallest stack"], rows)


def _slope_table(sizes: Sequence[SizeFigures]) -> str:
    rows: list[list[str]] = []
    for command in (PREVIEW, UP, TARGETED):
        slopes = (slope_milliseconds(sizes, command), cpu_slope_milliseconds(sizes, command))
        if slopes[0] is not None:
            rows.append([command, *("-" if slope is None else f"{slope:.1f}" for slope in slopes)])
    return markdown_table(["each further resource costs", "ms", "ms of CPU"], rows) if rows else ""


def _startup_table(startup: dict[str, Timing]) -> str:
    rows = [[command, _timing(timing), _cpu(timing)] for command, timing in startup.items()]
    return markdown_table(["part of every run, alone", "s", "CPU s"], rows) if rows else ""


def profile_tables(profile: Profile) -> str:
    """Return where the time of one run went, as Markdown with a heading."""
    title = f"Where the time goes: {profile.command}, {profile.projects} projects, one run of {profile.seconds:.1f} s"
    phases = [[phase.name, f"{phase.seconds:.1f}"] for phase in profile.phases]
    parts = [
        [
            part.name,
            f"{part.start_seconds:.1f}",
            f"{part.life_seconds:.1f}",
            f"{part.cpu_seconds:.1f}",
            f"{part.peak_bytes / _MEBIBYTE:.0f}",
        ]
        for part in sorted(profile.parts, key=lambda part: part.start_seconds)
    ]
    process_heads = ["process", "starts at s", "lives s", "CPU s", "peak MiB"]
    tables = [markdown_table(["stretch", "s"], phases), markdown_table(process_heads, parts)]
    return f"### {title}\n\n" + "\n\n".join(tables)


def _timing(timing: Timing | None) -> str:
    if timing is None:
        return "-"
    if len(timing.seconds) == 1:
        return f"{timing.median:.1f}"
    low, high = timing.spread
    return f"{timing.median:.1f} ({low:.1f}–{high:.1f})"  # noqa: RUF001 - a range


def _cpu(timing: Timing | None) -> str:
    return f"{timing.cpu:.1f}" if timing else "-"


def _ratio(first: Timing | None, second: Timing | None) -> str:
    return f"{ratio(first, second):.1f}" if first and second else "-"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns line up in plain text too; all but the first are right-aligned."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(heads), f"|{rule}|", *(line(row) for row in rows)])
