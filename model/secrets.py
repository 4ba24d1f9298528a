"""Secrets of the stack file: what a project takes of them, and what stands for their content. Pure.

Values are pydantic's ``SecretStr``, which no text of an object or an error shows. They leave it in one place, where a
Kubernetes Secret is rendered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self, cast

from pydantic import AfterValidator, Field, SecretBytes, SecretStr, model_validator

from model.certificate import certificate_problem
from model.fields import ContainerPath, Frozen, SecretKey, VariableName, plain_mapping
from model.problems import Problem

NAMES = ("secrets", "secretKey", "registryCredentials", "ingressCertificate")
"""Keys of the stack file that hold secrets, without our namespace."""
ENCRYPTED = "secure"
"""Pulumi's key for an encrypted value in a stack file."""
MASKED = "[secret, not known here]"
"""Stands for a value where the stack file is read without Pulumi."""
_SECRET_TYPE = "kubernetes:core/v1:Secret"  # noqa: S105 - a resource's type
_DIGEST_LENGTH = 16
_SHORTEST_KEY = 16


class SecretFile(Frozen):
    """A secret that becomes a file."""

    name: SecretKey
    """Its name below ``package-platform:secrets``."""
    path: ContainerPath
    """Where it is in the container: this one file, beside what the image has in that folder."""


class ProjectSecrets(Frozen):
    """What a project takes of ``package-platform:secrets``: its own entry there, and no other's."""

    env: tuple[VariableName, ...] = ()
    """Secrets that become environment variables of the same name."""
    files: tuple[SecretFile, ...] = ()
    """Secrets that become files."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that it needs."""
        return tuple(dict.fromkeys((*self.env, *(each.name for each in self.files))))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.names:
            raise ValueError("names neither env nor files: name some, or leave secrets out")
        for values, what in ((self.env, "variables"), ([each.path for each in self.files], "files")):
            doubled = next((value for index, value in enumerate(values) if value in values[:index]), "")
            if doubled:
                raise ValueError(f"two {what} are {doubled}: remove one")
        return self


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _SHORTEST_KEY:
        raise ValueError(f"is shorter than {_SHORTEST_KEY} characters, so that it could be guessed")
    return value


StackKey = Annotated[SecretStr, AfterValidator(_long_enough)]
"""What keeps a hash of a secret from telling anything about it."""


class RegistryCredentials(Frozen):
    """With what the cluster logs in to the environment's registry."""

    username: Annotated[str, Field(min_length=1)]
    """The account: a robot that may only pull."""
    password: SecretStr
    """Its password or token."""

    def docker_config(self, host: str) -> str:
        """Return the text of a Secret of type ``kubernetes.io/dockerconfigjson``.

        Args:
            host: The registry, as image references name it.
        """
        password = self.password.get_secret_value()
        entry = {
            "username": self.username,
            "password": password,
            "auth": base64.b64encode(f"{self.username}:{password}".encode()).decode(),
        }
        return json.dumps({"auths": {host: entry}}, separators=(",", ":"))


class TlsCertificate(Frozen):
    """The certificate of the cluster's ingress."""

    certificate: Annotated[str, Field(min_length=1)]
    """PEM: the certificate, then those of the authorities between it and the root."""
    key: SecretStr
    """PEM: its private key, not encrypted."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problem = certificate_problem(self.certificate, self.key.get_secret_value())
        if problem:
            raise ValueError(problem)
        return self


class ClusterSecrets(Frozen):
    """Secrets that are no project's."""

    registry: RegistryCredentials | None = None
    """With what the cluster pulls images."""
    certificate: TlsCertificate | None = None
    """That of the ingress."""


def secrets_digest(key: SecretStr, values: Mapping[str, SecretStr]) -> str:
    """Return the hash that stands for secrets, in the name of their Secret and in the record.

    Without the key nobody can try values against it, as anyone who may list objects could with a plain hash.

    Args:
        key: The stack's own.
        values: Name → value.
    """
    text = json.dumps({name: value.get_secret_value() for name, value in values.items()}, sort_keys=True)
    return hmac.new(key.get_secret_value().encode(), text.encode(), hashlib.sha256).hexdigest()[:_DIGEST_LENGTH]


def plain_secrets(file: str, config: Mapping[str, Any]) -> list[Problem]:
    """Return a line for each secret that a stack file has in plain text.

    Args:
        file: The stack file, for errors.
        config: Our keys of it, as they are written.
    """
    found = _leaves(config.get("secrets"), ("secrets",)) + _leaves(config.get("secretKey"), ("secretKey",))
    for name, field in (("registryCredentials", "password"), ("ingressCertificate", "key")):
        found += _leaves((plain_mapping(config.get(name)) or {}).get(field), (name, field))
    return [
        Problem(
            file,
            f"package-platform:{'.'.join(path)}",
            f"is in plain text: take it for known, and make a new one: "
            f"`pulumi config set --secret --path 'package-platform:{_path(path)}'`",
        )
        for path in found
    ]


def masked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our keys of a stack file, in which a text stands for each encrypted value."""
    return {key: _masked(value) for key, value in config.items()}


def as_written(schema: object) -> object:
    """Return a JSON Schema for files, in which each secret is what Pulumi writes there."""
    if isinstance(schema, list):
        return [as_written(each) for each in cast("list[object]", schema)]
    fields = plain_mapping(schema)
    if fields is None:
        return schema
    if fields.get("format") != "password":
        return {key: as_written(value) for key, value in fields.items()}
    kept = {key: value for key, value in fields.items() if key in ("title", "description", "default")}
    return {**kept, "type": "object", "properties": {ENCRYPTED: {"type": "string"}}, "required": [ENCRYPTED]}


def stored_secret(resources: Mapping[str, object], name: str) -> dict[str, SecretBytes] | None:
    """Return what a Secret holds, as a stack's state has it; None where it doesn't.

    Args:
        resources: URN → ``{type, outputs}``, as ``pulumi:pulumi:readStackResourceOutputs`` answers; the engine
            decrypts what is secret there.
        name: The Secret's name in Kubernetes.
    """
    for resource in resources.values():
        described = plain_mapping(resource) or {}
        outputs = plain_mapping(described.get("outputs")) or {}
        metadata = plain_mapping(outputs.get("metadata")) or {}
        if described.get("type") == _SECRET_TYPE and metadata.get("name") == name:
            try:
                data = (plain_mapping(outputs.get("data")) or {}).items()
                return {key: SecretBytes(base64.b64decode(str(value), validate=True)) for key, value in data}
            except binascii.Error:
                return None
    return None


def _leaves(value: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the paths of all values that are there and not encrypted."""
    mapping = plain_mapping(value)
    if value is None or (mapping is not None and mapping.keys() == {ENCRYPTED}):
        return []
    if mapping is None:
        return [path]
    return [leaf for key, inner in mapping.items() for leaf in _leaves(inner, (*path, key))]


def _masked(value: object) -> object:
    if isinstance(value, list):
        return [_masked(each) for each in cast("list[object]", value)]
    mapping = plain_mapping(value)
    if mapping is None:
        return value
    return MASKED if mapping.keys() == {ENCRYPTED} else {key: _masked(inner) for key, inner in mapping.items()}


def _path(path: tuple[str, ...]) -> str:
    """Return a path as `pulumi config set --path` takes it."""
    first, *rest = path
    return first + "".join(f'["{part}"]' if "." in part else f".{part}" for part in rest)
