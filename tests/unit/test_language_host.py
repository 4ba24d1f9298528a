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

from language_host import _become, load  # pyright: ignore[reportPrivateUsage]
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
    host = language_host.start(program)
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


def test_the_sdk_says_nothing_for_debugging(program: Program) -> None:
    whose = "import pathlib; from pulumi import log; pathlib.Path('loaded').write_text(log.debug.__module__ + ' ')\n"
    (program.folder / "imported.py").write_text(whose)
    host = started(program)
    try:
        assert host.serves(), host.output()
        until(lambda: (program.folder / "loaded").exists() and (program.folder / "loaded").read_text() != "")
        assert (program.folder / "loaded").read_text() == "__main__ "
    finally:
        host.close()


def test_a_program_that_cannot_be_imported_is_left_to_its_run(tmp_path: Path) -> None:
    for text in ("import no_such_module\n", "from os import no_such_name\n", "this is no Python\n"):
        (tmp_path / "__main__.py").write_text(text)
        load(tmp_path / "__main__.py")
    load(tmp_path / "no_such_file.py")


def test_without_its_script_the_language_host_of_pulumi_is_used(program: Program) -> None:
    (program.folder / "language_host.py").unlink()
    assert language_host.start(program) is None


@pytest.mark.parametrize("there", [True, False])
def test_the_programs_own_environment_is_taken_where_there_is_one(program: Program, *, there: bool) -> None:
    """A fresh checkout, as a pipeline's, has none."""
    if not there:
        (program.folder / ".venv").unlink()
    host = started(program)
    try:
        assert host.serves(), host.output()
        assert (host.command[0] == program.folder / ".venv" / "bin" / "python") == there
    finally:
        host.close()


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
        "import subprocess, sys, time; from pathlib import Path\n"
        "from release import language_host; from release.inputs import Program\n"
        "host = language_host.start(Program(Path(sys.argv[1]), 'test')); host.serves()\n"
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


def begun() -> list[LanguageHost]:
    return list(language_host._begun)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("options", [["--cwd", "FOLDER"], ["-s", "test", "-C", "FOLDER", "--json"]])
def test_what_was_begun_before_the_command_line_was_read_is_taken(program: Program, options: list[str]) -> None:
    folder = str(program.folder)
    language_host.begin(["deploy", "packet", "1", *(folder if each == "FOLDER" else each for each in options)])
    (first,) = begun()
    host = started(program)
    try:
        assert host is first
        assert begun() == []
        assert host.serves(), host.output()
    finally:
        host.close()


def test_what_was_begun_for_another_folder_ends(program: Program, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in (".venv", "language_host.py"):
        (other / name).symlink_to(program.folder / name)
    language_host.begin(["rollback", "packet", "--cwd", str(other)])
    (first,) = begun()
    host = started(program)
    try:
        assert host is not first
        assert not exists(first.pid)
    finally:
        host.close()


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["status", "-s", "test"], ["deploy", "--help"], ["deploy", "--cwd", "/nowhere"]]
)
def test_nothing_is_begun_for_a_command_line_that_runs_no_program(arguments: list[str]) -> None:
    language_host.begin(arguments)
    assert begun() == []


def test_the_command_that_begins_is_light(program: Program) -> None:
    script = (
        "import sys; from release.language_host import begin; begin(sys.argv[1:])\n"
        "print([name for name in ('pydantic', 'typer', 'yaml', 'model') if name in sys.modules])"
    )
    line = [sys.executable, "-c", script, "abort", "packet", "--cwd", str(program.folder)]
    variables = {**os.environ, "TMPDIR": tempfile.gettempdir()}
    done = subprocess.run(line, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert list(Path(tempfile.gettempdir()).iterdir()) == [], "and what nobody took ends with it"


def test_its_environment_is_the_one_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"OF_SOMEBODY_ELSE": "1", "KEPT": "1", "CHANGED": "1"}
    monkeypatch.setattr(os, "environ", variables)
    _become({"KEPT": "1", "CHANGED": "2", "TOLD": "3"})
    assert variables == {"KEPT": "1", "CHANGED": "2", "TOLD": "3"}


def test_it_is_taken_once_and_ended_when_it_is_dropped(program: Program) -> None:
    host = started(program)
    ahead = Ahead(host)
    assert ahead.take() is host
    assert ahead.take() is None
    ahead = Ahead(host)
    ahead.drop()
    assert not exists(host.pid)
    ahead.drop()
