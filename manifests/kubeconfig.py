"""The file by which a cluster is reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from model.problems import SettingsError
from model.yaml_text import parse_yaml

_EXEC_VERSION = "client.authentication.k8s.io/v1beta1"
USER = "plugin"
"""Name of the user in a kubeconfig that asks a command."""


def pointed_at(kubeconfig: str, endpoint: str) -> str:
    """Return a kubeconfig whose clusters are reached at an endpoint.

    ACK's answer may name the public address also of a cluster that has none.

    Args:
        kubeconfig: As YAML; what is returned is JSON, which is YAML too.
        endpoint: URL; empty to leave it.

    Raises:
        ValueError: If it is no kubeconfig; nothing of it is in the message.
    """
    content, _ = _read(kubeconfig, endpoint)
    return json.dumps(content, sort_keys=True)


def with_plugin(kubeconfig: str, endpoint: str, command: Sequence[str]) -> str:
    """Return a kubeconfig with the same cluster, and a command that gives a credential in place of the one in it.

    Args:
        kubeconfig: As YAML.
        endpoint: URL; empty to leave it.
        command: Prints an ``ExecCredential``; client-go runs it when it needs one.

    Raises:
        ValueError: If it is no kubeconfig; nothing of it is in the message.
    """
    _, cluster = _read(kubeconfig, endpoint)
    asks = {
        "apiVersion": _EXEC_VERSION,
        "command": command[0],
        "args": list(command[1:]),
        "interactiveMode": "Never",
        "provideClusterInfo": False,
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": USER, "user": {"exec": asks}}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": USER}}],
        "current-context": "context",
    }
    return json.dumps(content, sort_keys=True)


def plugin_command(cluster_id: str, region: str, minutes: int) -> list[str]:
    """Return the command of ACK's own credential plugin.

    https://aliyuncontainerservice.github.io/ack-ram-tool/v0.13.2/credential-plugin/get-credential
    """
    return [
        "ack-ram-tool",
        "credential-plugin",
        "get-credential",
        f"--cluster-id={cluster_id}",
        f"--region-id={region}",
        f"--expiration={minutes}m",
        "--api-version=v1beta1",
        "--log-level=error",
    ]


def _read(kubeconfig: str, endpoint: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content, and the first cluster in it."""
    try:
        content = cast("dict[str, Any]", parse_yaml("kubeconfig", kubeconfig))
        for each in content["clusters"] if endpoint else ():
            each["cluster"]["server"] = endpoint
        return content, content["clusters"][0]["cluster"]
    except (SettingsError, KeyError, TypeError, IndexError):
        raise ValueError("what ACK answered is no kubeconfig") from None
