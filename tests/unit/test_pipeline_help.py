"""``python -m pipeline``: the help of every command says how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from pipeline.__main__ import app
from pipeline.errors import EXIT_CODES


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    below: dict[str, Any] = getattr(command, "commands", {})
    if not below:
        yield name.strip(), command
    for word, each in below.items():
        yield from commands(each, f"{name} {word}")


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_an_example_and_the_exit_codes(name: str) -> None:
    assert f"python -m pipeline {name}" in COMMANDS[name].help
    assert EXIT_CODES in COMMANDS[name].help


def test_the_config_command_asks_for_a_commit_of_the_config_repository() -> None:
    helps = {each.name: each.help for each in COMMANDS["config"].params}
    assert helps["commit"].startswith("Commit of the config repository")
