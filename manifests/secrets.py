"""Secrets: their objects, and where a project's pods name them.

Those of a project are as its ConfigMaps are: immutable, with a hash in the name, which the pod template names in plain
text. For encrypted files it is the hash of what is in the repository anyway; for the stack file's secrets it is made
with the stack's key.
"""

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import SecretBytes

from manifests import Manifest
from manifests.labels import PART_OF
from model.environment import Environment
from model.names import configuration_names, secrets_name
from model.secrets import RegistryCredentials
from model.stack import Application


def project_secrets(application: Application) -> dict[str, Manifest]:
    """Return name → type, mark and ``data`` of the Secrets of one release; none when it has none."""
    content, found = application.content, dict[str, Mapping[str, SecretBytes]]()
    if content and content.ref.secrets:
        files, variables = configuration_names(application.name, content.ref.secrets)
        found |= {files: content.secret_files, variables: content.secret_env}
    if application.secrets:
        values = application.secret_values.get(application.secrets, {})
        found[secrets_name(application.name, application.secrets)] = values
    return {
        name: {"type": "Opaque", "immutable": True, "data": _encoded(values)}
        for name, values in found.items()
        if values
    }


def put_into(application: Application, pod: Manifest) -> None:
    """Give a rendered pod's own container what it takes of the stack file's secrets."""
    wanted, digest = application.project.secrets, application.secrets
    if wanted is None or digest is None:
        return
    name = secrets_name(application.name, digest)
    # What an earlier release was given may lack one that the project file asks for by now.
    there = application.secret_values.get(digest, {})
    (own,) = pod["containers"]
    own["env"] += [
        {"name": each, "valueFrom": {"secretKeyRef": {"name": name, "key": each}}}
        for each in wanted.env
        if each in there
    ]
    files = [each for each in wanted.files if each.name in there]
    if files:
        items = [{"key": each, "path": each} for each in dict.fromkeys(each.name for each in files)]
        pod["volumes"].append({"name": "secrets", "secret": {"secretName": name, "items": items}})
        own["volumeMounts"] += [
            {"name": "secrets", "mountPath": each.path, "subPath": each.name, "readOnly": True} for each in files
        ]


def image_pull(pull_secret: str | None) -> Manifest:
    """Return what a ServiceAccount says of pulling images.

    It stands there and not in pods, so that other credentials restart none.
    """
    return {"imagePullSecrets": [{"name": pull_secret}]} if pull_secret else {}


def pull_secret(environment: Environment, namespace: str, credentials: RegistryCredentials) -> Manifest:
    """Return the Secret with which images are pulled in a namespace.

    https://kubernetes.io/docs/concepts/configuration/secret/#docker-config-secrets
    """
    metadata = {
        "name": environment.registry.pull_secret,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/part-of": PART_OF, "app.kubernetes.io/managed-by": "pulumi"},
    }
    texts = {".dockerconfigjson": credentials.docker_config(environment.registry.host)}
    return fixed_secret(metadata, "kubernetes.io/dockerconfigjson", texts)


def fixed_secret(metadata: Manifest, kind: str, texts: Mapping[str, str]) -> Manifest:
    """Return a Secret that keeps its name when its content changes: what names it is not to be restarted for that.

    Args:
        metadata: With its name.
        kind: ``kubernetes.io/…``, which tells the keys that it must have.
        texts: Key → text.
    """
    data = _encoded({key: SecretBytes(text.encode()) for key, text in texts.items()})
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}


def _encoded(values: Mapping[str, SecretBytes]) -> dict[str, Any]:
    return {key: base64.b64encode(value.get_secret_value()).decode() for key, value in sorted(values.items())}
