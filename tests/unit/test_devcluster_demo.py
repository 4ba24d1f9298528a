"""The demo's parts without its servers: what is marked, what errors are, what a cut-off first start leaves."""

import shutil
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from devcluster import __main__ as command_line
from devcluster import debian, deploy, gitea, processes
from devcluster.demo import Demo
from devcluster.failure import SetupError
from devcluster.gitea import Gitea
from devcluster.instance import Instance
from devcluster.progress import Progress
from devcluster.tooltable import SystemProgram, Tool
from pipeline.errors import PipelineError

QUIET = Progress(quiet=True)


def answering(answer: object) -> Callable[..., object]:
    """Return what answers so, whatever it is asked."""

    def asked(*_: object) -> object:
        return answer

    return asked


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    found = Demo(Instance(4, tmp_path), QUIET)
    found.folder.mkdir(parents=True)
    return found


def test_the_load_is_ended_with_the_services(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    vegeta = demo.instance.binaries / "vegeta"
    vegeta.parent.mkdir(parents=True)
    vegeta.write_text("#!/bin/sh\nexec sleep 300\n")
    vegeta.chmod(0o755)
    monkeypatch.setattr(Demo, "url", answering("http://api.package.test/"))

    def stopped_under_load() -> None:
        with demo.load("Some.Api"):
            assert any(processes.marked(service) for service in demo.instance.services)
            demo.stop()
            assert not any(processes.marked(service) for service in demo.instance.services)

    with pytest.raises(SetupError, match="ended too early, with exit code -9"):
        stopped_under_load()


def test_a_push_that_git_refuses_is_an_error_of_the_demo(demo: Demo) -> None:
    demo.gitea.token_file.parent.mkdir(parents=True)
    demo.gitea.token_file.write_text("t" * 40)
    (demo.folder / "developer" / "Some.Api").mkdir(parents=True)
    with pytest.raises(SetupError, match=r"^git add of .*Some.Api.git failed: .*not a git repository"):
        demo.push("Some.Api", {"a": "b"}, "A change")


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (processes.StuckProcessError("processes 7 of n1 do not end"), ["error: processes 7 of n1 do not end"]),
        (PipelineError(["one", "two"]), ["error: one", "error: two"]),
        (SetupError("it failed", "its log"), ["its log", "error: it failed"]),
    ],
)
def test_whatever_fails_is_lines_and_an_exit_code(
    error: Exception, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(command_line.demo, "run", fails)
    monkeypatch.setattr(sys, "argv", ["devcluster", "demo"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == command_line.EXIT_FAILED
    assert capsys.readouterr().err.splitlines() == lines


def test_an_answer_that_is_no_http_is_told_and_not_raised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"not HTTP at all\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        said = deploy._answer("http://a.example.com/", address)  # pyright: ignore[reportPrivateUsage]
        assert said.startswith("no answer: not HTTP")
        thread.join()


@pytest.mark.parametrize("url", ["http://a.example.com:port/", f"http://{'a' * 64}.example.com/", "http://[a/"])
def test_a_url_that_can_not_be_asked_is_told_and_not_raised(url: str) -> None:
    assert deploy._answer(url, None).startswith("no answer: ")  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of Gitea's program, which is none; what it needs was installed."""
    asked: list[str] = []

    def installed(needs: Sequence[SystemProgram], _: Progress) -> None:
        asked.extend(f"install {each.package}" for each in needs)

    def built(_: Tool, __: Progress) -> Path:
        return tmp_path / "program"

    monkeypatch.setattr(debian, "ensure_installed", installed)
    monkeypatch.setattr(gitea, "build", built)
    monkeypatch.setattr(shutil, "chown", answering(None))
    monkeypatch.setattr(Gitea, "answers", answering(answer=False))
    monkeypatch.setattr(Gitea, "_wait", answering(None))
    monkeypatch.setattr(Gitea, "_line", answering(["true"]))

    def command(self: Gitea, _: Path, *words: str) -> str:
        assert self.folder.exists()
        asked.append(" ".join(words[:3]))
        return "token: abc"

    monkeypatch.setattr(Gitea, "_command", command)
    return asked


def test_a_first_start_that_was_cut_off_is_begun_anew(tmp_path: Path, program: list[str]) -> None:
    server = Gitea(tmp_path / "gitea", "127.0.0.1")
    left = server.folder / "data" / "gitea.db"
    left.parent.mkdir(parents=True)
    left.touch()
    server.start(QUIET)
    assert not left.exists(), "what the start that was cut off has made is gone"
    assert program.count("migrate") == 1
    assert server.token_file.read_text() == "abc"
    left.touch()
    server.start(QUIET)
    assert left.exists(), "a first start that came to its end is not repeated"
    assert program.count("migrate") == 1


@pytest.mark.usefixtures("program")
def test_a_server_of_somebody_else_is_not_taken_for_gitea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gitea, "answers", answering(answer=True))
    with pytest.raises(SetupError, match=r"another server answers on http://127\.0\.0\.1:3000"):
        Gitea(tmp_path / "gitea", "127.0.0.1").start(QUIET)


def test_what_gitea_needs_is_installed(tmp_path: Path, program: list[str]) -> None:
    Gitea(tmp_path / "gitea", "127.0.0.1").start(QUIET)
    assert program[:2] == ["install git", "install util-linux"]
