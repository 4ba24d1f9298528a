"""Configuration from the config repository: which file goes where, and which of its layers wins. Pure.

The repository is laid out ``<environment>/<Gitea project>/…``; a folder ``common`` stands for every environment, or for
every project. A file is taken whole from the most specific layer that has it; nothing is merged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from model.dotenv import parse_dotenv
from model.fields import ConfigPath, ContainerPath, Frozen, plain_mapping
from model.names import configuration_names
from model.problems import Problem, SettingsError
from model.release import ConfigRef
from model.syntax import check_syntax

COMMON = "common"
"""Folder of the config repository for every environment, or every project."""
LARGEST_BYTES = 1024 * 1024
"""Bytes that the values of one ConfigMap or Secret may have together.

https://kubernetes.io/docs/concepts/configuration/configmap/#motivation
"""
_DIGEST_LENGTH = 16
_TEMPORARY = "/tmp"  # noqa: S108 - a path in the container
_CONFIG_MAP_TYPE = "kubernetes:core/v1:ConfigMap"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class ConfigFile(Frozen):
    """One file of the config repository, and where it goes; a text stands for ``{file: …}``."""

    file: ConfigPath
    """Its path below ``<environment>/<Gitea project>/`` (or one of the common folders) of the config repository."""
    path: ContainerPath | None = None
    """Where it is in the container: this one file, beside what the image has in that folder. By default it is in
    ``mount``."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"file": data} if isinstance(data, str) else data

    @property
    def key(self) -> str:
        """Its key in a ConfigMap, which can't have a ``/``."""
        return self.file.replace("/", ".")


class Configuration(Frozen):
    """What a project gets from the config repository."""

    mount: ContainerPath | None = None
    """Folder in the container with the ``files`` that name no ``path``; it hides what the image has there."""
    files: tuple[ConfigFile, ...] = ()
    """The files: ``appsettings.json``, or ``{file: env.js, path: /usr/share/nginx/html/env.js}``."""
    env: ConfigPath | None = None
    """A file of lines ``NAME=value`` that become environment variables: ``.env``."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The folders and files in the container that it fills."""
        own = (each.path for each in self.files)
        return tuple(path for path in (self.mount, *own) if path)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.files and not self.env:
            raise ValueError("names neither files nor env: name some, or leave config out")
        mounted = [each for each in self.files if each.path is None]
        if mounted and self.mount is None:
            raise ValueError(f"{mounted[0].file} has no path and there is no mount: set one of the two")
        if self.mount and not mounted:
            raise ValueError(f"no file is in mount {self.mount}: every one has a path of its own, or there is none")
        doubled = _doubled([each.key for each in self.files])
        if doubled:
            raise ValueError(f"two files have the name {doubled} ('/' becomes '.'): rename one")
        doubled = _doubled([each.path for each in self.files if each.path])
        if doubled:
            raise ValueError(f"two files go to {doubled}: change a path")
        for each in self.files:
            if self.mount and each.path and f"{each.path}/".startswith(f"{self.mount}/"):
                raise ValueError(f"{each.path} is inside mount {self.mount}: leave out the path of {each.file}")
        for path in (self.mount, *(each.path for each in self.files)):
            if path == _TEMPORARY or (path and path.startswith(f"{_TEMPORARY}/")):
                raise ValueError(f"{path} is in {_TEMPORARY}, which is the pod's own: choose another folder")
        return self


def _doubled(values: Sequence[str]) -> str:
    return next((value for index, value in enumerate(values) if value in values[:index]), "")


class Content(Frozen):
    """A project's configuration as it was at one commit."""

    ref: ConfigRef
    """The commit, and the hash of all that is here."""
    files: Mapping[str, bytes] = Field(default_factory=dict)
    """Key → bytes of the file."""
    env: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables."""


@dataclass(frozen=True)
class Entry:
    """One file of the repository at a commit, before it is read.

    Args:
        kind: Git's mode of it: ``100644`` for a plain file, ``120000`` for a link.
        name: Git's name of its content.
        size: In bytes.
    """

    kind: str
    name: str
    size: int


@dataclass(frozen=True)
class Found:
    """A file that a project asks for, where the repository has it.

    Args:
        field: Of the project file.
        key: In the ConfigMap; empty for the file of environment variables.
        path: In the repository.
        entry: What is there.
    """

    field: str
    key: str
    path: str
    entry: Entry


def layers(environment: str, project: str, file: str) -> tuple[str, ...]:
    """Return the paths at which a file may be in the config repository, the most specific first.

    An environment's own folder is stronger than a project's common one, as a profile is in Spring Cloud Config.

    Args:
        environment: Name of the environment.
        project: Gitea project.
        file: Path below the layer.
    """
    folders = (f"{environment}/{project}", f"{environment}/{COMMON}", f"{COMMON}/{project}", COMMON)
    return tuple(f"{folder}/{file}" for folder in folders)


def find(
    wanted: Configuration, environment: str, project: str, tree: Mapping[str, Entry], problems: list[Problem]
) -> list[Found]:
    """Return where the repository has what a project asks for.

    Args:
        wanted: What the project file says.
        environment: Name of the environment.
        project: Gitea project.
        tree: Path → entry, for every file of the repository at a commit.
        problems: Is added a line for each file that is missing, no file, or too large.
    """
    file = f"projects/{project}.yaml"
    if COMMON in (environment, project):
        message = f"{COMMON!r} is a folder for all: no project or environment with config has it"
        problems.append(Problem(file, "config", message))
    asked = [(f"config.files.{index}", each.key, each.file) for index, each in enumerate(wanted.files)]
    asked += [("config.env", "", wanted.env)] if wanted.env else []
    found: list[Found] = []
    for field, key, name in asked:
        paths = layers(environment, project, name)
        path = next((path for path in paths if path in tree), None)
        if path is None:
            message = f"the config repository has no {name} for it; looked for {', '.join(paths)}"
            problems.append(Problem(file, field, message))
        elif not tree[path].kind.startswith("100"):
            problems.append(Problem(file, field, f"{path} of the config repository is a link, not a file"))
        else:
            found.append(Found(field, key, path, tree[path]))
    total = sum(each.entry.size for each in found)
    if total > LARGEST_BYTES:
        largest = max(found, key=lambda each: each.entry.size)
        message = (
            f"the files have {total} bytes together, and Kubernetes takes at most {LARGEST_BYTES}: put large ones into "
            f"the image or on a volume; the largest is {largest.path} with {largest.entry.size}"
        )
        problems.append(Problem(file, "config", message))
    return found


def build(  # noqa: PLR0913 - the facts about one content
    found: Sequence[Found],
    contents: Mapping[str, bytes],
    revision: str,
    *,
    repository: str,
    project: str,
    own: Mapping[str, str],
    problems: list[Problem],
) -> Content:
    """Return a project's configuration, each file checked for its syntax.

    Args:
        found: The files that it consists of.
        contents: Git's name → bytes, for each of them.
        revision: The commit.
        repository: What people call the repository, for errors.
        project: Gitea project.
        own: Environment variables of the project file, which the repository must not set as well.
        problems: Is added a line for each file that is wrong.
    """
    files = {each.key: contents[each.entry.name] for each in found if each.key}
    env: dict[str, str] = {}
    for each in found:
        content, name = contents[each.entry.name], f"{repository}/{each.path}"
        if content.startswith(_LFS_POINTER):
            problems.append(Problem(name, "", "is a pointer of Git LFS, not the file: commit it as it is"))
            continue
        try:
            if each.key:
                check_syntax(name, content)
            else:
                env = parse_dotenv(name, content)
        except SettingsError as error:
            problems += error.problems
    problems += [
        Problem(f"projects/{project}.yaml", f"env.{name}", "is in the config repository's file too: remove one of them")
        for name in sorted(env.keys() & own.keys())
    ]
    return Content(ref=ConfigRef(revision=revision, digest=digest_of(files, env)), files=files, env=env)


def digest_of(files: Mapping[str, bytes], env: Mapping[str, str]) -> str:
    """Return the hash that stands for a content: it is in the names of the ConfigMaps, and tells releases apart."""
    parts = {
        "files": {key: hashlib.sha256(content).hexdigest() for key, content in files.items()},
        "env": dict(env),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def stored(resources: Mapping[str, object], name: str, ref: ConfigRef) -> Content | None:
    """Return a configuration as the ConfigMaps in a stack's state hold it; None where they don't.

    Args:
        resources: URN → ``{type, outputs}``, as ``pulumi:pulumi:readStackResourceOutputs`` answers.
        name: The project's name in Kubernetes.
        ref: The configuration.
    """
    maps: dict[str, dict[str, Any]] = {}
    for resource in resources.values():
        described = plain_mapping(resource) or {}
        if described.get("type") == _CONFIG_MAP_TYPE:
            outputs = plain_mapping(described.get("outputs")) or {}
            maps[str((plain_mapping(outputs.get("metadata")) or {}).get("name"))] = outputs
    files, variables = (maps.get(each, {}) for each in configuration_names(name, ref.digest))
    text, binary = plain_mapping(files.get("data")) or {}, plain_mapping(files.get("binaryData")) or {}
    env = {key: str(value) for key, value in (plain_mapping(variables.get("data")) or {}).items()}
    try:
        content = {key: str(value).encode() for key, value in text.items()}
        content |= {key: base64.b64decode(str(value), validate=True) for key, value in binary.items()}
    except binascii.Error:
        return None
    whole = digest_of(content, env) == ref.digest
    return Content(ref=ref, files=content, env=env) if whole else None
