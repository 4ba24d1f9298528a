"""Fixtures of all unit tests."""

import io
import signal
import socket
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from release import hold, lock
from tests.unit.fake_stack import BEGUN, STEP, FakeStack

HOST = "agent-7"
"""Name of the machine, for the code under test."""


@pytest.fixture(autouse=True)
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `release` holds a stack on this host: a test's own place, as the real one is that of real releases."""
    folder = tmp_path / "held"
    monkeypatch.setattr(hold, "FOLDER", folder)
    return folder


@pytest.fixture(autouse=True)
def own_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of its own, by a name that no other has, wherever the tests run: a container of CI has neither."""
    namespace = tmp_path_factory.mktemp("machine") / "namespace"
    namespace.symlink_to("pid:[4026531836]")
    monkeypatch.setattr(lock, "_PID_NAMESPACE", str(namespace))
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)


@pytest.fixture(autouse=True)
def terminal() -> Generator[None]:
    """A terminal whose end is heard of, also where the tests were begun with `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    """A stack whose `pulumi` succeeds at once."""
    fake = FakeStack(tmp_path / "fake")
    fake.order({"events": [BEGUN, STEP]})
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return fake


@pytest.fixture
def told() -> io.StringIO:
    """What a person reads while it runs."""
    return io.StringIO()
