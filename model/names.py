"""Names: from a Gitea project to everything that is called after it.

Kubernetes names follow RFC 1123 and, for a Service, RFC 1035: lower-case letters, digits and ``-``, first a
letter, at most 63 characters (https://kubernetes.io/docs/concepts/overview/working-with-objects/names/).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Literal

Kind = Literal["backend", "frontend"]
COMPONENT_TYPES: Mapping[Kind, str] = {
    "backend": "package-platform:index:PackageApp",
    "frontend": "package-platform:index:FrontendApp",
}
"""Kind of a project → type of its component in the state; changing one replaces every project of the kind."""
SlotName = Literal["main", "blue", "green", "canary"]
SLOTS: tuple[SlotName, ...] = ("main", "blue", "green", "canary")
"""All slots that a project can have."""

GITEA_PROJECT = "package-platform/gitea-project"
"""Annotation with the exact name of the Gitea project."""
LABEL_LIMIT = 63
"""Characters in a DNS label, and in a Kubernetes label's value."""

_POD_SUFFIX = len("-0123456789-01234")  # "-<pod-template-hash>-<random>"
_DERIVED_SUFFIXES = ("-main", "-blue", "-green", "-canary", "-assets")
NAME_LIMIT = LABEL_LIMIT - _POD_SUFFIX - max(map(len, _DERIVED_SUFFIXES))
"""Characters in a project's Kubernetes name: leaves room for a slot's suffix and for a pod's."""

ASSET_BRIDGE = "asset-bridge"
"""The container that stands before a blue-green front end's own one."""

ASSET_BRIDGE_HEADER = "X-Asset-Bridge"
"""A request with it is answered by the pod that it came to, and handed on to no other."""
JOB_ACCOUNT_PREFIX = "release-"
"""Begins the name of the ServiceAccount with which a project's job releases it; the project's own name follows."""
LATEST = "latest"
"""The image tag that follows every push; an environment may refuse it."""
_EVERY_NAMESPACE_S = "default"
_HASH_LENGTH = 6
_IMAGE_FOLDERS: dict[Kind, str] = {"backend": "back", "frontend": "front"}
_IMAGE_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")
_GITEA_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")


class InvalidName(ValueError):  # noqa: N818 - reads better than InvalidNameError where it is caught
    """A Gitea project's name that can't name things in Kubernetes or in a registry."""


def kubernetes_name(gitea_name: str) -> str:
    """Return the name of a Gitea project in Kubernetes: ``SJZY.Package.Api`` → ``sjzy-package-api``.

    Lower case; every run of other characters becomes one ``-``. A name longer than ``NAME_LIMIT`` is cut and
    gets a hash of the whole as its suffix, so that two long names with one beginning stay two.

    Raises:
        InvalidName: If nothing is left that starts with a letter, or it is a name of our own.
    """
    if not _GITEA_NAME.match(gitea_name):
        raise InvalidName(f"{gitea_name!r} is no Gitea project name: letters, digits, '.', '_' and '-' are allowed")
    name = re.sub(r"[^a-z0-9]+", "-", gitea_name.lower()).strip("-")
    if not name or not name[0].isalpha():
        raise InvalidName(f"{gitea_name!r} can't name a Kubernetes Service: its first character must be a letter")
    if name == _EVERY_NAMESPACE_S:
        raise InvalidName(f"{gitea_name!r} is the ServiceAccount that every namespace has: choose another name")
    if name == ASSET_BRIDGE:
        raise InvalidName(f"{gitea_name!r} is what a container beside a front end's own is called: choose another name")
    if len(name) <= NAME_LIMIT:
        return name
    digest = hashlib.sha256(gitea_name.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{name[: NAME_LIMIT - _HASH_LENGTH - 1].rstrip('-')}-{digest}"


def slot_name(name: str, slot: SlotName) -> str:
    """Return the name of a slot's objects: the project's own for ``main``, ``<name>-<slot>`` otherwise."""
    return name if slot == "main" else f"{name}-{slot}"


def slot_service_name(name: str, slot: SlotName) -> str:
    """Return the name of a slot's own Service, which the project's Service does not share: ``<name>-<slot>``."""
    return f"{name}-{slot}"


def configuration_names(name: str, digest: str) -> tuple[str, str]:
    """Return the names of a project's ConfigMaps of one content: the files', and the environment variables'.

    Its Secrets from encrypted files have names of the same form, with a hash of their own.
    """
    return f"{name}-config-{digest}", f"{name}-env-{digest}"


def secrets_name(name: str, digest: str) -> str:
    """Return the name of the Secret with what a project takes of the stack file's secrets."""
    return f"{name}-secrets-{digest}"


def all_names(name: str) -> tuple[str, ...]:
    """Return every name that a project may use in its namespace, its own first."""
    return (name, *(f"{name}{suffix}" for suffix in _DERIVED_SUFFIXES))


def image_repository(kind: Kind, gitea_name: str) -> str:
    """Return the repository of a project's images: ``back/sjzy.package.api``, ``front/packet_label``.

    Raises:
        InvalidName: If the name breaks the registry's rule for a path component
            (https://github.com/distribution/reference, ``path-component``).
    """
    component = gitea_name.lower()
    if not _IMAGE_COMPONENT.match(component):
        raise InvalidName(
            f"{gitea_name!r} can't name an image repository: single '.', '_', '__' or '-' between letters and digits"
        )
    return f"{_IMAGE_FOLDERS[kind]}/{component}"


def label_value(text: str) -> str:
    """Return ``text`` as a valid label value: unusual characters become ``-``, at most 63 characters."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:LABEL_LIMIT].strip("-_.")


def collisions(gitea_names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Find projects that would share a name in the cluster, derived names included.

    Returns:
        ``(first project, second project, shared name)`` for each pair, sorted; names that can't be converted
        are passed over (they are an error of their own).
    """
    owners: dict[str, str] = {}
    found: set[tuple[str, str, str]] = set()
    for gitea_name in sorted(gitea_names):
        try:
            name = kubernetes_name(gitea_name)
        except InvalidName:
            continue
        names = (*all_names(name), f"{JOB_ACCOUNT_PREFIX}{name}")
        clash = next((name for name in names if name in owners), None)
        if clash is not None:
            found.add((owners[clash], gitea_name, clash))
        for name in names:
            owners.setdefault(name, gitea_name)
    return sorted(found)
