"""YAML as people mean it: strict about doubled keys, and without YAML 1.1's surprises."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from model.problems import Problem, SettingsError


class _DoubledKeyError(yaml.MarkedYAMLError):
    """A mapping names a key twice, so one of the two values would be lost."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: ``on`` and ``no`` are words, ``2022-07-15`` is a word, ``017`` is a number."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to define a loader's scalars

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            text = str(key.value)
            if text in seen:
                first = seen[text].start_mark.line + 1
                raise _DoubledKeyError(
                    problem=f"the key {text!r} is there twice, first in line {first}", problem_mark=key.start_mark
                )
            seen[text] = key
        return super().construct_mapping(node, deep=deep)


# https://yaml.org/spec/1.2.2/#103-core-schema
for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
):
    _Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType] - the stubs leave it untyped
        f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), list(first)
    )


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(file: str, text: str) -> object:
    """Return what a YAML text says, as plain dicts, lists and scalars.

    Args:
        file: Name of the file, for errors.
        text: Its content.

    Raises:
        SettingsError: If it doesn't parse, or a key is there twice; with the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - derived from the safe loader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        message = error.problem or error.context or "does not parse"
        raise SettingsError([Problem(file, f"line {line}", f"not readable as YAML: {message}")]) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SettingsError([Problem(file, "", f"not readable as YAML: {reason}")]) from None
