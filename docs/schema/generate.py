"""Writes what follows from the models: ``make schema``.

The JSON Schemas of project files and stack files beside this file, and the RAM policies of the stack ``prod``.
"""

import json
from pathlib import Path
from typing import Any

from manifests.ram_policy import making_policy, releasing_policy
from model.project import project_schema
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


def schemas() -> dict[Path, str]:
    """Return file → content of every generated schema."""
    rendered: dict[str, dict[str, Any]] = {"project": project_schema(), "stack": stack_schema()}
    return {
        FOLDER / f"{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in rendered.items()
    }


if __name__ == "__main__":
    POLICIES.mkdir(exist_ok=True)
    for path, text in (schemas() | policies()).items():
        path.write_text(text, encoding="utf-8")
