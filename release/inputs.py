"""What the command reads from the program's folder: the stack file, the project's own file, Pulumi's project file.

Only the one project's file is checked, so a release costs the same however many projects there are; the program
itself checks them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.environment import Environment
from model.fields import plain_mapping
from model.names import COMPONENT_TYPES, InvalidName, kubernetes_name
from model.problems import Problem, SettingsError, nearest
from model.release import Record
from model.secrets import masked, plain_secrets
from model.stack import NAMESPACE, Application, Selection, gitea_name, parse_stack
from model.yaml_text import parse_yaml
from release.errors import RefusedError

TAGS = f"{NAMESPACE}:tags"
ALLOW_OLDER = f"{NAMESPACE}:allowOlder"
CANARIES = f"{NAMESPACE}:canaries"
CONFIG_PATH = f"{NAMESPACE}:configPath"
CONFIG_REVISIONS = f"{NAMESPACE}:configRevisions"
_NOT_READ = ("canaries", "registryCredentials", "ingressCertificate")  # the program checks them


@dataclass(frozen=True)
class Program:
    """A stack of the program as its files describe it.

    Args:
        folder: Of the program, with ``Pulumi.yaml`` and ``projects/``.
        stack: Name of the stack.
        config_file: The stack's own file, where it is not ``Pulumi.<stack>.yaml`` in ``folder``.
    """

    folder: Path
    stack: str
    config_file: Path | None = None

    def anew(self) -> Program:
        """Return the same stack with nothing read yet: for what a run has changed in the files since they were read."""
        return replace(self)

    @property
    def stack_file(self) -> Path:
        """The file with the stack's config."""
        return self.config_file or self.folder / f"Pulumi.{self.stack}.yaml"

    @cached_property
    def pulumi_project(self) -> Mapping[str, Any]:
        """What ``Pulumi.yaml`` says.

        Raises:
            RefusedError: If it is not there or not readable.
        """
        return _mapping(self.folder / "Pulumi.yaml", "there is no Pulumi program here: name its folder with --cwd")

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What the stack file says.

        Raises:
            RefusedError: If it is not there or not readable.
        """
        stacks = [path.name.split(".")[1] for path in sorted(self.folder.glob("Pulumi.*.yaml"))]
        return _mapping(self.stack_file, f"there is no such stack file; stacks here: {', '.join(stacks) or 'none'}")

    @property
    def config(self) -> Mapping[str, Any]:
        """All keys of the stack file, with their namespaces."""
        return plain_mapping(self.content.get("config")) or {}

    @property
    def own_config(self) -> dict[str, Any]:
        """Our keys of the stack file, without their namespace."""
        prefix = f"{NAMESPACE}:"
        return {key.removeprefix(prefix): value for key, value in self.config.items() if key.startswith(prefix)}

    @property
    def tags(self) -> dict[str, str]:
        """The wanted tags: Gitea project → tag."""
        return {name: str(tag) for name, tag in (plain_mapping(self.config.get(TAGS)) or {}).items()}

    @property
    def config_revisions(self) -> dict[str, str]:
        """The wanted commits of the config repository: Gitea project → commit, for those that name one."""
        told = plain_mapping(self.config.get(CONFIG_REVISIONS)) or {}
        return {name: str(revision) for name, revision in told.items()}

    @cached_property
    def projects(self) -> dict[str, str]:
        """Kubernetes name → Gitea project, for every project file that belongs to the stack."""
        selection = self._selection
        return {name: project for name, project in self._files.items() if selection.selects(project)}

    @property
    def _selection(self) -> Selection:
        try:
            return Selection.model_validate_json(json.dumps(self.own_config.get("projects") or {}), by_alias=True)
        except ValidationError:
            return Selection()  # what is wrong with it is said where a project is read

    @cached_property
    def _files(self) -> dict[str, str]:
        """Kubernetes name → Gitea project, for every project file, also of other stacks of the environment."""
        names: dict[str, str] = {}
        for path in sorted((self.folder / "projects").glob("*.yaml")):
            try:
                names[kubernetes_name(path.stem)] = path.stem
            except InvalidName:
                continue  # the program says what is wrong with it
        return names

    @cached_property
    def environment(self) -> Environment:
        """Where the stack puts its projects.

        Raises:
            RefusedError: With a line for each problem of the stack file.
        """
        return _checked(self, {}, {})[0]

    def application(self, project: str, tag: str) -> Application:
        """Return a project with the image of a tag.

        Args:
            project: Gitea project.
            tag: Image tag.

        Raises:
            RefusedError: With a line for each problem of the stack file and of the project's own.
        """
        file = f"projects/{self.known(project)}.yaml"
        try:
            content = parse_yaml(file, (self.folder / file).read_text(encoding="utf-8"))
        except SettingsError as error:
            raise RefusedError(str(error).splitlines()) from None
        except UnicodeDecodeError:
            raise RefusedError(f"{file}: is not UTF-8 text") from None
        except OSError as error:
            raise RefusedError(f"{file}: can't be read: {error.strerror}") from None
        applications = _checked(self, {project: tag}, {file: content})[1]
        if not applications:
            raise RefusedError(f"{project} does not belong to the stack {self.stack}: see {NAMESPACE}:projects there")
        return applications[0]

    def known(self, project: str) -> str:
        """Return the project's name if there is a file for it.

        Raises:
            RefusedError: If there is none, with the name that was probably meant.
        """
        if project in self._files.values():
            return project
        hint = nearest(project, self.projects.values())
        raise RefusedError(f"projects/{project}.yaml: there is no such project{hint}")

    def urn(self, application: Application) -> str:
        """Return the exact URN of a project's component."""
        kind = COMPONENT_TYPES[application.project.kind]
        return f"urn:pulumi:{self.stack}::{self.pulumi_project['name']}::{kind}::{application.gitea_name}"

    def deployed_tags(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Return Gitea project → live tag, for the projects of the stack that have a file here.

        Args:
            records: Kubernetes name → record.
        """
        return {
            project: records[name].release.tag for name, project in sorted(self.projects.items()) if name in records
        }

    def deployed_revisions(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Return Gitea project → commit of the config repository that its live release was made with.

        Args:
            records: Kubernetes name → record.
        """
        live = {project: records[name].release for name, project in self.projects.items() if name in records}
        return {project: release.config.revision for project, release in live.items() if release.config}

    def config_text(self, changes: Mapping[str, Any]) -> str:
        """Return the stack file with other values for some keys. JSON, which every YAML parser reads alike.

        Args:
            changes: Key with its namespace → value.
        """
        return json.dumps({**self.content, "config": {**self.config, **changes}}, indent=1)


def _checked(
    program: Program, tags: Mapping[str, str], files: Mapping[str, object]
) -> tuple[Environment, tuple[Application, ...]]:
    plain = plain_secrets(program.stack_file.name, program.own_config)
    if plain:
        raise RefusedError([str(problem) for problem in plain])
    own = {key: value for key, value in masked(program.own_config).items() if key not in _NOT_READ}
    mine = [gitea_name(file) for file in files]
    for key in {"configRevisions", "secrets"} & own.keys():  # those of other projects are not this one's business
        told = plain_mapping(own[key]) or {}
        own[key] = {name: value for name, value in told.items() if name in mine}
    try:
        stack = parse_stack(program.stack_file.name, program.stack, {**own, "tags": tags}, files)
    except SettingsError as error:
        raise RefusedError(str(error).splitlines()) from None
    return stack.environment, stack.applications


def _mapping(path: Path, missing: str) -> Mapping[str, Any]:
    try:
        content = parse_yaml(path.name, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RefusedError(f"{path}: {missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path}: not readable: {error}") from None
    except SettingsError as error:
        raise RefusedError(str(error).splitlines()) from None
    mapping = plain_mapping(content)
    if mapping is None:
        raise RefusedError(str(Problem(path.name, "", "must be a mapping of fields")))
    return mapping
