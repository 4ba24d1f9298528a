"""Running other programs: their output is kept, and what they said is part of the error when they fail."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import process_tree
from devcluster.failure import SetupError

TIMEOUT_SECONDS = 120.0
TAIL_CHARACTERS = 2000


def run(
    command: Sequence[str],
    *,
    text: str = "",
    timeout: float = TIMEOUT_SECONDS,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a program and return what it wrote to standard output.

    Args:
        command: its argument list; never put a secret there.
        text: given to its standard input.
        timeout: in seconds; it is killed then, with all that it started.
        env: its whole environment, or nothing for this process' own.
        folder: where it runs, or nothing for where this process does.

    Raises:
        SetupError: it failed, took too long, or is not installed.
    """
    finished = attempt(command, text=text, timeout=timeout, env=env, folder=folder)
    if finished.returncode != 0:
        said = (finished.stdout + finished.stderr).strip()
        raise SetupError(f"`{_short(command)}` failed (exit code {finished.returncode})", said[-TAIL_CHARACTERS:])
    return finished.stdout


def attempt(
    command: Sequence[str],
    *,
    text: str = "",
    timeout: float = TIMEOUT_SECONDS,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program whose failure is an answer too.

    Raises:
        SetupError: it took too long, or is not installed.
    """
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=env,
            cwd=folder,
        ) as process:
            output, errors = process_tree.communicate(process, text, timeout)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"`{_short(command)}` did not end within {timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise SetupError(f"the program {command[0]} is missing: install it") from error


def _short(command: Sequence[str]) -> str:
    words = [word if len(word) <= 60 else f"{word[:57]}..." for word in command]  # noqa: PLR2004 - one line
    return " ".join(words[:8]) + (" ..." if len(words) > 8 else "")  # noqa: PLR2004 - one line
