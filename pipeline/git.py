"""Git as the pipeline runs it: without a terminal, without hooks, and with the token where no one else sees it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from config_repository import FOREIGN
from pipeline import keys
from pipeline.errors import PipelineError, RefusedError

_SECONDS = 600.0
_TOKEN_VARIABLE = "PIPELINE_GIT_TOKEN"  # noqa: S105 - a variable's name
# Git asks "Username for …" and "Password for …"; Gitea takes a token as the password of any user.
_ASKPASS = f'#!/bin/sh\ncase "$1" in Username*) echo pipeline ;; *) printf "%s\\n" "${_TOKEN_VARIABLE}" ;; esac\n'
_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "credential.helper="),
    *("-c", "advice.detachedHead=false"),
    # In milliseconds: several jobs write into the config repository that a stack reads.
    *("-c", "core.filesRefLockTimeout=10000"),
)


class GitError(PipelineError):
    """A command of git failed."""


class Checkout:
    """A checkout that the pipeline owns: whatever is changed in it is thrown away."""

    def __init__(self, folder: Path, url: str, variables: Mapping[str, str]) -> None:
        """Prepare it.

        Args:
            folder: Where it is, or will be.
            url: Of its repository, without credentials.
            variables: Laid over the environment: see `credentials`.
        """
        self.folder = folder
        self._url = url
        self._variables = variables

    def forget_settings(self) -> None:
        """Give up what a build that ran in it may have set: git would run commands of it with the token.

        Raises:
            GitError: If it can't be removed.
        """
        git = self.folder / ".git"
        if git.is_symlink() or git.is_file():
            self.remove()  # it leads elsewhere
        elif git.exists():
            try:
                for name in ("config", "config.worktree", "commondir", "info/attributes"):
                    (git / name).unlink(missing_ok=True)
            except OSError as error:
                raise GitError(f"{git} is not as git leaves it: {error}") from None
            self.run("init", "--quiet")

    def fetch(self, branch: str) -> str:
        """Fetch a branch, and return the commit at its head.

        Raises:
            GitError: If the server can't be reached, refuses, or has no such branch.
        """
        if not (self.folder / ".git").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.run("init", "--quiet")
        # Whole history: what is older than what runs has to be told from what is newer.
        reference = f"refs/remotes/origin/{branch}"
        self.run("fetch", "--quiet", "--no-tags", "--force", self._url, f"+refs/heads/{branch}:{reference}")
        return self.run("rev-parse", "--verify", f"{reference}^{{commit}}")

    def commit(self, revision: str, branch: str) -> str:
        """Return the whole name of a commit of a branch, as it was fetched.

        Args:
            revision: A commit, whole or shortened.
            branch: The branch that has to contain it.

        Raises:
            RefusedError: If there is none, or it is not on that branch.
        """
        code, found = self.answer("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        on_branch = code == 0 and self.answer("merge-base", "--is-ancestor", found, f"origin/{branch}")[0] == 0
        if not on_branch:
            raise RefusedError(
                f"{self._url}: commit {revision} is not on the branch {branch}: only what is there is released"
            )
        return found

    def check_out(self, commit: str) -> None:
        """Make the work tree be that commit, and nothing else.

        Raises:
            GitError: If that fails.
        """
        self.run("checkout", "--quiet", "--force", "--detach", commit)
        self.run("clean", "-ffdxq")

    def remove(self) -> None:
        """Remove the folder.

        Raises:
            GitError: If it can't be removed.
        """
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise GitError(f"{self.folder} can't be removed: {error}: remove it by hand") from None

    def run(self, *words: str) -> str:
        """Run a command of git in it, and return what it prints.

        Raises:
            GitError: If it fails.
        """
        finished = self._finished(words)
        if finished.returncode:
            said = " ".join((finished.stderr or "").split()) or f"exit code {finished.returncode}"
            raise GitError(f"git {words[0]} of {self._url} failed: {said}")
        return finished.stdout.strip()

    def answer(self, *words: str) -> tuple[int, str]:
        """Run a command of git in it, and return its exit code and what it prints."""
        finished = self._finished(words)
        return finished.returncode, finished.stdout.strip()

    def _finished(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        # All else is the agent's to set, such as GIT_SSL_CAINFO for an authority of the company's own.
        own = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        quiet = {
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
            "GIT_CEILING_DIRECTORIES": str(self.folder.resolve().parent),
        }
        line = ["git", "-C", str(self.folder), *_OPTIONS, *words]
        try:
            return _limited(line, {**own, **quiet, **self._variables})
        except FileNotFoundError:
            raise RefusedError("`git` is not on PATH: install it") from None
        except subprocess.TimeoutExpired:
            raise GitError(f"git {words[0]} of {self._url} did not end in {_SECONDS:.0f} s") from None


def _limited(line: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, or end it and all that it started: a helper that is left would still write.

    Raises:
        subprocess.TimeoutExpired: If it takes too long.
    """
    with subprocess.Popen(
        line,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            said, errors = process.communicate(timeout=_SECONDS)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(line, process.returncode, said, errors)


@contextmanager
def credentials() -> Generator[Mapping[str, str]]:
    """Yield variables with which git has Gitea's token: no argument, no file and no URL has it.

    Without a token the repositories have to be public.

    Raises:
        RefusedError: If ``$GITEA_TOKEN_FILE`` is not readable.
    """
    if not any(os.environ.get(name) for name in (keys.GITEA_TOKEN, f"{keys.GITEA_TOKEN}_FILE")):
        yield {}
        return
    with askpass(keys.secret(keys.GITEA_TOKEN, "an access token of Gitea")) as variables:
        yield variables


@contextmanager
def askpass(token: str) -> Generator[Mapping[str, str]]:
    """Yield variables with which git answers a server's question for a password with a token."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        script = Path(folder) / "askpass"
        script.write_text(_ASKPASS, encoding="utf-8")
        script.chmod(0o700)
        yield {"GIT_ASKPASS": str(script), _TOKEN_VARIABLE: token}
