"""The runbooks: every command in them is one that there is, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.__main__ import app as pipeline
from release.command_line import app as release

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*(DOCS / "zh").glob("*.md"), DOCS / "how-to" / "jenkins.md", DOCS / "how-to" / "harbor.md"])
PROGRAMS: dict[str, Any] = {
    "release": typer.main.get_command(release),
    "python -m pipeline": typer.main.get_command(pipeline),
}
RUNBOOKS = {"README.md", "release.md", "rollback.md", "vip.md", "failed-rollout.md"}


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return the program and the words of each command in a page's blocks of shell."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            for program in PROGRAMS:
                if line.strip().startswith(f"{program} "):
                    own = line.strip().removeprefix(program).partition(" | ")[0]
                    found.append((program, shlex.split(own, comments=True)))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_commands_are_understood(page: Path) -> None:
    for program, words in commands(page.read_text()):
        command, rest = PROGRAMS[program], words
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(command.name, list(rest))  # raises for an option that is none


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_there_are_commands_to_check() -> None:
    assert {page.name for page in PAGES if page.parent.name == "zh"} == RUNBOOKS
    assert len(commands((DOCS / "zh" / "rollback.md").read_text())) >= 5
