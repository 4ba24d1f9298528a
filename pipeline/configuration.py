"""The job of the config repository: a push to it alone releases the projects whose files it changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

from config_repository import ConfigRepository, ConfigRepositoryError
from model.configuration import Configuration, find
from model.fields import plain_mapping
from model.problems import Problem
from pipeline import release
from pipeline.arguments import HERE, Cwd, SettingsFile, Stack, Workspace
from pipeline.checkout import config_checkout
from pipeline.errors import RELEASE_EXIT_CODES
from pipeline.release import ReleaseFailedError
from pipeline.settings import Program

HELP = f"""Release a commit of the config repository to the projects whose files differ from what they run with.

\b
Each keeps the image that it runs. One that fails is put back, and stops none of the others.

\b
Example:
  python -m pipeline config --commit 77aa01b -s test

\b
{RELEASE_EXIT_CODES}
"""


Commit = Annotated[
    str,
    typer.Option("--commit", help="Commit of the config repository; by default the newest one.", show_default=False),
]


def config(
    stack: Stack,
    *,
    commit: Commit = "",
    workspace: Workspace = HERE,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Release a commit of the config repository."""
    program = Program(cwd, settings_file)
    files = program.projects()
    checkout = config_checkout(workspace, program, commit)
    revision = checkout.run("rev-parse", "HEAD")
    release.hand_over(checkout, program, stack, revision)
    repository = ConfigRepository(checkout.folder)
    environment = str((plain_mapping(program.stack(stack).get("environment")) or {}).get("name", stack))
    held = release.pinned(program, stack)
    changed: list[tuple[str, str]] = []
    for live in release.status(program, stack):
        name, tag, runs = str(live["project"]), live["deployed"], live["config"]
        wanted = files[name].config if name in files else None
        if wanted and tag and _differs(_Reader(repository, environment, name, wanted), str(runs or ""), revision):
            changed.append((name, str(tag)))
    if not changed:
        typer.echo(f"{revision[:12]} changes no project's configuration in {stack}: nothing is released")
    for name in (name for name, _ in changed if name in held):
        typer.echo(f"{name} stays at {held[name]}, as Pulumi.{stack}.yaml says")
    concerned = [(name, tag) for name, tag in changed if name not in held]
    failed: dict[str, int] = {}
    for name, tag in concerned:
        typer.echo(f"{revision[:12]} changes the configuration of {name}")
        code = release.deploy(program, stack, name, tag, revision, or_newer=True)
        if code:
            failed[name] = code
    if failed:
        lines = [f"{name}: the release of {revision[:12]} ended with exit code {code}" for name, code in failed.items()]
        raise ReleaseFailedError(lines, max(failed.values()))


@dataclass(frozen=True)
class _Reader:
    """What one project reads of the config repository."""

    repository: ConfigRepository
    environment: str
    project: str
    wanted: Configuration

    def names(self, revision: str) -> Mapping[str, str] | None:
        """Return git's name of each file's content at a commit; None where one is missing."""
        problems: list[Problem] = []
        tree = self.repository.tree(self.repository.commit(revision))
        found = find(self.wanted, self.environment, self.project, tree, problems)
        return None if problems else {f"{each.field}/{each.key}": each.entry.name for each in found}


def _differs(reader: _Reader, runs: str, revision: str) -> bool:
    """Tell whether a project's files at a commit are others than those it runs with; so it is when one is missing."""
    try:
        before = reader.names(runs) if runs else None
    except ConfigRepositoryError:
        before = None  # what runs is not in this repository any more: the release decides
    return before is None or before != reader.names(revision)
