"""YAML as people mean it: strict about doubled keys, and without YAML 1.1's surprises."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Any, cast

import yaml

from model.problems import Problem, SettingsError


class _DoubledKeyError(yaml.MarkedYAMLError):
    """A mapping names a key twice, so one of the two values would be lost."""


_SHOWN = 40
_CORE = "tag:yaml.org,2002:"
_COLLECTIONS_AND_TEXT = (f"{_CORE}null", f"{_CORE}str", f"{_CORE}seq", f"{_CORE}map", None)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: ``on`` and ``no`` are words, ``2022-07-15`` is a word, ``017`` is a number.

    What has no form in JSON (``!!timestamp``, ``!!binary``, ``!!set``) is refused.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to define a loader's scalars
    yaml_constructors = {  # noqa: RUF012 - as above; None stands for every other tag
        tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _COLLECTIONS_AND_TEXT
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._enclosing: list[str | None] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = cast("yaml.NodeEvent", self.peek_event())  # pyright: ignore[reportUnknownMemberType] - as below
        alias = isinstance(event, yaml.AliasEvent)
        if alias and event.anchor in self._enclosing:
            message = f"the alias *{event.anchor} is inside of what it stands for"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=cast("yaml.Mark", event.start_mark))
        self._enclosing.append(None if alias else event.anchor)
        node = super().compose_node(parent, index)
        self._enclosing.pop()
        return node

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


def _scalar(kind: str, convert: Callable[[str], object]) -> None:
    """Let scalars of a kind be converted, and say where one can't be: ``!!int two``, or a number of 5000 digits."""

    def construct(loader: _Loader, node: yaml.ScalarNode) -> object:
        text = str(loader.construct_scalar(node))
        try:
            return convert(text)
        except (ValueError, KeyError):
            message = f"{text[:_SHOWN]!r} can't be read as {kind}"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark) from None

    _Loader.add_constructor(f"{_CORE}{kind}", construct)


_scalar("bool", lambda text: {"true": True, "false": False}[text.lower()])
_scalar("int", int)
_scalar("float", float)


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
    except RecursionError:
        raise SettingsError([Problem(file, "", "not readable as YAML: is nested too deeply")]) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        message = error.problem or error.context or "does not parse"
        raise SettingsError([Problem(file, f"line {line}", f"not readable as YAML: {message}")]) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SettingsError([Problem(file, "", f"not readable as YAML: {reason}")]) from None
