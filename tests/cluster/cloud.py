"""The stack ``prod`` with the stand-in of the cloud (``tests/standins/alicloud``), on Pulumi's real engine."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.program import Program
from tests.standins.alicloud.provider import FOLDER_VARIABLE, KUBECONFIG_VARIABLE

ROOT = Path(__file__).parents[2]
STANDIN = ROOT / "tests" / "standins" / "alicloud"
_SUMMARY = re.compile(r"^ +(?:[-+~]|\+-)? ?(\d+) ?(?:to )?(create|update|replace|delete|unchanged)d?\b", re.MULTILINE)


def variables(path: str, folder: Path, kubeconfig: Path) -> dict[str, str]:
    """Return the variables with which the engine finds the stand-in in place of the cloud's provider.

    Args:
        path: PATH so far.
        folder: Where the stand-in remembers what it was asked for.
        kubeconfig: Of the cluster that stands for the managed one.
    """
    return {
        "PATH": os.pathsep.join([str(STANDIN), path]),
        FOLDER_VARIABLE: str(folder),
        KUBECONFIG_VARIABLE: str(kubeconfig),
        # Had the program another way into the cluster than the credential, it would not get in.
        "KUBECONFIG": os.devnull,
        # Without it the CLI does not know --event-log.
        "PULUMI_DEBUG_COMMANDS": "true",
    }


def change(program: Program, **keys: Any) -> None:
    """Lay values over our keys of the stack file; None takes a key out."""
    content = yaml.safe_load(program.stack_file.read_text())
    for key, value in keys.items():
        name = f"package-platform:{key}"
        if value is None:
            content["config"].pop(name, None)
        elif isinstance(value, Mapping) and isinstance(content["config"].get(name), dict):
            content["config"][name].update(value)
        else:
            content["config"][name] = value
    program.stack_file.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


def counts(said: str) -> dict[str, int]:
    """Return what a run of pulumi says it did: ``{"create": 44}``."""
    return {word: int(number) for number, word in _SUMMARY.findall(said)}


def changed(program: Program, *arguments: str) -> list[str]:
    """Run ``pulumi up`` and return what it changed: ``update pulumi:providers:kubernetes ack``."""
    log = program.folder / "events.json"
    log.unlink(missing_ok=True)
    program.up(f"--event-log={log}", *arguments)
    found: list[str] = []
    for line in log.read_text().splitlines():
        event = json.loads(line).get("resOutputsEvent")
        step = event and event["metadata"]
        if step and step["op"] not in ("same", "read", "refresh") and not step["type"].startswith("pulumi:pulumi:"):
            found.append(f"{step['op']} {step['type'].rsplit(':', 1)[-1]} {step['urn'].rsplit('::', 1)[-1]}")
    return sorted(found)
