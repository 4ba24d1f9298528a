"""One release of a stack at a time on this host: the second waits here, before it starts anything.

The kernel gives the lock back when its last holder is gone, however that ended; the guard of a running ``pulumi``
inherits it, so it stays held until nothing of the run is left. Releases of other hosts are kept apart by Pulumi's own
lock (``lock.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path

from release.errors import LockedError

POLL_SECONDS = 0.1


@contextlib.contextmanager
def held(key: str, what: str, wait: Callable[[str], bool]) -> Generator[int]:
    """Hold the stack on this host for as long as the context lasts; yields the lock's descriptor.

    Args:
        key: The stack's.
        what: What this process does, and for whom; those who wait for it are told, with its pid and since when.
        wait: Called with who holds it, again and again; sleeps a little, and answers whether to go on waiting.

    Raises:
        LockedError: When ``wait`` has enough.
    """
    folder = Path(tempfile.gettempdir()) / f"package-platform-release-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise LockedError(f"{folder} belongs to another user: remove it")
    descriptor = os.open(folder / f"{key[:32]}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(descriptor):
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another release"
            if not wait(holder):
                raise LockedError(f"the stack is held by {holder}")
        os.ftruncate(descriptor, 0)
        since = f"{datetime.now(UTC).astimezone():%Y-%m-%d %H:%M:%S}"
        os.pwrite(descriptor, f"{what} (pid {os.getpid()}) since {since}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
