"""The YAML in docs/how-to: what is shown there of project files and stack files is what the schemas and models take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

import jsonschema
import pytest

from model.fields import plain_mapping
from model.project import parse_project
from model.stack import NAMESPACE
from model.yaml_text import parse_yaml

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "how-to").glob("*.md"))
BLOCK = re.compile(r"^ *```yaml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
OTHER = {"allowedUnsafeSysctls", "job_name"}
"""Begins what is neither: the configurations of the kubelet and of Prometheus."""


def blocks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield page and number → content of each block; a key that is there twice is an error."""
    for page in PAGES:
        for number, text in enumerate(BLOCK.findall(page.read_text())):
            name = f"{page.name}:{number}"
            content: Any = parse_yaml(name, dedent(text))
            assert isinstance(content, dict), name
            yield name, content


def schema(name: str) -> dict[str, Any]:
    return json.loads((DOCS / "schema" / f"{name}.schema.json").read_text(encoding="utf-8"))


def partial(part: Any) -> Any:
    """Return a schema without what it requires: a page shows the part of a stack file that it is about."""
    if isinstance(part, list):
        return [partial(each) for each in cast("list[Any]", part)]
    fields = plain_mapping(part)
    if fields is None:
        return part
    return {key: partial(value) for key, value in fields.items() if key != "required"}


BLOCKS = dict(blocks())
STACKS = [
    name for name, each in BLOCKS.items() if any(key.startswith(f"{NAMESPACE}:") for key in each.get("config", {}))
]


@pytest.mark.parametrize("name", STACKS)
def test_stack_files_fit_their_schema(name: str) -> None:
    assert set(BLOCKS[name]) == {"config"}
    jsonschema.validate(BLOCKS[name], partial(schema("stack")))


@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in STACKS and not OTHER & set(BLOCKS[name])])
def test_project_files_fit_their_schema_and_are_taken(name: str) -> None:
    whole = {"kind": "backend", **BLOCKS[name]}
    jsonschema.validate(whole, schema("project"))
    parse_project(name, whole, "test")


def test_there_are_blocks_to_check() -> None:
    assert len(STACKS) >= 3
    assert len(BLOCKS) > 2 * len(STACKS)
