"""Running a command while looking at what it starts: when each process came and went, its CPU time, its memory."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Part
from devcluster import process_tree

LOOK_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
PROGRAM = "program (Python)"
ENGINE = "engine (pulumi)"
RELEASE = "`release` (Python)"
_NAMES = (
    ("pip", "pip list (asked by the language host for plugins)"),
    ("pulumi-language-python-exec", PROGRAM),
    ("language_host.py", PROGRAM),
    ("pulumi-language-python", "language host"),
    ("pulumi-resource-kubernetes", "Kubernetes provider"),
    ("pulumi", ENGINE),
    ("guard.py", "guard of `release`"),
    ("release", RELEASE),
)
"""Word of a command line → what the process is for; the first that fits."""


@dataclass(frozen=True)
class Watched:
    """A command that was watched.

    Args:
        code: Its exit code.
        seconds: How long it took.
        lines: What it wrote to standard output, each line with the seconds since the start.
        errors: What it wrote to standard error.
        parts: The processes that it was made of.
    """

    code: int
    seconds: float
    lines: tuple[tuple[float, str], ...]
    errors: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Seen:
    command_line: tuple[str, ...]
    start_ticks: int
    last_seconds: float
    cpu_ticks: int
    peak_bytes: int


def run(command: Sequence[str], folder: Path, variables: Mapping[str, str], limit: float) -> tuple[int, str, str]:
    """Run a command to its end, and leave nothing of it behind when it is interrupted.

    Args:
        command: Its argument list.
        folder: Where it runs.
        variables: Its whole environment.
        limit: Seconds after which it is killed.

    Returns:
        Exit code, standard output and standard error.
    """
    with _started(command, folder, variables) as process:
        timer = threading.Timer(limit, process_tree.end, [process.pid])
        timer.start()
        try:
            out, err = process.communicate()
        finally:
            timer.cancel()
    return process.returncode, out, err


@contextlib.contextmanager
def _started(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Generator[subprocess.Popen[str]]:
    """Start a command in a session of its own, and end all of the session if the body does not get to its end."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:
            process_tree.end(process.pid)
            raise


def watch(command: Sequence[str], folder: Path, variables: Mapping[str, str], limit: float) -> Watched:
    """Run a command to its end and watch it.

    Args:
        command: Its argument list.
        folder: Where it runs.
        variables: Its whole environment.
        limit: Seconds after which it is killed.
    """
    launched_ticks = time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS
    started = time.monotonic()
    lines: list[tuple[float, str]] = []
    errors: list[str] = []
    seen: dict[tuple[int, int], _Seen] = {}
    with _started(command, folder, variables) as process:
        out, err = process.stdout, process.stderr
        if out is None or err is None:
            raise RuntimeError("a pipe that was asked for is missing")
        readers = [
            threading.Thread(target=lambda: lines.extend((time.monotonic() - started, line) for line in out)),
            threading.Thread(target=lambda: errors.extend(err)),
        ]
        for reader in readers:
            reader.start()
        while process.poll() is None:
            _look(process.pid, seen, time.monotonic() - started)
            time.sleep(LOOK_SECONDS)
            if time.monotonic() - started > limit:
                process_tree.end(process.pid)
        seconds = time.monotonic() - started
        for reader in readers:
            reader.join()
    parts = tuple(_part(each, launched_ticks) for each in seen.values())
    return Watched(process.returncode, seconds, tuple(lines), "".join(errors), _together(parts))


def _look(root: int, seen: dict[tuple[int, int], _Seen], at: float) -> None:
    """Note every process below `root`, and those that were below it before and lost their parent."""
    there = dict(process_tree.all_processes())
    known = {pid for pid, start in seen if pid in there and there[pid].start_ticks == start}
    for pid in process_tree.with_children(there, {root} | known) & there.keys():
        start, cpu = there[pid].start_ticks, there[pid].cpu_ticks
        with contextlib.suppress(OSError):
            words = tuple(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0"))
            earlier = seen.get((pid, start))
            if words == ("",):  # ended, and not yet collected by its parent
                continue
            peak = max(_peak_bytes(pid), earlier.peak_bytes if earlier else 0)
            seen[pid, start] = _Seen(words, start, at, cpu, peak)


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def part_name(command_line: Sequence[str]) -> str:
    """Return what a process is for, by its command line. Pure."""
    names = {Path(word).name for word in command_line[:4]}
    return next((name for word, name in _NAMES if word in names), f"other: {Path(command_line[0]).name}")


def _part(seen: _Seen, launched_ticks: float) -> Part:
    start = max((seen.start_ticks - launched_ticks) / _TICKS, 0.0)
    life = max(seen.last_seconds - start, 0.0)
    return Part(part_name(seen.command_line), start, life, seen.cpu_ticks / _TICKS, seen.peak_bytes)


def _together(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Put processes of one kind together: from the first start to the last end, CPU summed, the biggest memory."""
    names = dict.fromkeys(part.name for part in parts)
    groups = [[part for part in parts if part.name == name] for name in names]
    return tuple(
        Part(
            name=group[0].name,
            start_seconds=(start := min(part.start_seconds for part in group)),
            life_seconds=max(part.start_seconds + part.life_seconds for part in group) - start,
            cpu_seconds=sum(part.cpu_seconds for part in group),
            peak_bytes=max(part.peak_bytes for part in group),
        )
        for group in groups
    )
