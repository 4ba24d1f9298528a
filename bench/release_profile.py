"""Looking into one run of `release`: its processes, and what the engine logs meanwhile."""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from bench import processes
from bench.figures import Profile
from bench.release_figures import EngineEvent, engine_event, release_phases
from bench.workspace import CommandError

POLL_SECONDS = 0.02
LIMIT_SECONDS = 900.0
_LOGS = "package-platform-release-*/events"
"""Where `release` has the engine write its events, below the folder for temporary files."""
_SAID_CHARACTERS = 1500


def profile(title: str, projects: int, command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Profile:
    """Run a command of `release` and look into it.

    Args:
        title: What it is, for people.
        projects: Projects of the stack.
        command: Its argument list.
        folder: Where it runs.
        variables: Its whole environment.

    Raises:
        CommandError: It failed.
    """
    temporary = Path(tempfile.mkdtemp(prefix="bench-release-", dir=folder))
    reader = EventReader(temporary)
    try:
        with reader:
            watched = processes.watch(command, folder, {**variables, "TMPDIR": str(temporary)}, LIMIT_SECONDS)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if watched.code != 0:
        raise CommandError(f"{title} ended with {watched.code}: {watched.errors[-_SAID_CHARACTERS:]}")
    phases = release_phases(reader.events, watched.parts, watched.seconds)
    return Profile(title, projects, watched.seconds, phases, watched.parts)


class EventReader:
    """Reads the engine's event logs while they are written, and notes when each line came.

    The events' own times are whole seconds.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare it.

        Args:
            folder: For temporary files of the command that is looked into.
        """
        self.events: list[EngineEvent] = []
        self._folder = folder
        self._started = 0.0
        self._files: dict[Path, IO[str]] = {}
        self._rests: dict[Path, str] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for file in self._files.values():
            file.close()

    def _run(self) -> None:
        while not self._end.wait(POLL_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        for path in self._folder.glob(_LOGS):
            if path not in self._files:
                # It is gone with its folder when `release` ends: what is open can be read nevertheless.
                with contextlib.suppress(OSError):
                    self._files[path] = path.open(encoding="utf-8", errors="replace")
        at = time.monotonic() - self._started
        for path, file in self._files.items():
            *lines, self._rests[path] = (self._rests.get(path, "") + file.read()).split("\n")
            self.events += [event for line in lines if (event := engine_event(at, line))]
