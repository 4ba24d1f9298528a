"""The sample config repository: plain files of ours, made into a Git repository with the same commit everywhere."""

import os
import shutil
from pathlib import Path

from devcluster import commands

SAMPLE = Path(__file__).parent / "samples" / "config"
_GIT_SECONDS = 60.0
_FIXED = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_NAME": "package-platform" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "package-platform@example.com" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_DATE": "2022-08-01T00:00:00+00:00" for who in ("AUTHOR", "COMMITTER")},
}


def ensure_repository(folder: Path) -> Path:
    """Make the sample config repository, unless there is one already: a person may have committed to it.

    Args:
        folder: Of the checkout.

    Raises:
        SetupError: ``git`` failed.
    """
    if folder.exists():
        return folder
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(SAMPLE, half)
    _git(half, "init", "--quiet", "--initial-branch=main")
    _git(half, "add", "--all")
    _git(half, "commit", "--quiet", "--message=Sample configuration")
    half.rename(folder)
    return folder


def _git(folder: Path, *words: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    commands.run(["git", *words], timeout=_GIT_SECONDS, env={**own, **_FIXED}, folder=folder)
