"""The command ``release`` as the pipeline calls it: a process of its own, whose output is the build's log."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.fields import plain_mapping
from pipeline.arguments import PROGRAM
from pipeline.errors import PipelineError, RefusedError
from pipeline.git import Checkout
from pipeline.settings import Program

COMMAND = PROGRAM / "bin" / "release"


class ReleaseFailedError(PipelineError):
    """``release`` ended with an exit code of its own, which is handed on."""

    def __init__(self, lines: str | Sequence[str], code: int) -> None:
        """Take the lines and the code."""
        super().__init__(lines)
        self.code = code


def deploy(program: Program, stack: str, project: str, tag: str, revision: str | None) -> int:
    """Release a tag, and return the exit code.

    Args:
        program: Whose stack it is.
        stack: Its name.
        project: Gitea project.
        tag: Of its image.
        revision: Commit of the config repository; None for a project without configuration.
    """
    config = ["--config-rev", revision] if revision else []
    # The message is $BUILD_URL, which the command reads itself.
    line = [str(COMMAND), "deploy", project, tag, "--stack", stack, "--cwd", str(program.folder.resolve()), *config]
    sys.stdout.flush()
    return subprocess.run(line, stdin=subprocess.DEVNULL, check=False).returncode


def status(program: Program, stack: str) -> list[Mapping[str, Any]]:
    """Return what runs, a mapping for each project.

    Raises:
        ReleaseFailedError: If that can't be told.
    """
    line = [str(COMMAND), "status", "--stack", stack, "--cwd", str(program.folder.resolve()), "--json"]
    finished = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise ReleaseFailedError("`release status` failed", finished.returncode)
    return list((plain_mapping(json.loads(finished.stdout)) or {})["projects"])


def hand_over(checkout: Checkout, program: Program, stack: str, revision: str) -> Path:
    """Give the config repository that the stack reads a commit, and return that repository's folder.

    Its work tree stays as it is: releases read commits, not files.

    Args:
        checkout: That has the commit, with its history.
        program: Whose stack it is.
        stack: Its name.
        revision: The commit.

    Raises:
        PipelineError: If the stack names no repository, or git fails.
    """
    path = program.stack(stack).get("configPath")
    if not path:
        raise RefusedError(
            f"Pulumi.{stack}.yaml:package-platform:configPath: is needed: name a checkout of the config repository"
        )
    folder, source = program.folder / str(path), str(checkout.folder.resolve())
    if not folder.exists():
        _clone(checkout, source, folder)
    target = Checkout(folder, source, {})
    keep = f"+{revision}:refs/pipeline/{revision}"
    target.run("-c", "gc.auto=0", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", source, keep)
    return folder


def _clone(checkout: Checkout, source: str, folder: Path) -> None:
    """Clone, whole or not at all; another job may do the same at this moment."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as half:
        made = Path(half).resolve() / folder.name
        checkout.run("clone", "--quiet", "--no-hardlinks", source, str(made))
        with contextlib.suppress(OSError):
            made.rename(folder)
