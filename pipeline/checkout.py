"""The stage ``checkout``: the project at the pushed commit, and the config repository at a pinned one."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from model.configuration import LFS_POINTER
from pipeline import state
from pipeline.arguments import HERE, Cwd, Project, SettingsFile, Workspace
from pipeline.errors import EXIT_CODES, RefusedError
from pipeline.git import Checkout, GitError, credentials
from pipeline.settings import Program

SOURCE = "source"
"""Folder of the project's checkout in the work folder."""
CONFIG = "config"
"""Folder of the config repository's checkout in the work folder."""
HELP = f"""Check out PROJECT at a commit of its release branch, and the config repository at a pinned one.

\b
A commit that is not on the release branch is refused, and so is a project with submodules or files of Git LFS.
$GITEA_TOKEN (or $GITEA_TOKEN_FILE) is given to git alone.

\b
Examples:
  python -m pipeline checkout SJZY.Package.Api --commit 4f2a9c1
  python -m pipeline checkout SJZY.Package.Api --commit 4f2a9c1 --config-rev 77aa01b

\b
{EXIT_CODES}
"""
_SUBMODULE = "160000 "
"""Git's mode of one: https://git-scm.com/docs/gitsubmodules."""
_LARGEST_POINTER_BYTES = 1024
_SHOWN = 3
Commit = Annotated[
    str, typer.Option("--commit", help="Commit of the project; by default the newest one.", show_default=False)
]
ConfigRevision = Annotated[
    str,
    typer.Option(
        "--config-rev", help="Commit of the config repository; by default the newest one.", show_default=False
    ),
]


def checkout(  # noqa: PLR0913 - the options of a command
    project: Project,
    *,
    commit: Commit = "",
    config_revision: ConfigRevision = "",
    workspace: Workspace = HERE,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Check out the project and the config repository."""
    # First of all: if this fails, the message about it must not name the tag of the build before.
    state.remove(workspace)
    program = Program(cwd, settings_file)
    file, gitea = program.project(project), program.settings.gitea
    branch = file.build.branch or gitea.branch
    workspace.mkdir(parents=True, exist_ok=True)
    with credentials() as variables:
        url = f"{gitea.url}/{gitea.owner}/{project}.git"
        source = Checkout(workspace / SOURCE, url, variables)
        found = _at(source, branch, commit)
        revision = None
        if file.config:
            url = f"{gitea.url}/{gitea.owner}/{gitea.config_repository}.git"
            revision = _at(Checkout(workspace / CONFIG, url, variables), gitea.branch, config_revision)
    _refuse_parts(project, source, found)
    named = bool(revision and config_revision)
    state.save(workspace, state.Build(project=project, commit=found, config_revision=revision, config_named=named))
    typer.echo(f"{project} is at {found}" + (f", its configuration at {revision}" if revision else ""))


def config_checkout(workspace: Path, program: Program, revision: str) -> Checkout:
    """Check out the config repository alone, and return it.

    Raises:
        PipelineError: If that fails, or the commit is not on its branch.
    """
    gitea = program.settings.gitea
    workspace.mkdir(parents=True, exist_ok=True)
    with credentials() as variables:
        url = f"{gitea.url}/{gitea.owner}/{gitea.config_repository}.git"
        found = Checkout(workspace / CONFIG, url, variables)
        _at(found, gitea.branch, revision)
    return found


def _at(found: Checkout, branch: str, revision: str) -> str:
    """Check out a commit of a branch, and return its name."""
    used = found.folder.exists()
    try:
        return _tried(found, branch, revision)
    except GitError as error:
        # A git that was killed leaves locks and halves of repositories, on which every later one fails.
        if not used:
            raise
        typer.echo("\n".join(f"{line}; cloned anew" for line in error.lines), err=True)
    found.remove()
    return _tried(found, branch, revision)


def _tried(found: Checkout, branch: str, revision: str) -> str:
    found.forget_settings()
    head = found.fetch(branch)
    commit = found.commit(revision, branch) if revision else head
    found.check_out(commit)
    return commit


def _refuse_parts(project: str, source: Checkout, commit: str) -> None:
    """Refuse a project of which something is elsewhere: it would be built without, or with what stands for it.

    Raises:
        RefusedError: With a line for each of the first submodules and files of Git LFS.
    """
    entries = source.run("ls-tree", "-r", "-z", "--full-tree", commit).split("\0")
    submodules = [each.partition("\t")[2] for each in entries if each.startswith(_SUBMODULE)]
    reason = "is a submodule, which is not fetched: commit its files, or take them as a package"
    lines = _some(project, submodules, reason)
    lines += _some(project, _pointers(source.folder), "is a pointer of Git LFS, not the file: commit it as it is")
    if lines:
        raise RefusedError(lines)


def _some(project: str, paths: Sequence[str], reason: str) -> list[str]:
    more = len(paths) - _SHOWN
    lines = [f"{project}: {path} {reason}" for path in paths[:_SHOWN]]
    return [*lines, f"{project}: and {more} more"] if more > 0 else lines


def _pointers(folder: Path) -> list[str]:
    """Return the files of a work tree that git-lfs has not replaced, as it does where an agent has it."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each != ".git"]
        files = (Path(parent, name) for name in names)
        found += [str(file.relative_to(folder)) for file in files if _is_pointer(file)]
    return sorted(found)


def _is_pointer(file: Path) -> bool:
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_POINTER_BYTES:
        return False
    return file.read_bytes().startswith(LFS_POINTER)
