"""Configuration from the config repository: which file goes where, and which of its layers wins. Pure.

The repository is laid out ``<environment>/<Gitea project>/…``; a folder ``common`` stands for every environment, or for
every project. A file is taken whole from the most specific layer that has it; nothing is merged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SecretBytes, model_validator

from model.dotenv import parse_dotenv
from model.fields import ConfigPath, ContainerPath, Frozen, plain_mapping
from model.names import configuration_names
from model.problems import Problem, SettingsError
from model.release import ConfigRef
from model.secrets import stored_secret
from model.sops import encrypted_values
from model.syntax import check_syntax

COMMON = "common"
"""Folder of the config repository for every environment, or every project."""
LARGEST_BYTES = 1024 * 1024
"""Bytes that the values of one ConfigMap or Secret may have together.

https://kubernetes.io/docs/concepts/configuration/configmap/#motivation
"""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""With what a file begins that stands for one in Git LFS: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
_DIGEST_LENGTH = 16
_TEMPORARY = "/tmp"  # noqa: S108 - a path in the container
_CONFIG_MAP_TYPE = "kubernetes:core/v1:ConfigMap"


class ConfigFile(Frozen):
    """One file of the config repository, and where it goes; a text stands for ``{file: …}``."""

    file: ConfigPath
    """Its path below ``<environment>/<Gitea project>/`` (or one of the common folders) of the config repository."""
    path: ContainerPath | None = None
    """Where it is in the container: this one file, beside what the image has in that folder. By default it is in
    ``mount``."""

    @property
    def key(self) -> str:
        """Its key in a ConfigMap, which can't have a ``/``."""
        return self.file.replace("/", ".")


def _as_file(value: object) -> object:
    """Return the long form."""
    return {"file": value} if isinstance(value, str) else value


_Entry = Annotated[ConfigFile, BeforeValidator(_as_file, json_schema_input_type=ConfigFile | ConfigPath)]


class Configuration(Frozen):
    """What a project gets from the config repository."""

    mount: ContainerPath | None = None
    """Folder in the container with the ``files`` that name no ``path``; it hides what the image has there."""
    files: tuple[_Entry, ...] = ()
    """The files: ``appsettings.json``, or ``{file: env.js, path: /usr/share/nginx/html/env.js}``."""
    env: ConfigPath | None = None
    """A file of lines ``NAME=value`` that become environment variables: ``.env``."""
    secret_files: tuple[_Entry, ...] = ()
    """Files that are encrypted in the repository with sops; they go where ``files`` go, by way of a Secret."""
    secret_env: ConfigPath | None = None
    """As ``env``, encrypted with sops: ``secrets.env``."""

    @property
    def all_files(self) -> tuple[ConfigFile, ...]:
        """The files, encrypted or not."""
        return (*self.files, *self.secret_files)

    def takes(self, path: str) -> bool:
        """Tell whether a path in the container is one of its own."""
        inside = bool(self.mount) and f"{path}/".startswith(f"{self.mount}/")
        return inside or path in [each.path for each in self.all_files]

    @property
    def paths(self) -> tuple[str, ...]:
        """The folders and files in the container that it fills."""
        own = (each.path for each in self.all_files)
        return tuple(path for path in (self.mount, *own) if path)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.all_files and not self.env and not self.secret_env:
            raise ValueError("names neither files nor env: name some, or leave config out")
        mounted = [each for each in self.all_files if each.path is None]
        if mounted and self.mount is None:
            raise ValueError(f"{mounted[0].file} has no path and there is no mount: set one of the two")
        if self.mount and not mounted:
            raise ValueError(f"no file is in mount {self.mount}: every one has a path of its own, or there is none")
        doubled = _doubled([each.key for each in self.all_files])
        if doubled:
            raise ValueError(f"two files have the name {doubled} ('/' becomes '.'): rename one")
        doubled = _doubled([each.path for each in self.all_files if each.path])
        if doubled:
            raise ValueError(f"two files go to {doubled}: change a path")
        for each in self.all_files:
            if self.mount and each.path and f"{each.path}/".startswith(f"{self.mount}/"):
                raise ValueError(f"{each.path} is inside mount {self.mount}: leave out the path of {each.file}")
        for path in (self.mount, *(each.path for each in self.all_files)):
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
    secret_files: Mapping[str, SecretBytes] = Field(default_factory=dict)
    """Key → bytes of each encrypted file, decrypted; none where they were not decrypted."""
    secret_env: Mapping[str, SecretBytes] = Field(default_factory=dict)
    """Environment variables from an encrypted file."""


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
        secret: Whether it must be encrypted.
    """

    field: str
    key: str
    path: str
    entry: Entry
    secret: bool = False


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
    found: list[Found] = []
    for field, key, name, secret in _asked(wanted):
        paths = layers(environment, project, name)
        path = next((path for path in paths if path in tree), None)
        if path is None:
            message = f"the config repository has no {name} for it; looked for {', '.join(paths)}"
            problems.append(Problem(file, field, message))
        elif not tree[path].kind.startswith("100"):
            problems.append(Problem(file, field, f"{path} of the config repository is a link, not a file"))
        else:
            found.append(Found(field, key, path, tree[path], secret))
    total = sum(each.entry.size for each in found)
    if total > LARGEST_BYTES:
        largest = max(found, key=lambda each: each.entry.size)
        message = (
            f"the files have {total} bytes together, and Kubernetes takes at most {LARGEST_BYTES}: put large ones into "
            f"the image or on a volume; the largest is {largest.path} with {largest.entry.size}"
        )
        problems.append(Problem(file, "config", message))
    return found


def _asked(wanted: Configuration) -> list[tuple[str, str, str, bool]]:
    """Return field, key, file and whether it is secret, for all that is asked for."""
    asked = [
        (f"config.{field}.{index}", each.key, each.file, secret)
        for field, files, secret in (("files", wanted.files, False), ("secretFiles", wanted.secret_files, True))
        for index, each in enumerate(files)
    ]
    variables = (("config.env", "", wanted.env, False), ("config.secretEnv", "", wanted.secret_env, True))
    return asked + [(field, key, name, secret) for field, key, name, secret in variables if name]


def build(  # noqa: PLR0913 - the facts about one content
    found: Sequence[Found],
    contents: Mapping[str, bytes],
    revision: str,
    *,
    repository: str,
    project: str,
    taken: Collection[str],
    of_pods: Collection[str],
    decrypted: Mapping[str, bytes] | None = None,
    problems: list[Problem],
) -> Content:
    """Return a project's configuration, each file checked for its syntax.

    Args:
        found: The files that it consists of.
        contents: Git's name → bytes, for each of them.
        revision: The commit.
        repository: What people call the repository, for errors.
        project: Gitea project.
        taken: Environment variables of the project file, which the repository must not set as well.
        of_pods: Those that pods have of their own, which would silently win.
        decrypted: Git's name → what was in the file before it was encrypted, for each that is; None where nobody
            decrypts, who then gets the hashes alone.
        problems: Is added a line for each file that is wrong.
    """
    files: dict[str, bytes] = {}
    env: dict[str, str] = {}
    secret_files: dict[str, SecretBytes] = {}
    secret_env: dict[str, SecretBytes] = {}
    encrypted: dict[str, str] = {}
    for each in found:
        content, name = contents[each.entry.name], f"{repository}/{each.path}"
        values = encrypted_values(each.path, content)
        wrong = _wrong(each, content, values)
        if wrong:
            problems.append(Problem(name, "", wrong))
        elif values is None:
            if each.key:
                files[each.key] = content
            env |= _parsed(each, name, content, problems)
        else:
            encrypted[each.key] = values
            secret = (decrypted or {}).get(each.entry.name)
            if secret is not None:
                if each.key:
                    secret_files[each.key] = SecretBytes(secret)
                variables = _parsed(each, name, secret, problems)
                secret_env |= {key: SecretBytes(value.encode()) for key, value in variables.items()}
    told = env.keys() | secret_env.keys()
    problems += [
        Problem(f"projects/{project}.yaml", f"env.{name}", "is in the config repository's file too: remove one of them")
        for name in sorted(told & set(taken))
    ]
    problems += [
        Problem(
            repository, f"env.{name}", f"the pods of {project} have this variable of their own: choose another name"
        )
        for name in sorted(told & set(of_pods))
    ]
    problems += [
        Problem(repository, f"env.{name}", "is in an encrypted file too: remove one of them")
        for name in sorted(env.keys() & secret_env.keys())
    ]
    ref = ConfigRef(revision=revision, digest=digest_of(files, env), secrets=_digest(encrypted) if encrypted else None)
    return Content(ref=ref, files=files, env=env, secret_files=secret_files, secret_env=secret_env)


def _wrong(each: Found, content: bytes, values: str | None) -> str:
    """Return why a file is not what the project file says it is; empty when it is."""
    if content.startswith(LFS_POINTER):
        return "is a pointer of Git LFS, not the file: commit it as it is"
    if each.secret and values is None:
        return f"is not encrypted, as {each.field} says: take its content for known, and `sops encrypt` the next one"
    if values is not None and not each.secret:
        return f"is encrypted with sops, and {each.field} would hand it on so: name it in secretFiles or secretEnv"
    return ""


def _parsed(each: Found, name: str, content: bytes, problems: list[Problem]) -> dict[str, str]:
    """Check a file's syntax, and return its environment variables if it is a file of those."""
    try:
        if not each.key:
            return parse_dotenv(name, content)
        check_syntax(name, content)
    except SettingsError as error:
        # What is wrong may quote what is there.
        told = [replace(problem, message="not readable") for problem in error.problems]
        problems += told if each.secret and each.key else error.problems
    return {}


def digest_of(files: Mapping[str, bytes], env: Mapping[str, str]) -> str:
    """Return the hash that stands for a content: it is in the names of the ConfigMaps, and tells releases apart."""
    parts = {
        "files": {key: hashlib.sha256(content).hexdigest() for key, content in files.items()},
        "env": dict(env),
    }
    return _digest(parts)


def _digest(parts: object) -> str:
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
    secrets = [stored_secret(resources, each) for each in configuration_names(name, ref.secrets or "")]
    if digest_of(content, env) != ref.digest or (ref.secrets and secrets == [None, None]):
        return None
    secret_files, secret_env = (each or {} for each in secrets)
    return Content(ref=ref, files=content, env=env, secret_files=secret_files, secret_env=secret_env)
