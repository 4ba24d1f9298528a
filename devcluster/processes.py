"""Finding and ending exactly the processes that belong to a machine of an instance.

Every process of a machine carries a mark in its environment from the moment it exists (the machine's own
directory, see `MARK`), so it is found after any crash, without a record that could be lost or go stale, and
a number that was given to another process since is never taken for it: the process is held by a pidfd, and
its mark is read again through that hold, before it is sent a signal.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "PACKAGE_PLATFORM_MACHINE"
END_SECONDS = 10.0
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class MarkedProcess:
    """A process of a machine.

    Args:
        pid: its number on the host.
        mark: the directory of its machine.
        is_init: whether it is the first process of the machine's PID namespace.
        start_ticks: its start time since boot, in clock ticks.
    """

    pid: int
    mark: str
    is_init: bool
    start_ticks: int


class StuckProcessError(RuntimeError):
    """A process that was killed does not end."""


def marked(directory: Path | None = None) -> list[MarkedProcess]:
    """Return the processes of the machine whose disk is `directory`, or of all machines."""
    found = [_inspect(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    wanted = None if directory is None else str(directory)
    return [process for process in found if process and (wanted is None or process.mark == wanted)]


def init_of(directory: Path) -> MarkedProcess | None:
    """Return the first process of a machine, or nothing when the machine is off."""
    return next((process for process in marked(directory) if process.is_init), None)


def end_all(directory: Path) -> int:
    """Cut a machine's power: kill its processes and wait until they are gone.

    Returns:
        How many there were.

    Raises:
        StuckProcessError: some are still there after 10 s.
    """
    first = marked(directory)
    deadline = time.monotonic() + END_SECONDS
    while remaining := marked(directory):
        # The first process takes everything in its namespace with it, also what carries no mark (pods).
        for process in sorted(remaining, key=lambda process: not process.is_init):
            _kill(process)
        if time.monotonic() > deadline:
            numbers = " ".join(str(process.pid) for process in remaining)
            raise StuckProcessError(f"processes {numbers} of {directory.name} do not end: look at `ps -l {numbers}`")
        time.sleep(POLL_SECONDS)
    return len(first)


def _kill(process: MarkedProcess) -> None:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if _inspect(process.pid) == process:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _inspect(pid: int) -> MarkedProcess | None:
    """Return the process if it is marked; a zombie has no environment and counts as gone."""
    prefix = f"{MARK}=".encode()
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        mark = next((entry[len(prefix) :] for entry in environment if entry.startswith(prefix)), None)
        if mark is None:
            return None
        status = Path(f"/proc/{pid}/status").read_text()
        start_ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    is_init = len(numbers) > 1 and numbers[-1] == "1"
    return MarkedProcess(pid, mark.decode(errors="replace"), is_init, start_ticks)
