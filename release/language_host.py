"""Loads the program while everything else is still being asked: the other end of ``language_host.py``.

It lives as long as a descriptor does that this process and the guard of the run hold: when both are gone, it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

from release.inputs import Program
from release.objects import inner

SCRIPT = "language_host.py"
START_SECONDS = 30.0


class LanguageHost:
    """A program that is being loaded, for one run of pulumi."""

    def __init__(self, python: Path, program: Program, variables: Mapping[str, str]) -> None:
        """Start it; see ``start``."""
        self._folder = Path(tempfile.mkdtemp(prefix="package-platform-program-"))
        # A socket in a folder of its own: nobody else on this host can call it.
        self.address = f"unix:{self._folder / 'socket'}"
        self._said = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - lives as long as this
        self._process = subprocess.Popen(
            [str(python), str(program.folder / SCRIPT), self.address],
            cwd=program.folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
        )
        atexit.register(self.close)

    @property
    def descriptor(self) -> int:
        """What keeps it alive: the pipe on which it is told things."""
        return cast("BinaryIO", self._process.stdin).fileno()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def serves(self) -> bool:
        """Wait until it can be called; tell whether it can, which it can't if it ended or takes far too long."""
        said = cast("BinaryIO", self._process.stdout)
        ready, _, _ = select.select([said], [], [], START_SECONDS)
        return bool(ready and said.readline())

    def tell(self, variables: Mapping[str, str]) -> None:
        """Give the program's environment variables, after which it may be run."""
        pipe = cast("BinaryIO", self._process.stdin)
        with contextlib.suppress(BrokenPipeError):
            pipe.write(json.dumps(dict(variables)).encode() + b"\n")
            pipe.flush()

    def output(self) -> str:
        """Return what the program printed so far."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def close(self) -> None:
        """End it."""
        atexit.unregister(self.close)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(BrokenPipeError):
                cast("BinaryIO", pipe).close()
        shutil.rmtree(self._folder, ignore_errors=True)


def start(program: Program, variables: Mapping[str, str]) -> LanguageHost | None:
    """Load a program ahead.

    Args:
        program: Whose; its virtual environment is the one that ``Pulumi.yaml`` names.
        variables: The whole environment of its process.

    Returns:
        None where the program's folder has no such script or no virtual environment: Pulumi's own language host is
        then used, which tells what is missing.
    """
    environment = inner(program.pulumi_project, "runtime", "options").get("virtualenv")
    python = program.folder / str(environment) / "bin" / "python"
    if not environment or not python.exists() or not (program.folder / SCRIPT).exists():
        return None
    return LanguageHost(python, program, variables)


class Ahead:
    """At most one program that is being loaded for a run that will follow."""

    def __init__(self, host: LanguageHost | None = None) -> None:
        """Keep it until it is taken."""
        self._host = host

    def take(self) -> LanguageHost | None:
        """Return it, once."""
        host, self._host = self._host, None
        return host

    def drop(self) -> None:
        """End it unused: what is waited for may last, and may change the program's files."""
        host = self.take()
        if host:
            host.close()
