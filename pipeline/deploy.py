"""The stage ``deploy``: the pushed image and its configuration onto the cluster, by ``release deploy``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline import release, state
from pipeline.arguments import HERE, Cwd, Project, SettingsFile, Stack, Workspace
from pipeline.checkout import CONFIG
from pipeline.errors import RELEASE_EXIT_CODES, RefusedError
from pipeline.git import Checkout
from pipeline.settings import Program

HELP = f"""Release PROJECT's pushed image, with the configuration that was checked out beside it.

\b
What `release deploy` says, the reason of a failure and its log lines included, is in the build's log; its exit code is
this command's. $BUILD_URL becomes the message in the history.

\b
Examples:
  python -m pipeline deploy SJZY.Package.Api -s test
  python -m pipeline deploy SJZY.Package.Api -s uat --tag 2022-08-03-18-54

\b
{RELEASE_EXIT_CODES}
"""


def deploy(  # noqa: PLR0913 - options of a command line
    project: Project,
    stack: Stack,
    *,
    tag: Annotated[
        str, typer.Option("--tag", help="Release this tag of the registry instead of what was pushed.")
    ] = "",
    workspace: Workspace = HERE,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Release the image."""
    program = Program(cwd, settings_file)
    program.project(project)
    if tag:
        # Its configuration is the one that `release deploy` finds for it.
        raise typer.Exit(release.deploy(program, stack, project, tag, None))
    done = state.load(workspace, project)
    if done.tag is None:
        raise RefusedError(f"{project} is not pushed yet: run `python -m pipeline push {project}` first")
    if done.config_revision:
        release.hand_over(Checkout(workspace / CONFIG, "config", {}), program, stack, done.config_revision)
    # What the stack file says is to stay; `release deploy` reads that itself.
    revision = None if project in release.pinned(program, stack) else done.config_revision
    code = release.deploy(program, stack, project, done.tag, revision, or_newer=not done.config_named)
    raise typer.Exit(code)
