"""``python -m devcluster``: what its commands say of themselves, and what they hand on."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from devcluster import __main__ as command_line

COMMANDS: Any = typer.main.get_command(command_line.app)


@pytest.mark.parametrize("name", sorted({*COMMANDS.commands} - {"kubectl"}))
def test_the_help_has_an_example_and_the_exit_codes(name: str) -> None:
    told = CliRunner().invoke(command_line.app, [name, "--help"])
    assert told.exit_code == 0
    assert f"  python -m devcluster {name}" in told.output
    assert "Exit codes: " in told.output


def test_options_behind_a_node_are_those_of_the_command_in_it() -> None:
    context = COMMANDS.commands["node-exec"].make_context("node-exec", ["n1", "ls", "--help", "-l"])
    assert context.params["node"] == "n1"
    assert context.args == ["ls", "--help", "-l"]


def test_kubectl_gets_every_word() -> None:
    words = ["-n", "kube-system", "get", "pods", "--help"]
    assert COMMANDS.commands["kubectl"].make_context("kubectl", list(words)).args == words
