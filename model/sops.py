"""Files that were encrypted with sops: is one, and what in it stands for its content. Pure.

sops tells what a file is by its ending, and puts what it needs to decrypt it beside the values, under ``sops`` (in each
document of a YAML file, https://getsops.io/docs/#encryption-protocol).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import cast

import yaml

from model.fields import plain_mapping

_VALUE = "ENC[AES256_GCM,"
_SECTION = re.compile(r"^\[sops\]\r?\n.*\Z", re.MULTILINE | re.DOTALL)
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
    # By the endings by which sops knows what it writes.
    name = file.lower()
    if name.endswith(".env"):
        rest = _without(_LINES, text)
    else:
        rest = _without(_SECTION, text) if name.endswith(".ini") else _tree(text)
    return rest if rest and _VALUE in rest else None


def _without(notes: re.Pattern[str], text: str) -> str | None:
    return notes.sub("", text) if notes.search(text) else None


def _tree(text: str) -> str | None:
    """Read JSON, in which sops also keeps what it has no form for, or YAML."""
    if _VALUE not in text:
        return None  # any text at all, of which nothing has to be right
    documents: list[object] = []
    encrypted = False
    try:
        for document in _documents(text):
            mapping = plain_mapping(document)
            documents.append(document if mapping is None else mapping)
            # One document without notes among others is for sops to refuse, whose check is of all of them.
            encrypted |= mapping is not None and plain_mapping(mapping.pop("sops", None)) is not None
        return _dumped(documents if len(documents) > 1 else documents[0]) if encrypted else None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
        return None  # PyYAML lets through what its constructors stumble over


def _documents(text: str) -> list[object]:
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        return list(yaml.safe_load_all(text))


def _dumped(tree: object) -> str:
    try:
        return json.dumps(tree, sort_keys=True, default=str)
    except TypeError:  # keys of two kinds have no order, and JSON has none that is a date
        return json.dumps(_with_text_keys(tree), sort_keys=True, default=str)


def _with_text_keys(tree: object) -> object:
    if isinstance(tree, list | tuple):
        return [_with_text_keys(each) for each in cast("Sequence[object]", tree)]
    mapping = plain_mapping(tree)
    return tree if mapping is None else {key: _with_text_keys(value) for key, value in mapping.items()}
