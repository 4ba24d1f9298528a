"""What the pipeline's commands read from the program's folder: ``pipeline.yaml`` and the project files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from model.fields import Frozen, RegistryHost, field_names, plain_mapping
from model.problems import Problem, SettingsError, from_validation, nearest
from model.project import Project, parse_project
from model.yaml_text import parse_yaml
from pipeline.errors import RefusedError

FILE = "pipeline.yaml"


def _url(value: str) -> str:
    scheme, found, rest = value.partition("://")
    if not found or scheme not in {"http", "https"} or not rest or "@" in rest or value.endswith("/"):
        raise ValueError(f"{value!r} is no URL: http:// or https://, a host, no user, no final '/'")
    return value


Url = Annotated[str, AfterValidator(_url)]
"""The root of a server, ``https://gitea.example.com``; credentials never stand in it."""


class Gitea(Frozen):
    """Where the projects' Git repositories are."""

    url: Url
    """Root of the server."""
    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    """Organisation (or user) that owns the projects' repositories and the config repository."""
    config_repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "config"
    """Name of the config repository there."""
    branch: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]+$")] = "main"
    """The release branch: a push to it is built and released; pushes to others are not. A project's own
    ``build.branch`` goes before it."""


class Jenkins(Frozen):
    """Where the jobs run."""

    url: Url
    """Root of the server, as Gitea reaches it."""
    program: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "package-platform"
    """Repository of this program in Gitea, below the same owner: the jobs read their Jenkinsfile from it."""
    branch: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]+$")] = "main"
    """Its branch."""


class Settings(Frozen):
    """``pipeline.yaml``: the servers that the pipeline speaks to."""

    gitea: Gitea
    """The Git server."""
    jenkins: Jenkins
    """The job server."""
    registry: RegistryHost
    """The registry that images are pushed to, as image references name it: that of every stack."""


@dataclass(frozen=True)
class Program:
    """The folder with ``Pulumi.yaml``, ``pipeline.yaml`` and ``projects/``.

    Args:
        folder: That folder.
        settings_file: Instead of ``pipeline.yaml`` in it.
    """

    folder: Path
    settings_file: Path | None = None

    @cached_property
    def settings(self) -> Settings:
        """What ``pipeline.yaml`` says.

        Raises:
            RefusedError: If it is not there or not right, with a line for each problem.
        """
        path = self.settings_file or self.folder / FILE
        content = plain_mapping(_read(path, path.name))
        if content is None:
            raise RefusedError(str(Problem(path.name, "", "must be a mapping of fields")))
        try:
            return Settings.model_validate_json(json.dumps(content), by_alias=True, by_name=False)
        except ValidationError as error:
            problems = from_validation(path.name, error, known=field_names(Settings))
            raise RefusedError([str(problem) for problem in problems]) from None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every Gitea project that has a file, sorted."""
        return tuple(path.stem for path in sorted((self.folder / "projects").glob("*.yaml")))

    def project(self, name: str, environment: str = "") -> Project:
        """Return one project's file, checked.

        Args:
            name: Gitea project.
            environment: Whose overrides are laid over the file; none by default.

        Raises:
            RefusedError: If there is no such file, or with a line for each of its problems.
        """
        file = f"projects/{name}.yaml"
        if name not in self.names:
            raise RefusedError(f"{file}: there is no such project{nearest(name, self.names)}")
        try:
            return parse_project(file, _read(self.folder / file, file), environment)
        except SettingsError as error:
            raise RefusedError(str(error).splitlines()) from None

    def projects(self) -> Mapping[str, Project]:
        """Return Gitea project → its file, for all.

        Raises:
            RefusedError: With a line for each problem of all files.
        """
        found: dict[str, Project] = {}
        lines: list[str] = []
        for name in self.names:
            try:
                found[name] = self.project(name)
            except RefusedError as error:
                lines += error.lines
        config = self.settings.gitea.config_repository
        if config in self.names:
            message = f"is the config repository ({self.settings_file or FILE}), which has a job of its own: rename one"
            lines.append(str(Problem(f"projects/{config}.yaml", "", message)))
        if lines:
            raise RefusedError(lines)
        return found

    def stack(self, stack: str) -> Mapping[str, Any]:
        """Return our keys of a stack file, without their namespace.

        Args:
            stack: Name of the stack.

        Raises:
            RefusedError: If there is no such file, or it is not readable.
        """
        file = f"Pulumi.{stack}.yaml"
        content = plain_mapping(_read(self.folder / file, file)) or {}
        keys = plain_mapping(content.get("config")) or {}
        return {name.partition(":")[2]: value for name, value in keys.items() if name.startswith("package-platform:")}


def _read(path: Path, shown: str) -> object:
    try:
        return parse_yaml(shown, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RefusedError(f"{shown}: there is no such file in {path.parent}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{shown}: not readable: {error}") from None
    except SettingsError as error:
        raise RefusedError(str(error).splitlines()) from None
