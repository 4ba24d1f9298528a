"""The command ``release`` as the pipeline calls it: a process of its own, whose output is the build's log."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import typer

from model.fields import plain_mapping
from pipeline.arguments import PROGRAM
from pipeline.errors import INTERRUPTED, PipelineError, RefusedError
from pipeline.git import Checkout, GitError
from pipeline.settings import Program

COMMAND = (sys.executable, "-P", "-m", "release")
"""This Python has the packages, which ``bin/release`` would look for. ``-P``: no ``release`` of the current folder."""
_BRANCH = "pipeline"
_SHORT = 12


class ReleaseFailedError(PipelineError):
    """``release`` ended with an exit code of its own, which is handed on."""

    def __init__(self, lines: str | Sequence[str], code: int) -> None:
        """Take the lines and the code."""
        super().__init__(lines)
        self.code = code


def deploy(  # noqa: PLR0913 - what a release is told
    program: Program, stack: str, project: str, tag: str, revision: str | None, *, or_newer: bool = False
) -> int:
    """Release a tag, and return the exit code.

    Args:
        program: Whose stack it is.
        stack: Its name.
        project: Gitea project.
        tag: Of its image.
        revision: Commit of the config repository; None for a project without configuration, and for the one that
            ``release deploy`` finds.
        or_newer: Whether a newer one stays that runs by then: another job may have released it since this one began.

    Raises:
        ReleaseFailedError: If this command was interrupted; ``release`` has ended then.
    """
    config = ["--config-rev", revision, *(["--or-newer"] if or_newer else [])] if revision else []
    sys.stdout.flush()
    # The message is $BUILD_URL, which the command reads itself.
    return _ended("deploy", project, tag, "--stack", stack, "--cwd", str(program.folder.resolve()), *config)


def pinned(program: Program, stack: str) -> Mapping[str, str]:
    """Return the projects that a stack file holds at a commit of the config repository → that commit.

    Args:
        program: Whose stack it is.
        stack: Its name.
    """
    told = plain_mapping(program.stack(stack).get("configRevisions")) or {}
    return {name: str(revision) for name, revision in told.items()}


def status(program: Program, stack: str) -> list[Mapping[str, Any]]:
    """Return what runs, a mapping for each project.

    Raises:
        ReleaseFailedError: If that can't be told, or this command was interrupted.
    """
    with tempfile.TemporaryFile() as said:
        code = _ended("status", "--stack", stack, "--cwd", str(program.folder.resolve()), "--json", stdout=said)
        said.seek(0)
        text = said.read()
    if code:
        raise ReleaseFailedError("`release status` failed", code)
    return list((plain_mapping(json.loads(text)) or {})["projects"])


def _ended(command: str, *words: str, stdout: IO[bytes] | None = None) -> int:
    """Run ``release`` to its end, and return its exit code.

    It hears of Ctrl-C itself, needs its time to stop pulumi in order, and says then what is left: so it is waited for.

    Raises:
        ReleaseFailedError: If this process was interrupted meanwhile: nothing more is to be begun.
    """
    interrupted, code = False, None
    line = [*COMMAND, command, *words]
    with subprocess.Popen(line, env=_variables(), stdin=subprocess.DEVNULL, stdout=stdout) as process:
        while code is None:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                interrupted = True
    if interrupted:
        message = f"interrupted: `release {command}` ended with exit code {code}"
        raise ReleaseFailedError(message, code or INTERRUPTED)
    return code


def hand_over(checkout: Checkout, program: Program, stack: str, revision: str) -> Path:
    """Give the config repository that the stack reads a commit, and return that repository's folder.

    Where there is none, or an empty folder, a bare one is made. In a bare one ``HEAD`` is the newest commit that was
    handed over, also after the branch was rewritten: what a release reads that names no commit. A checkout with a work
    tree belongs to people, who move its ``HEAD`` themselves.

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
            f"Pulumi.{stack}.yaml:package-platform:configPath: is needed: name a folder for the config repository"
        )
    folder, source = program.folder / str(path), str(checkout.folder.resolve())
    if not folder.exists():
        _make(folder, source, revision)
    elif folder.is_dir() and not any(folder.iterdir()):
        # It may be a mount, onto which nothing can be moved.
        _begin(Checkout(folder, source, {}))
    _take(Checkout(folder, source, {}), source, revision)
    return folder


def _make(folder: Path, source: str, revision: str) -> None:
    """Make a bare repository that has a commit, whole or not at all; another job may do the same at this moment."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as half:
        made = Checkout(Path(half).resolve() / folder.name, source, {})
        made.folder.mkdir()
        _begin(made)
        _take(made, source, revision)
        with contextlib.suppress(OSError):
            made.folder.rename(folder)


def _begin(made: Checkout) -> None:
    """Make a folder a bare repository without commits."""
    made.run("init", "--quiet", "--bare", f"--initial-branch={_BRANCH}")


def _take(target: Checkout, source: str, revision: str) -> None:
    """Bring a commit and its history, and move ``HEAD`` to it where that is the pipeline's to do."""
    keep = f"+{revision}:refs/pipeline/{revision}"
    target.run("fetch", "--quiet", "--no-auto-gc", "--no-tags", "--no-write-fetch-head", source, keep)
    detached, branch = target.answer("symbolic-ref", "--quiet", "HEAD")
    if not detached and target.run("rev-parse", "--is-bare-repository") == "true":
        _move_forward(target, branch, revision)


def _move_forward(target: Checkout, branch: str, revision: str) -> None:
    """Make a branch be a commit, unless that is an older one of it.

    Every commit that is handed over was on the release branch when it was checked out. So where one is neither older
    nor newer than what is here, that branch was rewritten, maybe to take a secret out of it.

    Raises:
        GitError: If the branch can't be written.
    """
    while True:
        head = _commit_of(target, branch)
        if head and _follows(target, head, revision):
            return
        rewritten = head and not _follows(target, revision, head)
        try:
            # An empty name stands for a branch that is not there yet.
            target.run("update-ref", branch, revision, head)
        except GitError:
            # Where another job has moved it since, it is asked again: each job moves it once, so that ends.
            if _commit_of(target, branch) == head:
                raise
        else:
            if rewritten:
                _warn(target, head, revision)
            return


def _follows(target: Checkout, commit: str, earlier: str) -> bool:
    """Tell whether a commit is another one, or follows it."""
    return target.answer("merge-base", "--is-ancestor", earlier, commit)[0] == 0


def _warn(target: Checkout, head: str, revision: str) -> None:
    before, now = head[:_SHORT], revision[:_SHORT]
    typer.echo(
        f"warning: {now} does not follow {before}, the newest commit that {target.folder} had: the branch of the "
        f"config repository was rewritten; releases that name no commit read {now} now",
        err=True,
    )


def _commit_of(target: Checkout, branch: str) -> str:
    return target.answer("rev-parse", "--verify", "--quiet", branch)[1]


def _variables() -> dict[str, str]:
    """Return the environment in which Python finds ``release``, whatever the current folder is."""
    path = [str(PROGRAM), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
