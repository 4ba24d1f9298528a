"""Runs one command so that nothing of it outlives the process that wanted it, however that one ends.

Started as a plain script in a session of its own (``python -I -S guard.py CONTROL FOLDER -- COMMAND…``), it imports
little: a release waits for it. It adopts every process that the command leaves behind (Linux' child subreaper), and
ends them. Its parent speaks to it through a pipe:

- a byte ``i`` asks the command to stop (SIGINT: pulumi cancels what runs, saves its state, gives its lock back),
- a byte ``k`` kills all of it,
- the end of the pipe means that the parent is gone: stop, then kill after ``GRACE_SECONDS``, and remove FOLDER.

Descriptors that it inherits stay open until it ends, and are not passed on to the command: a lock held by one is held
until nothing of the command is left.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import time

GRACE_SECONDS = 20.0
POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_DESCRIPTORS = 1024
_LINUX = sys.platform == "linux"


def main(arguments: list[str]) -> int:
    """Run the command to its end, and return its exit code (128 + signal where one ended it)."""
    control, folder, command = int(arguments[0]), arguments[1], arguments[3:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.set_blocking(control, False)
    child = _start(command)
    code, orphaned = _follow(child, control)
    _end_children()
    if orphaned:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _start(command: list[str]) -> int:
    """Start the command in a process group of its own; should this process be killed, it is asked to stop."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.closerange(sys.stderr.fileno() + 1, _DESCRIPTORS)
        if _LINUX:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
        os.execvp(command[0], command)  # noqa: S606 - becomes the command
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201 - for the parent's reader
    os._exit(127)


def _follow(child: int, control: int) -> tuple[int, bool]:
    """Wait for the command while listening to the parent; tells the exit code, and whether the parent is gone."""
    waiting = [control]
    deadline = float("inf")
    if hasattr(os, "pidfd_open"):
        waiting.append(os.pidfd_open(child))
    orphaned = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _code(status), orphaned
        timeout = 1.0 if len(waiting) > 1 or orphaned else POLL_SECONDS
        ready, _, _ = select.select(waiting, [], [], timeout)
        if control in ready:
            said = os.read(control, 64)
            if not said:
                orphaned = True
                deadline = time.monotonic() + GRACE_SECONDS
                waiting.remove(control)
            _signal_group(child, signal.SIGKILL if b"k" in said else signal.SIGINT)
        if time.monotonic() > deadline:
            _signal_group(child, signal.SIGKILL)


def _signal_group(child: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, number)


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end_children() -> None:
    """Kill what the command left: its orphans are this process' children, and theirs follow when they are gone."""
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS / 10)


def _children() -> list[int]:
    """Return this process' children; `proc(5)`, field 4 of `/proc/<pid>/stat` is the parent."""
    own, found = os.getpid(), list[int]()
    for entry in os.scandir("/proc") if _LINUX else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                file = os.open(f"/proc/{entry.name}/stat", os.O_RDONLY)
                parent = os.read(file, 4096).rpartition(b")")[2].split()[1]
                os.close(file)
                if int(parent) == own:
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
