"""Writes what follows from the models: ``make schema``.

The JSON Schemas of project files and stack files beside this file, and the RAM policies of the stack ``prod``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manifests.ram_policy import making_policy, releasing_policy
from model.project import ENVIRONMENTS, project_schema
from model.stack import stack_schema
from settings import PROGRAM, build_stack, read_stack_file

FOLDER = Path(__file__).parent
POLICIES = FOLDER.parent / "ram"


def policies() -> dict[Path, str]:
    """Return file → content of the policies that the people and jobs of ``prod`` need in the cloud."""
    cluster = build_stack(PROGRAM, "Pulumi.prod.yaml", "prod", read_stack_file(PROGRAM, "prod")).cluster
    if cluster is None:
        return {}
    rendered = {"making": making_policy(cluster), "releasing": releasing_policy(cluster)}
    return {POLICIES / f"{name}.json": json.dumps(policy, indent=2) + "\n" for name, policy in rendered.items()}


def with_parts(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of project files in which, below ``environments``, a part of a field may stand alone."""
    whole: Mapping[str, dict[str, Any]] = dict(schema["$defs"])
    for definition in whole.values():
        if ENVIRONMENTS in definition.get("properties", {}):
            override = definition["properties"][ENVIRONMENTS]["additionalProperties"]
            fields = override["properties"].items()
            override["properties"] = {key: _laid_over(value, whole, schema["$defs"]) for key, value in fields}
    return schema


def _laid_over(schema: dict[str, Any], whole: Mapping[str, dict[str, Any]], known: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what is laid over a field: of what is merged key by key, any part may stand alone.

    Args:
        schema: The field's own.
        whole: Name → definition, of every model.
        known: Is added the definitions that are needed beside those.
    """
    found = dict(schema)
    for key in ("anyOf", "oneOf"):
        if key in found:
            found[key] = [_laid_over(each, whole, known) for each in found[key]]
    name = found.get("$ref", "").removeprefix("#/$defs/")
    if "properties" in whole.get(name, {}):
        partial = f"{name}Override"
        found["$ref"] = f"#/$defs/{partial}"
        if partial not in known:
            fields = {key: _laid_over(value, whole, known) for key, value in whole[name]["properties"].items()}
            rest = {key: value for key, value in whole[name].items() if key != "required"}
            known[partial] = {**rest, "properties": fields}
    return found


def schemas() -> dict[Path, str]:
    """Return file → content of every generated schema."""
    rendered: dict[str, dict[str, Any]] = {"project": with_parts(project_schema()), "stack": stack_schema()}
    return {
        FOLDER / f"{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in rendered.items()
    }


if __name__ == "__main__":
    POLICIES.mkdir(exist_ok=True)
    for path, text in (schemas() | policies()).items():
        path.write_text(text, encoding="utf-8")
