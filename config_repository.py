"""The config repository, read with git at a commit: neither its work tree nor its index matters.

Only objects are read, by ``git`` itself (https://git-scm.com/docs/git-cat-file): no hook, filter or checkout is run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

from model.configuration import Content, Entry, Found, build, find, stored
from model.problems import Problem, SettingsError
from model.release import ConfigRef
from model.sops import encrypted_values
from model.stack import NAMESPACE, Application, Stack, stack_name
from sops import SopsError, decrypt

_SECONDS = 60.0
_WORDS = 4

FOREIGN = frozenset(
    {
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
        *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"),
        *("GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE"),
    }
)
"""Variables that a git hook or an outer git command leaves, and that would lead git to another repository."""

State = Callable[[], Mapping[str, object]]
"""Answers URN → ``{type, outputs}`` of the stack's resources."""


class ConfigRepositoryError(Exception):
    """The repository can't be read; the message says why and what to do."""


class ConfigRepository:
    """A checkout of the config repository."""

    def __init__(self, folder: Path) -> None:
        """Prepare to read.

        Args:
            folder: Of the checkout; a bare repository will do as well.
        """
        self.folder = folder
        self._trees: dict[str, dict[str, Entry]] = {}
        self._commits: dict[str, str] = {}
        self._decrypted: dict[tuple[str, str], bytes] = {}

    def commit(self, revision: str) -> str:
        """Return the whole name of a commit.

        Args:
            revision: Any name that git knows for it; empty for what is checked out (``HEAD``).

        Raises:
            ConfigRepositoryError: If there is no such commit here.
        """
        if revision not in self._commits:
            words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision or 'HEAD'}^{{commit}}")
            code, answer, _ = self._run(*words)
            if code:
                what = f"has no commit {revision}: `git -C {self.folder} fetch`" if revision else "has no commit yet"
                raise ConfigRepositoryError(f"{self._checked} {what}")
            self._commits[revision] = answer.decode().strip()
        return self._commits[revision]

    def tree(self, commit: str) -> Mapping[str, Entry]:
        """Return path → entry, for every file of a commit.

        Args:
            commit: As ``commit`` returns it.

        Raises:
            ConfigRepositoryError: If it can't be read.
        """
        if commit not in self._trees:
            # NUL-separated: "<mode> <type> <object> <size>\t<path>"
            listed = self._read("ls-tree", "-r", "-l", "-z", "--full-tree", commit).decode(errors="surrogateescape")
            lines = (line.split("\t", 1) for line in listed.split("\0") if line)
            self._trees[commit] = {path: _entry(told) for told, path in lines}
        return self._trees[commit]

    def contents(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return git's name → bytes, for the contents of files.

        Args:
            names: As ``tree`` tells them.

        Raises:
            ConfigRepositoryError: If one is not here, as in a partial clone without its remote.
        """
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return {}
        answer = self._read("cat-file", "--batch", stdin="".join(f"{name}\n" for name in wanted).encode())
        found: dict[str, bytes] = {}
        at = 0
        for name in wanted:
            end = answer.index(b"\n", at)
            head = answer[at:end].decode().split(" ")
            if head[-1] == "missing" or head[1] != "blob":
                raise ConfigRepositoryError(f"{self.folder} lacks the content {name}: `git -C {self.folder} fetch`")
            size = int(head[2])
            found[name] = answer[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        return found

    def decrypted(self, path: str, name: str, content: bytes) -> bytes:
        """Return what was in a file before it was encrypted; one that many projects share is decrypted once.

        Args:
            path: In the repository.
            name: Git's name of its content.
            content: As it is stored.

        Raises:
            SopsError: If it can't be decrypted.
        """
        if (path, name) not in self._decrypted:
            self._decrypted[path, name] = decrypt(path, content)
        return self._decrypted[path, name]

    def is_older(self, commit: str, than: str) -> bool:
        """Tell whether a commit is an ancestor of another, or that other is not known here at all.

        Args:
            commit: As ``commit`` returns it.
            than: The whole name of the other.
        """
        if commit == than:
            return False
        return self._run("merge-base", "--is-ancestor", commit, than)[0] != 1

    @cached_property
    def _checked(self) -> Path:
        """The folder, once it is known to be a repository of its own."""
        if not self.folder.is_dir():
            raise ConfigRepositoryError(f"{self.folder} is no folder: clone the config repository there")
        self._read("rev-parse", "--git-dir")
        return self.folder

    def _read(self, *words: str, stdin: bytes = b"") -> bytes:
        code, answer, said = self._run(*words, stdin=stdin)
        if code:
            raise ConfigRepositoryError(f"git can't read {self.folder}: {said or f'exit code {code}'}")
        return answer

    def _run(self, *words: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        try:
            finished = subprocess.run(
                ["git", "-C", str(self.folder), *words],
                env=self._variables(),
                input=stdin,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise ConfigRepositoryError("`git` is not on PATH: install it") from None
        except subprocess.TimeoutExpired:
            raise ConfigRepositoryError(f"`git {words[0]}` in {self.folder} did not end in {_SECONDS:.0f} s") from None
        said = " ".join(finished.stderr.decode(errors="replace").split())
        return finished.returncode, finished.stdout, said

    def _variables(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        # A folder that is no repository must not be taken for a part of one around it.
        ceiling = str(self.folder.resolve().parent)
        return {**own, "GIT_CEILING_DIRECTORIES": ceiling, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def read(  # noqa: PLR0913 - where to read, and what
    repository: ConfigRepository,
    application: Application,
    environment: str,
    revision: str,
    shown: str,
    *,
    decrypting: bool = False,
    whole: bool = True,
) -> Content | None:
    """Return a project's configuration at a commit; None for a project that has none.

    Args:
        repository: The config repository.
        application: The project.
        environment: Name of the environment.
        revision: The commit; empty for the one that is checked out.
        shown: What people call the repository, for errors.
        decrypting: Whether encrypted files are decrypted; without that the content has their hash alone.
        whole: Whether it is a problem that a file is missing; otherwise the content lacks it.

    Raises:
        ConfigRepositoryError: If the repository can't be read.
        SettingsError: With a line for each file that is missing or wrong.
    """
    wanted, project = application.project.config, application.gitea_name
    if wanted is None:
        return None
    problems: list[Problem] = []
    commit = repository.commit(revision)
    found = find(wanted, environment, project, repository.tree(commit), problems if whole else [])
    if problems:
        raise SettingsError(problems)
    contents = repository.contents(each.entry.name for each in found)
    content = build(
        found,
        contents,
        commit,
        repository=shown,
        project=project,
        taken=application.project.variables,
        of_pods=application.project.pod_variables,
        decrypted=_decrypted(repository, found, contents, shown, problems) if decrypting else None,
        problems=problems,
    )
    if problems:
        raise SettingsError(problems)
    return content


def _decrypted(
    repository: ConfigRepository,
    found: Iterable[Found],
    contents: Mapping[str, bytes],
    shown: str,
    problems: list[Problem],
) -> dict[str, bytes]:
    """Return git's name → what was in each encrypted file, without those that can't be decrypted."""
    decrypted: dict[str, bytes] = {}
    for each in found:
        content = contents[each.entry.name]
        if each.secret and encrypted_values(each.path, content) is not None:
            try:
                decrypted[each.entry.name] = repository.decrypted(each.path, each.entry.name, content)
            except SopsError as error:
                problems.append(Problem(f"{shown}/{each.path}", "", str(error)))
    return decrypted


def configured(stack: Stack, program: Path, file: str, state: State) -> Stack:
    """Return the stack, in which every project has the configuration that its slots need.

    Args:
        stack: With the records of what runs.
        program: Folder of the program.
        file: Name of the stack file, for errors.
        state: Asked where a slot's own configuration can't be made again from the repository.

    Raises:
        SettingsError: With a line for each file that is missing or wrong, and each project that would go back.
    """
    reader = _Reader(stack, program, file, state)
    applications = tuple(reader.configured(each) if each.image else each for each in stack.applications)
    if reader.problems:
        raise SettingsError(reader.problems)
    return stack.model_copy(update={"applications": applications})


def goes_back(repository: ConfigRepository, content: Content, runs: ConfigRef | None) -> bool:
    """Tell whether a configuration is older than the one that runs, or might be: its commit is not known here.

    Raises:
        ConfigRepositoryError: If the repository can't be read.
    """
    return runs is not None and content.ref != runs and repository.is_older(content.ref.revision, runs.revision)


class _Reader:
    """Reads what the projects of one stack need, and notes every problem."""

    def __init__(self, stack: Stack, program: Path, file: str, state: State) -> None:
        self.problems: list[Problem] = []
        self._stack = stack
        self._file = file
        self._state = state
        self._repository = ConfigRepository(program / stack.config_path) if stack.config_path else None

    @cached_property
    def _resources(self) -> Mapping[str, object]:
        return self._state()

    def configured(self, application: Application) -> Application:
        """Return a project with its configuration, and those of its slots."""
        contents: dict[str, Content] = {}
        ref = application.config
        if application.project.config and not application.keeps_config:
            content = self._wanted(application)
            if content is None:
                return application
            ref, contents = content.ref, {content.ref.key: content}
        record = application.record
        slots = [slot.release.config for slot in record.slots.values()] if record else []
        needed = {each.key: each for each in (*slots, ref) if each}
        for key, each in needed.items():
            if key not in contents and (content := self._recorded(application, each)):
                contents[key] = content
        # What neither the repository nor the state has is not declared, and so not touched either. Pods that are
        # made anew must have theirs.
        started = needed if application.action == "restore" else {ref.key: ref} if ref else {}
        self.problems += [
            Problem(
                application.file,
                "config",
                f"its configuration of commit {each.revision[:12]} is in neither the config repository nor the stack's "
                "state: fetch that commit",
            )
            for key, each in started.items()
            if key not in contents
        ]
        return application.model_copy(update={"config": ref, "contents": contents})

    def _wanted(self, application: Application) -> Content | None:
        """Return the configuration that is asked for; None where there is a problem."""
        where = f"{NAMESPACE}:configPath"
        if self._repository is None:
            message = f"is needed, as {application.file} has config: name a checkout of the config repository"
            self.problems.append(Problem(self._file, where, message))
            return None
        try:
            content = self._read(self._repository, application, application.config_revision)
            if content and self._goes_back(self._repository, application, content):
                return None
        except ConfigRepositoryError as error:
            if application.config_revision:
                where = f"{NAMESPACE}:configRevisions.{application.gitea_name}"
            self.problems.append(Problem(self._file, where, str(error)))
        except SettingsError as error:
            ran = self._as_it_ran(application) if application.returns_to else None
            if ran and not (self._repository and self._goes_back(self._repository, application, ran)):
                return ran
            self.problems += () if ran else error.problems
        else:
            return content
        return None

    def _as_it_ran(self, application: Application) -> Content | None:
        """Return the configuration with which the wanted tag ran at the wanted commit, if it did.

        The project file may ask for more by now, which that commit does not have: no reason to refuse a way back.
        """
        record, image, revision = application.record, application.image, application.config_revision
        if record is None or image is None or not revision:
            return None
        known = [*record.history, *(slot.release for slot in record.slots.values())]
        refs = [each.config for each in known if each.tag == image.tag and each.config]
        matching = (ref for ref in refs if ref.revision.startswith(revision))
        return next((content for ref in matching if (content := self._recorded(application, ref))), None)

    def _recorded(self, application: Application, ref: ConfigRef) -> Content | None:
        """Return a configuration that a slot runs with, from the repository or, failing that, from the state.

        The repository alone would not do: the project file may ask for other files by now.
        """
        if self._repository and application.project.config:
            try:
                content = self._read(self._repository, application, ref.revision, whole=False)
            except (ConfigRepositoryError, SettingsError):
                content = None
            if content and content.ref == ref:
                return content.model_copy(update={"ref": ref})
        return stored(self._resources, application.name, ref)

    def _read(
        self, repository: ConfigRepository, application: Application, revision: str, *, whole: bool = True
    ) -> Content | None:
        shown, environment = str(self._stack.config_path), self._stack.environment.name
        return read(repository, application, environment, revision, shown, decrypting=True, whole=whole)

    def _goes_back(self, repository: ConfigRepository, application: Application, content: Content) -> bool:
        record = application.record
        runs = record.release.config if record else None
        if record is None or runs is None or content.ref == runs or self._stack.allows_older(application):
            return False
        tag = application.image.tag if application.image else ""
        # Released once and rolled back since: the live one is the older of the two. A commit that reverts is not.
        rolled_back = [each.config for each in record.history if each.tag == tag and each.config == content.ref]
        if not goes_back(repository, content, runs) and not any(
            each and repository.is_older(runs.revision, each.revision) for each in rolled_back
        ):
            return False
        name = application.gitea_name
        message = (
            f"commit {content.ref.revision[:12]} was replaced by {runs.revision[:12]}, which runs, or that is not in "
            "the checkout: bring it up to date (`git pull`, a shallow clone with `git fetch --unshallow`), or name a "
            "commit; to go there, "
            f"`release deploy {name} {tag} -s {stack_name(self._file)} --config-rev {content.ref.revision}`, "
            f"or `-c {NAMESPACE}:allowOlder={name}`"
        )
        self.problems.append(Problem(self._file, f"{NAMESPACE}:configRevisions.{name}", message))
        return True


def _entry(told: str) -> Entry:
    words = told.split()
    mode, _, name, size = words[:_WORDS]
    return Entry(mode, name, 0 if size == "-" else int(size))
