"""The configuration of a release: which commit of the config repository, and not an older one by accident."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from config_repository import ConfigRepository, ConfigRepositoryError, goes_back, read
from model.configuration import Content
from model.problems import SettingsError
from model.release import ConfigRef, Record, Release
from model.stack import Application
from release.errors import RefusedError
from release.inputs import CONFIG_PATH, CONFIG_REVISIONS, Program

SHORT = 12
"""Digits of a commit that people are shown."""


def with_config(program: Program, application: Application, revision: str = "") -> Application:
    """Return a project with the configuration that it is to run, read and checked before anything else is done.

    Args:
        program: The stack.
        application: The project.
        revision: The commit, by any name that git knows; empty for the one in the stack file, or what is checked out.

    Raises:
        RefusedError: With a line for each thing that is wrong.
    """
    if application.project.config is None:
        if revision:
            raise RefusedError(f"projects/{application.gitea_name}.yaml has no config: leave out --config-rev")
        return application
    content = _content(program, application, revision or application.config_revision)
    return application.model_copy(update={"config": content.ref, "config_revision": content.ref.revision})


def not_older(program: Program, application: Application) -> Callable[[Record | None], None]:
    """Return a check of a project's record: what is wanted must not be older than what runs, as in a stale checkout.

    Args:
        program: The stack.
        application: The project, with its configuration.
    """
    stays = newer(program, application)

    def check(record: Record | None) -> None:
        runs = stays(record)
        if runs is None or application.config is None:
            return
        wanted, name = application.config.revision[:SHORT], application.gitea_name
        raise RefusedError(
            f"{name}: commit {wanted} of the config repository is older than {runs.revision[:SHORT]}, which runs, "
            f"or that is not in the checkout: bring it up to date, or say so with --config-rev {wanted}"
        )

    return check


def newer(program: Program, application: Application) -> Callable[[Record | None], ConfigRef | None]:
    """Return what tells the configuration that runs where it is newer than the wanted one; None where it is not.

    Args:
        program: The stack.
        application: The project, with its configuration.
    """

    def of(record: Record | None) -> ConfigRef | None:
        runs = record.release.config if record else None
        if application.config is None or runs is None or application.config == runs:
            return None
        try:
            return runs if goes_back(_repository(program), Content(ref=application.config), runs) else None
        except ConfigRepositoryError as error:
            raise RefusedError(str(error)) from None

    return of


def wanted_revisions(program: Program, application: Application) -> Mapping[str, Any]:
    """Return the key of the stack file that says at which commits configuration is read; none where there is none."""
    revisions = dict(program.config_revisions)
    if application.project.config and application.config_revision:
        revisions[application.gitea_name] = application.config_revision
    return {CONFIG_REVISIONS: revisions} if revisions else {}


def deploys(project: str, release: Release, stack: str) -> str:
    """Return the command that releases once more what ran, with the configuration that it had. Pure.

    Where a failed release was left this is the way back, and not ``release rollback``: a release that failed is not
    recorded, so that one goes to the release before the one that serves.
    """
    config = f" --config-rev {short(release.config.revision)}" if release.config else ""
    return f"release deploy {project} {release.tag} -s {stack}{config}"


def short(release_revision: str | None) -> str:
    """Return a commit as people are shown it; empty where there is none."""
    return (release_revision or "")[:SHORT]


def _repository(program: Program) -> ConfigRepository:
    path = program.config.get(CONFIG_PATH)
    if not path:
        raise RefusedError(
            f"{program.stack_file.name}:{CONFIG_PATH}: is needed: name a checkout of the config repository"
        )
    return ConfigRepository(program.folder / str(path))


def _content(program: Program, application: Application, revision: str) -> Content:
    shown = str(program.config.get(CONFIG_PATH))
    try:
        content = read(_repository(program), application, program.environment.name, revision, shown)
    except ConfigRepositoryError as error:
        raise RefusedError(str(error)) from None
    except SettingsError as error:
        raise RefusedError(str(error).splitlines()) from None
    if content is None:
        raise ValueError(f"{application.gitea_name} has no config")
    return content
