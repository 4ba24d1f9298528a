"""Loads the program while everything else is still being asked: the other end of ``language_host.py``.

It lives as long as a descriptor does that this process and the guard of the run hold: when both are gone, it ends.
``begin`` is called before the command line is even imported, which takes half a second: this file imports nothing else
of ours that does.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from release.objects import inner

if TYPE_CHECKING:
    from release.inputs import Program

SCRIPT = "language_host.py"
START_SECONDS = 30.0
HERE = Path(__file__).resolve().parent.parent
"""The folder of the program, where the command line names no other."""
RUNNING_COMMANDS = ("deploy", "rollback", "canary", "promote", "abort")
"""Those that are going to run the program."""
_USUAL_ENVIRONMENT = ".venv"
_begun: list[LanguageHost] = []


class LanguageHost:
    """A program that is being loaded, for one run of pulumi."""

    def __init__(self, python: Path, folder: Path) -> None:
        """Start it; see ``start``."""
        self.command = (python, folder)
        self._folder = Path(tempfile.mkdtemp(prefix="package-platform-program-"))
        # A socket in a folder of its own: nobody else on this host can call it.
        self.address = f"unix:{self._folder / 'socket'}"
        self._said = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - lives as long as this
        self._process = subprocess.Popen(
            [str(python), str(folder / SCRIPT), self.address],
            cwd=folder,
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
        """Give the program its whole environment, after which it may be run."""
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


def begin(arguments: Sequence[str]) -> None:
    """Load the program of a command line that has not been read yet, where it looks as if it were going to be run.

    Args:
        arguments: Of the command. Nothing is said about them: ``start`` takes what was begun if it was the right one,
            and what nobody takes ends with this process.
    """
    if not arguments or arguments[0] not in RUNNING_COMMANDS or "--help" in arguments:
        return
    named = [value for option, value in pairwise(arguments) if option in {"--cwd", "-C"}]
    folder = Path(named[-1]).resolve() if named else HERE
    if (folder / SCRIPT).exists():
        _begun.append(LanguageHost(_python(folder, _USUAL_ENVIRONMENT), folder))


def _python(folder: Path, environment: str) -> Path:
    """Return what runs a folder's program.

    Where it has no virtual environment of its own, as in a fresh checkout of a pipeline, that is this Python, which has
    all packages that the program needs.
    """
    own = folder / environment / "bin" / "python"
    return own if own.exists() else Path(sys.executable)


def start(program: Program) -> LanguageHost | None:
    """Load a program ahead, or take the one whose loading was begun.

    Args:
        program: Whose; its virtual environment is the one that ``Pulumi.yaml`` names, if it is there.

    Returns:
        None where the program's folder has no such script: Pulumi's own language host is then used.
    """
    environment = inner(program.pulumi_project, "runtime", "options").get("virtualenv")
    python = _python(program.folder, str(environment or _USUAL_ENVIRONMENT))
    while _begun:
        host = _begun.pop()
        if host.command == (python, program.folder):
            return host
        host.close()
    if not (program.folder / SCRIPT).exists():
        return None
    return LanguageHost(python, program.folder)


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
