"""The command `release` as tests use it: on a copy of the program, as a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import ENDPOINT_VARIABLE
from release.inputs import Program as Files
from release.pulumi import MARK_VARIABLE, Pulumi
from tests.cluster.program import Program

ROOT = Path(__file__).parents[2]
COMMAND_SECONDS = 420.0
GONE_SECONDS = 60.0
NOBODY = "http://127.0.0.1:9"
"""Where nothing listens."""


@dataclass(frozen=True)
class Answer:
    """What a run of the command answered.

    Args:
        code: Its exit code.
        said: The JSON of its answer; empty when there was none.
        progress: What it told meanwhile.
    """

    code: int
    said: dict[str, Any]
    progress: str


class Release:
    """The command, for one stack."""

    def __init__(self, program: Program) -> None:
        """Take the program whose stack is released."""
        self._program = program
        self.variables = {
            **program.cluster.env,
            "PULUMI_BACKEND_URL": f"file://{program.folder / 'state'}",
            "PULUMI_HOME": str(program.folder / "home"),
            **program.variables,
        }

    def __call__(self, *words: str, code: int | None = 0) -> Answer:
        """Run it, and check its exit code unless that is None."""
        with self.started(*words) as process:
            try:
                out, err = process.communicate(timeout=COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        answer = Answer(process.returncode, json.loads(out) if out.startswith("{") else {}, err)
        assert code is None or answer.code == code, f"{words}: exit code {answer.code}\n{out[-3000:]}\n{err[-6000:]}"
        return answer

    @contextmanager
    def started(self, *words: str) -> Generator[subprocess.Popen[str]]:
        """Start it; what then becomes of it is the test's own business."""
        command = [sys.executable, "-m", "release", *words, f"--stack={self._program.stack}", "--json"]
        with subprocess.Popen(
            [*command, f"--cwd={self._program.folder}"],
            cwd=ROOT,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            yield process

    @contextmanager
    def without_registry(self) -> Generator[None]:
        """Let it reach no registry for as long as the context lasts."""
        before = self.variables
        self.variables = {**before, ENDPOINT_VARIABLE: NOBODY}
        try:
            yield
        finally:
            self.variables = before

    def processes(self) -> dict[int, str]:
        """Return what belongs to runs of the stack: pid → command line."""
        mark = f"{MARK_VARIABLE}={self._key()}".encode()
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found

    def kill_all(self, process: subprocess.Popen[str]) -> None:
        """Kill the command, and everything below it, as the loss of a machine would."""
        process.kill()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_until_gone(self) -> None:
        """Wait until nothing of any run is left."""
        deadline = time.monotonic() + GONE_SECONDS
        while left := self.processes():
            assert time.monotonic() < deadline, f"still running: {left}"
            time.sleep(0.1)

    def _key(self) -> str:
        with _environment(self.variables):
            return Pulumi(Files(self._program.folder, self._program.stack)).key


@contextmanager
def _environment(variables: dict[str, str]) -> Generator[None]:
    name = "PULUMI_BACKEND_URL"
    before = os.environ.get(name)
    os.environ[name] = variables[name]
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
