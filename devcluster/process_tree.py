"""Ending a command with all that it started: each of `pulumi`'s plugins leads a process group of its own.

So killing `pulumi` or its group leaves them behind. They stay below it, and in its session where it leads one.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Seen:
    """A process as the kernel lists it: proc(5), /proc/pid/stat.

    Args:
        parent: number of its parent.
        session: number of its session's leader.
        start_ticks: its start time since boot, in clock ticks; tells it from another one that got its number.
        cpu_ticks: its CPU time.
    """

    parent: int
    session: int
    start_ticks: int
    cpu_ticks: int


def all_processes() -> Iterator[tuple[int, Seen]]:
    """Yield the number of every process, and what it is; nothing where there is no /proc."""
    entries = Path("/proc").iterdir() if Path("/proc").exists() else iter(())
    for entry in entries:
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            cpu = int(fields[11]) + int(fields[12])
            yield int(entry.name), Seen(int(fields[1]), int(fields[3]), int(fields[19]), cpu)


def with_children(found: Mapping[int, Seen], roots: AbstractSet[int]) -> set[int]:
    """Return some processes and all below them. Pure.

    Args:
        found: number of every process that there is → what it is.
        roots: numbers of some.
    """
    family = set(roots)
    while more := {pid for pid, each in found.items() if each.parent in family} - family:
        family |= more
    return family


def end(leader: int) -> None:
    """Kill a process that this one started, all below it, and all of its session where it leads one.

    Args:
        leader: its number; it is not collected yet, so the number is still its own.
    """
    found = dict(all_processes())
    family = with_children(found, {leader} | {pid for pid, each in found.items() if each.session == leader})
    # It goes first: what is killed below it could be started anew by it.
    for pid in (leader, *(family - {leader})):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def communicate(process: subprocess.Popen[str], text: str | None, seconds: float) -> tuple[str, str]:
    """Wait for a command, and return what it wrote to its pipes; when the wait does not end well, the command is ended.

    Args:
        process: the command.
        text: given to its standard input where that is a pipe.
        seconds: how long it may take.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    try:
        output, errors = process.communicate(text, timeout=seconds)
    except BaseException:
        end(process.pid)
        raise
    return output or "", errors or ""


def heed_interrupts() -> None:
    """Take SIGINT as usual also where a shell has begun this in the background, which has it ignored.

    What is started inherits that, and `pulumi` ends its plugins by SIGINT: in every run (seen in 3.259, when the
    language host has told about itself) it waits five seconds for one that ignores it, and kills it then.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
