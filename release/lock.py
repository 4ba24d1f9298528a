"""Who holds the stack's lock, and whether its holder is gone.

Pulumi's own backends (a folder, object storage) keep a lock as one JSON file per holder, and fail at once when there
is another: https://github.com/pulumi/pulumi/blob/master/pkg/backend/diy/lock.go. The command waits instead.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from model.fields import plain_mapping

_SLACK_SECONDS = 2.0
_PID_NAMESPACE = "/proc/self/ns/pid"
_FIRST_NAMESPACE = "pid:[4026531836]"
"""The one in which the machine was started: ``PROC_PID_INIT_INO`` in include/linux/proc_ns.h."""
_TOLD = re.compile(r"(?P<url>\S+): created by (?P<user>\S+)@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<at>\S+)")


@dataclass(frozen=True)
class Lock:
    """One lock of a stack.

    Args:
        name: Its file's name, or URL where the backend is no folder.
        user: Who holds it.
        host: Where.
        pid: Of the ``pulumi`` there.
        since: When it was taken.
    """

    name: str
    user: str
    host: str
    pid: int
    since: datetime

    def __str__(self) -> str:
        return f"{self.user}@{self.host} (pid {self.pid}) since {self.since.astimezone():%Y-%m-%d %H:%M:%S}"


@dataclass(frozen=True)
class Host:
    """What decides whether a lock's holder is gone.

    Args:
        name: Of this host.
        booted: When it was started.
        processes: Pid → when that process was started, for all that run.
        sure: Whether who names this host runs where these processes are: not in another container, nor on another
            machine of the same name.
    """

    name: str
    booted: datetime
    processes: Mapping[int, datetime]
    sure: bool = True


def is_stale(lock: Lock, host: Host) -> bool:
    """Tell whether a lock's holder ran on this host and this boot and is gone. Pure.

    A number that was given to another process since does not count as the holder; a lock of an earlier boot is left to
    a person, as the clock may have been wrong then.
    """
    if not host.sure or lock.host != host.name or lock.since < host.booted:
        return False
    started = host.processes.get(lock.pid)
    return started is None or (started - lock.since).total_seconds() > _SLACK_SECONDS


def locks_told(output: str) -> list[Lock]:
    """Return the locks that an error of pulumi lists. Pure."""
    return [
        Lock(each["url"], each["user"], each["host"], int(each["pid"]), datetime.fromisoformat(each["at"]))
        for each in _TOLD.finditer(output)
    ]


def parse_lock(name: str, text: str) -> Lock | None:
    """Return a lock from its file's text; None when it is not readable, as while it is being written. Pure."""
    try:
        content = plain_mapping(json.loads(text)) or {}
        since = datetime.fromisoformat(str(content["timestamp"]))
        return Lock(name, str(content["username"]), str(content["hostname"]), int(content["pid"]), since)
    except (ValueError, KeyError, TypeError):
        return None


def locks_in(folder: Path) -> list[Lock]:
    """Return the locks of a stack in a backend that is a folder.

    Args:
        folder: The stack's own: ``<backend>/.pulumi/locks/organization/<project>/<stack>``.
    """
    found: list[Lock] = []
    for path in sorted(folder.glob("*.json")):
        try:
            lock = parse_lock(path.name, path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        if lock:
            found.append(lock)
    return found


def this_host(pids: Iterable[int], *, sure: bool = False) -> Host:
    """Return this host with those of the processes that run.

    Args:
        pids: The processes that matter.
        sure: Whether something else than the name tells that the holders of locks ran here.
    """
    booted = _booted()
    started = {pid: _started(pid, booted) for pid in pids}
    running = {pid: at for pid, at in started.items() if at}
    name = socket.gethostname()
    return Host(name, booted, running, sure or not _may_be_anothers(name))


def _may_be_anothers(name: str) -> bool:
    """Tell whether others may have this name: a container in the host's network has the host's, but pids of its own."""
    if name.partition(".")[0] == "localhost":
        return True
    try:
        return Path(_PID_NAMESPACE).readlink().name != _FIRST_NAMESPACE
    except OSError:
        return False  # there are none without Linux


def _booted() -> datetime:
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        return datetime.fromtimestamp(int(next(line.split()[1] for line in lines if line.startswith("btime"))), UTC)
    except OSError:
        # Without /proc nothing is known of an earlier boot: no lock is older than this, so a dead pid decides.
        return datetime.fromtimestamp(0, UTC)


def _started(pid: int, booted: datetime) -> datetime | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return booted if not Path("/proc/stat").exists() and _answers(pid) else None
    except (ProcessLookupError, PermissionError):
        return None
    fields = text.rpartition(")")[2].split()
    if fields[0] == "Z":  # ended, and not collected by its parent
        return None
    return datetime.fromtimestamp(booted.timestamp() + int(fields[19]) / os.sysconf("SC_CLK_TCK"), UTC)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
