"""A config repository of its own for a test."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_IDENTITY = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


class Checkout:
    """A checkout whose commits are made file by file."""

    def __init__(self, folder: Path) -> None:
        """Make an empty repository.

        Args:
            folder: Where; it is made.
        """
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet")

    def git(self, *words: str) -> str:
        """Run git in it, and return what it prints."""
        variables = {**os.environ, **_IDENTITY}
        command = ["git", "-C", str(self.folder), *words]
        return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, files: Mapping[str, str | bytes], *, clear: bool = False) -> None:
        """Write files into the work tree; with ``clear`` nothing else stays there."""
        for path in self.folder.iterdir() if clear else ():
            if path.name != ".git":
                shutil.rmtree(path)
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, files: Mapping[str, str | bytes], *, clear: bool = False) -> str:
        """Write files, commit everything, and return the commit."""
        self.write(files, clear=clear)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=test")
        return self.git("rev-parse", "HEAD")
