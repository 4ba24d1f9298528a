"""Fixtures of all unit tests."""

from pathlib import Path

import pytest

from release import hold


@pytest.fixture(autouse=True)
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `release` holds a stack on this host: a test's own place, as the real one is that of real releases."""
    folder = tmp_path / "held"
    monkeypatch.setattr(hold, "FOLDER", folder)
    return folder
