"""One release of a stack at a time on this host: the second waits here, before it starts anything.

The kernel gives the lock back when its last holder is gone, however that ended; the guard of a running ``pulumi``
inherits it, so it stays held until nothing of the run is left. Releases of other hosts are kept apart by Pulumi's own
lock (``lock.py``).

Who holds the stack ends what a killed run left, by its mark and wherever on the host it is (``pulumi.end_leftovers``).
So the lock must be one for all runs of a user: its place depends on no variable (TMPDIR) and no kind of session
(``/run/user``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from release.errors import LockedError, RefusedError

POLL_SECONDS = 0.1
FOLDER = Path(f"/tmp/package-platform-release-{os.getuid()}")  # noqa: S108 - ``_opened`` makes sure whose it is


@dataclass
class Hold:
    """The hold on a stack.

    Args:
        descriptor: Of the lock.
        cut_off: Whether the run before, in this place, did not come to its end: it may have left Pulumi's lock behind.
        killed: Whether this one has killed pulumi, which leaves as much behind.
    """

    descriptor: int
    cut_off: bool = False
    killed: bool = False


@contextlib.contextmanager
def held(key: str, what: str, wait: Callable[[str], bool]) -> Generator[Hold]:
    """Hold the stack on this host for as long as the context lasts.

    Args:
        key: The stack's.
        what: What this process does, and for whom; those who wait for it are told, with its pid and since when.
        wait: Called with who holds it, again and again; sleeps a little, and answers whether to go on waiting.

    Raises:
        LockedError: When ``wait`` has enough.
        RefusedError: If the place of the lock can't be trusted.
    """
    descriptor = _opened(FOLDER, f"{key[:32]}.lock")
    try:
        while not _locked(descriptor):
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another release"
            if not wait(holder):
                raise LockedError(f"the stack is held by {holder}")
        # Who comes to an end takes its name out again.
        hold = Hold(descriptor, cut_off=os.fstat(descriptor).st_size > 0)
        os.ftruncate(descriptor, 0)
        since = f"{datetime.now(UTC).astimezone():%Y-%m-%d %H:%M:%S}"
        os.pwrite(descriptor, f"{what} (pid {os.getpid()}) since {since}".encode(), 0)
        try:
            yield hold
        finally:
            if not hold.killed:
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _opened(folder: Path, name: str) -> int:
    """Open a file of a folder that only this user can write to; both are made where they are not there.

    Anybody can make something of that name in ``/tmp``, and what is behind a link would be emptied.
    """
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(inside)
            if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError("others can write to it")
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=inside)
        finally:
            os.close(inside)
    except OSError as error:
        reason = error.strerror or error
        raise RefusedError(
            f"{folder}: the lock of this host can't be kept there ({reason}): it must be a folder that only uid "
            f"{os.getuid()} can write to; remove it, and run the same command again"
        ) from None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
