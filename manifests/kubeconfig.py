"""The file by which a cluster is reached."""

from __future__ import annotations

import json
from typing import Any, cast

from model.problems import SettingsError
from model.yaml_text import parse_yaml


def pointed_at(kubeconfig: str, endpoint: str) -> str:
    """Return a kubeconfig whose clusters are reached at an endpoint.

    ACK's answer may name the public address also of a cluster that has none.

    Args:
        kubeconfig: As YAML; what is returned is JSON, which is YAML too.
        endpoint: URL; empty to leave it.

    Raises:
        ValueError: If it is no kubeconfig; nothing of it is in the message.
    """
    try:
        content = cast("dict[str, Any]", parse_yaml("kubeconfig", kubeconfig))
        for each in content["clusters"] if endpoint else ():
            each["cluster"]["server"] = endpoint
    except (SettingsError, KeyError, TypeError):
        raise ValueError("what ACK answered is no kubeconfig") from None
    return json.dumps(content, sort_keys=True)
