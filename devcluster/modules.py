"""Keeps the Go modules of the tools at common versions, so that what several of them use is compiled once.

Go's build cache has a package once for each set of versions below it: of two tools with unlike versions of
`client-go`, each compiles its own copy, which took minutes of `make up` on a bare machine.
`make align` runs this module; a unit test compares the versions.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from devcluster import toolchain
from devcluster.failure import SetupError
from devcluster.progress import Progress
from devcluster.tooltable import TOOLS, Tool

_ROUNDS = 5
_FILES = ("go.mod", "go.sum")

Precedence = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def precedence(version: str) -> Precedence:
    """Return the sort key of a module's version, as of semver.org, section 11."""
    core, _, rest = version.removeprefix("v").partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    identifiers = tuple(
        (False, int(part), "") if part.isdigit() else (True, 0, part) for part in rest.split(".") if part
    )
    return numbers, not rest, identifiers


def raises(required: Mapping[str, Mapping[str, str]], own: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, str]]:
    """Return tool → module → version for every requirement that is below another tool's.

    Args:
        required: tool → module → version, of the tools that share their versions.
        own: tool → modules whose version that tool's code decides; they neither raise others nor are raised.
    """
    highest: dict[str, str] = {}
    for tool, modules in required.items():
        for module, version in modules.items():
            if module not in own.get(tool, ()):
                highest[module] = max(version, highest.get(module, version), key=precedence)
    found = {
        tool: {
            module: highest[module]
            for module, version in modules.items()
            if module not in own.get(tool, ()) and version != highest[module]
        }
        for tool, modules in required.items()
    }
    return {tool: modules for tool, modules in found.items() if modules}


def pending() -> dict[str, dict[str, str]]:
    """Return what `align` would change: tool → module → version."""
    sharing = [tool for tool in TOOLS if tool.shares]
    required = {tool.name: toolchain.required_versions(toolchain.source_folder(tool) / "go.mod") for tool in sharing}
    return raises(required, {tool.name: tool.own_versions for tool in sharing})


def align(progress: Progress) -> None:
    """Raise requirements until the sharing tools agree, and write their `go.mod` and `go.sum`.

    A raised module may require more of others, so this takes a few rounds.

    Raises:
        SetupError: a `go` command failed, or the tools do not come to agree.
    """
    for _ in range(_ROUNDS):
        changes = pending()
        if not changes:
            return
        for name, versions in changes.items():
            with progress.step(f"{name}: {len(versions)} modules"):
                _require(toolchain.find(name), versions)
    raise SetupError(f"after {_ROUNDS} rounds tools still differ: {pending()}")


def _require(tool: Tool, versions: Mapping[str, str]) -> None:
    source = toolchain.source_folder(tool)
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder)
        toolchain.copy_module(tool, source, module)
        toolchain.go(["mod", "edit", *(f"-require={name}@{version}" for name, version in versions.items())], module)
        toolchain.go(["mod", "tidy"], module)
        if tool.patched:
            _keep_checksums(tool.patched.module, source / "go.sum", module / "go.sum")
        for name in _FILES:
            shutil.copyfile(module / name, source / name)


def _keep_checksums(name: str, old: Path, new: Path) -> None:
    """Put the checksums of a patched module back: Go drops those of what a folder replaces, the build needs them."""
    lines = new.read_text().splitlines()
    kept = [line for line in old.read_text().splitlines() if line.startswith(f"{name} ") and line not in lines]
    new.write_text("\n".join([*lines, *kept]) + "\n")


if __name__ == "__main__":
    align(Progress())
