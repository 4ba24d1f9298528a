"""Loading the program ahead: when it can be called, and when it ends. The engine's side is in ``tests/cluster``."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from language_host import load
from release import language_host
from release.inputs import Program
from release.language_host import Ahead, LanguageHost

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program whose loading can be seen, with the virtual environment of the tests."""
    short = Path(tempfile.mkdtemp(prefix="t"))  # a socket's path has at most 107 bytes
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copy(ROOT / "language_host.py", tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: p\nruntime: {name: python, options: {virtualenv: .venv}}\n")
    (tmp_path / "imported.py").write_text("import pathlib; pathlib.Path('loaded').touch(); print('loading')\n")
    (tmp_path / "__main__.py").write_text("import imported\nimport pathlib\npathlib.Path('run').touch()\n")
    return Program(tmp_path, "test")


def started(program: Program) -> LanguageHost:
    host = language_host.start(program, dict(os.environ))
    assert host
    return host


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_it_imports_what_the_program_imports_and_does_not_run_it(program: Program) -> None:
    host = started(program)
    try:
        assert host.serves(), host.output()
        until((program.folder / "loaded").exists)
        until(lambda: "loading" in host.output())
        assert not (program.folder / "run").exists()
    finally:
        host.close()
    assert not exists(host.pid)
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_a_program_that_cannot_be_imported_is_left_to_its_run(tmp_path: Path) -> None:
    for text in ("import no_such_module\n", "from os import no_such_name\n", "this is no Python\n"):
        (tmp_path / "__main__.py").write_text(text)
        load(tmp_path / "__main__.py")
    load(tmp_path / "no_such_file.py")


@pytest.mark.parametrize("missing", [".venv", "language_host.py"])
def test_without_its_parts_the_language_host_of_pulumi_is_used(program: Program, missing: str) -> None:
    (program.folder / missing).unlink()
    assert language_host.start(program, dict(os.environ)) is None


def test_one_that_ends_at_once_does_not_serve(program: Program) -> None:
    (program.folder / "language_host.py").write_text("raise SystemExit('no')\n")
    host = started(program)
    try:
        assert not host.serves()
        assert host.output() == "no\n"
        host.tell({"A": "b"})
    finally:
        host.close()


def test_it_lives_until_the_last_holder_of_its_pipe_is_gone(program: Program) -> None:
    script = (
        "import os, subprocess, sys, time; from pathlib import Path\n"
        "from release import language_host; from release.inputs import Program\n"
        "host = language_host.start(Program(Path(sys.argv[1]), 'test'), dict(os.environ)); host.serves()\n"
        "other = subprocess.Popen([sys.executable, '-ISc', 'import time; time.sleep(600)'],\n"
        "    pass_fds=[host.descriptor], stdout=subprocess.DEVNULL)\n"
        "print(host.pid, other.pid, flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(program.folder)]
    variables = {**os.environ, "TMPDIR": tempfile.gettempdir()}
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        host, other = map(int, process.stdout.readline().split())
        process.kill()
        process.wait()
        time.sleep(0.3)
        assert exists(host), "the guard may still need it"
        os.kill(other, signal.SIGKILL)
        until(lambda: not exists(host))
        assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_ctrl_c_is_not_for_it(program: Program) -> None:
    host = started(program)
    try:
        assert host.serves()
        assert os.getsid(host.pid) == host.pid, "a terminal's signals reach a session"
        os.kill(host.pid, signal.SIGINT)
        host.tell({"A": "b"})
        time.sleep(0.2)
        assert exists(host.pid)
    finally:
        host.close()


def test_it_is_taken_once_and_ended_when_it_is_dropped(program: Program) -> None:
    host = started(program)
    ahead = Ahead(host)
    assert ahead.take() is host
    assert ahead.take() is None
    ahead = Ahead(host)
    ahead.drop()
    assert not exists(host.pid)
    ahead.drop()
