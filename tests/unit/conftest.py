"""Fixtures of all unit tests."""

import io
import tempfile
from pathlib import Path

import pytest

from release import hold
from tests.unit.fake_stack import BEGUN, STEP, FakeStack


@pytest.fixture(autouse=True)
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `release` holds a stack on this host: a test's own place, as the real one is that of real releases."""
    folder = tmp_path / "held"
    monkeypatch.setattr(hold, "FOLDER", folder)
    return folder


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
