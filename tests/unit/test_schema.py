"""The JSON Schemas in docs/schema: fresh, referenced by every file, and right about those files."""

import json
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model.yaml_text import parse_yaml
from settings import PROGRAM

SCHEMAS = PROGRAM / "docs" / "schema"
PROJECTS = sorted((PROGRAM / "projects").glob("*.yaml"))
STACK_FILES = sorted(PROGRAM.glob("Pulumi.*.yaml"))


def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))


def content(path: Path) -> Any:
    return parse_yaml(path.name, path.read_text(encoding="utf-8"))


def test_schemas_are_fresh() -> None:
    generated: dict[Path, str] = runpy.run_path(str(SCHEMAS / "generate.py"))["schemas"]()
    assert {path: path.read_text(encoding="utf-8") for path in generated} == generated, "run `make schema`"


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.name)
def test_project_files_fit_their_schema(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=../docs/schema/project.schema")
    jsonschema.validate(content(path), schema("project"))


@pytest.mark.parametrize("path", STACK_FILES, ids=lambda path: path.name)
def test_stack_files_fit_their_schema(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=docs/schema/stack.schema.json")
    jsonschema.validate(content(path), schema("stack"))


@pytest.mark.parametrize(
    "bad",
    [{"kind": "backend", "replica": 2}, {"kind": "front"}, {"kind": "backend", "environments": {"uat": {"x": 1}}}],
)
def test_the_schema_refuses_what_the_program_refuses(bad: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema("project"))


def test_the_schema_wants_secrets_as_pulumi_writes_them() -> None:
    stack = content(next(path for path in STACK_FILES if path.name == "Pulumi.uat.yaml"))
    config = stack["config"]
    config["package-platform:secretKey"] = {"secure": "v1:abc"}
    config["package-platform:secrets"] = {"packet": {"A": {"secure": "v1:abc"}}}
    jsonschema.validate(stack, schema("stack"))
    config["package-platform:secrets"] = {"packet": {"A": "plain"}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(stack, schema("stack"))


@pytest.mark.parametrize(
    "good",
    [
        {"config": {"mount": "/app/config", "files": ["a.json"], "secretFiles": ["b.json", {"file": "c.json"}]}},
        {"migrate": ["dotnet", "M.dll"], "environments": {"prod": {"migrate": {"activeDeadlineSeconds": 900}}}},
        {"autoscaling": {"maxReplicas": 4}, "environments": {"prod": {"autoscaling": {"cpuPercent": 50}}}},
        {"environments": {"prod": {"autoscaling": None, "config": {"files": ["a.json"]}}}},
    ],
)
def test_the_schema_takes_short_forms_and_parts_laid_over_the_rest(good: dict[str, Any]) -> None:
    jsonschema.validate({"kind": "backend", **good}, schema("project"))


@pytest.mark.parametrize(
    "bad",
    [
        {"autoscaling": {"cpuPercent": 50}},
        {"environments": {"prod": {"autoscaling": {"cpu": 50}}}},
        {"environments": {"prod": {"routes": [{"path": "/"}]}}},
        {"config": {"files": [7]}},
    ],
)
def test_what_is_whole_or_in_a_list_has_all_that_it_needs(bad: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"kind": "backend", **bad}, schema("project"))
