"""Ending commands whose children lead process groups of their own, as Pulumi's plugins do."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devcluster import commands, deploy, process_tree
from devcluster.failure import SetupError

ROOT = Path(__file__).parents[2]
PLUGIN = "set -m; sleep 300 & echo $! > {note}; wait"
"""With job control, what runs in the background leads a process group of its own."""


def runs(pid: int) -> bool:
    """Whether a process is there and not just uncollected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def plugin_of(note: Path) -> int:
    until(lambda: note.exists() and bool(note.read_text().strip()), "the plugin has not started")
    return int(note.read_text())


@pytest.mark.parametrize("own_session", [True, False])
def test_a_command_is_ended_with_a_child_of_another_process_group(tmp_path: Path, *, own_session: bool) -> None:
    note = tmp_path / "plugin"
    command = ["bash", "-c", PLUGIN.format(note=note)]
    with subprocess.Popen(command, start_new_session=own_session) as process:
        plugin = plugin_of(note)
        process_tree.end(process.pid)
    until(lambda: not runs(plugin), "the plugin still runs")


def test_a_child_that_lost_its_parent_is_ended_with_the_session(tmp_path: Path) -> None:
    note = tmp_path / "plugin"
    command = ["bash", "-c", f"bash -c '{PLUGIN.format(note=note)}' & sleep 1; kill -9 $!; exec sleep 300"]
    with subprocess.Popen(command, start_new_session=True) as process:
        plugin = plugin_of(note)
        until(lambda: dict(process_tree.all_processes())[plugin].parent != process.pid, "it has its parent still")
        process_tree.end(process.pid)
    until(lambda: not runs(plugin), "the plugin still runs")


def program(folder: Path, name: str, note: Path) -> str:
    file = folder / name
    file.write_text(f"#!/bin/bash\n{PLUGIN.format(note=note)}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("quiet", [True, False])
def test_a_pulumi_that_does_not_end_is_an_error_and_leaves_no_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, quiet: bool
) -> None:
    note = tmp_path / "plugin"
    program(tmp_path, "pulumi", note)
    monkeypatch.setattr(deploy, "PULUMI_SECONDS", 3.0)
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    monkeypatch.setenv("PATH", variables["PATH"])
    with pytest.raises(SetupError, match=r"`pulumi up` did not end within 3 s: .*pulumi cancel"):
        deploy._pulumi(tmp_path, variables, ("up",), quiet=quiet)  # pyright: ignore[reportPrivateUsage]
    until(lambda: not runs(plugin_of(note)), "the plugin still runs")


def test_a_command_that_takes_too_long_leaves_no_plugin(tmp_path: Path) -> None:
    note = tmp_path / "plugin"
    with pytest.raises(SetupError, match="did not end within 3 s"):
        commands.attempt([program(tmp_path, "tool", note)], timeout=3.0)
    until(lambda: not runs(plugin_of(note)), "the plugin still runs")


@pytest.mark.parametrize(("word", "ignored"), [("heed_interrupts()", False), ("pass", True)])
def test_what_a_background_job_starts_heeds_interrupts(word: str, *, ignored: bool) -> None:
    code = (
        "import signal, subprocess; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"from devcluster.process_tree import heed_interrupts; {word}\n"
        "subprocess.run(['grep', 'SigIgn', '/proc/self/status'], check=True)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert bool(int(told.split()[1], 16) & 1 << signal.SIGINT - 1) is ignored
