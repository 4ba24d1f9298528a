"""Writes the JSON Schemas of project files and stack files beside this file: ``make schema``."""

import json
from pathlib import Path
from typing import Any

from model.project import project_schema
from model.stack import stack_schema

FOLDER = Path(__file__).parent


def schemas() -> dict[Path, str]:
    """Return file → content of every generated schema."""
    rendered: dict[str, dict[str, Any]] = {"project": project_schema(), "stack": stack_schema()}
    return {
        FOLDER / f"{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in rendered.items()
    }


if __name__ == "__main__":
    for path, text in schemas().items():
        path.write_text(text, encoding="utf-8")
