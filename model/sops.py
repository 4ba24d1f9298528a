"""Files that were encrypted with sops: is one, and what in it stands for its content. Pure.

sops tells what a file is by its ending, and puts what it needs to decrypt it beside the values, under ``sops``
(https://getsops.io/docs/#encryption-protocol).
"""

from __future__ import annotations

import json
import re

import yaml

from model.fields import plain_mapping

_VALUE = "ENC[AES256_GCM,"
_SECTION = re.compile(r"^\[sops\]\n.*\Z", re.MULTILINE | re.DOTALL)
_LINES = re.compile(r"^sops_.*\n?", re.MULTILINE)


def encrypted_values(file: str, content: bytes) -> str | None:
    """Return the encrypted values of a file with the names that they have; None when it is not encrypted.

    As long as the values stay, so does this: what sops notes beside them changes when a person gets access. It tells
    nothing of what is encrypted, as each value was encrypted with a random number.

    Args:
        file: Its path.
        content: Its bytes.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    ending = file.rsplit("/", 1)[-1].rpartition(".")[2].lower()
    rest = _without(_LINES, text) if ending == "env" else _without(_SECTION, text) if ending == "ini" else _tree(text)
    return rest if rest and _VALUE in rest else None


def _without(notes: re.Pattern[str], text: str) -> str | None:
    return notes.sub("", text) if notes.search(text) else None


def _tree(text: str) -> str | None:
    """Read JSON, in which sops also keeps what it has no form for, or YAML."""
    if _VALUE not in text:
        return None  # any text at all, of which nothing has to be right
    try:
        tree = plain_mapping(json.loads(text))
    except (ValueError, RecursionError):
        try:
            tree = plain_mapping(yaml.safe_load(text))
        except (yaml.YAMLError, ValueError, KeyError, RecursionError):
            return None
    if tree is None or plain_mapping(tree.pop("sops", None)) is None:
        return None
    return json.dumps(tree, sort_keys=True, default=str)
