"""Running pulumi: watched and stoppable where it changes something, plainly where it only reads.

It speaks to the CLI as Pulumi's Automation API does (``--event-log``, ``--exec-kind auto.local``), without importing
that: see docs/adr/0010-release-drives-the-cli.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import unquote, urlsplit

from model.release import INSTRUCTION_VARIABLE, Instruction
from release import language_host
from release.errors import PulumiError, RefusedError
from release.events import Event, parse_event
from release.inputs import Program
from release.language_host import LanguageHost
from release.objects import Object, inner, items

MARK_VARIABLE = "PACKAGE_PLATFORM_RELEASE_RUN"
"""In the environment of all that changes a stack: its key, so that orphans of a killed run are found."""
_READING_COMMAND = "preview"
"""Takes no turn, so that a release that begins meanwhile must not take it for something that a killed run left."""
_FOLDER = "package-platform-release-"
_KEY_CHARACTERS = 16
READ_SECONDS = 120.0
_AUTOMATION = {
    "PULUMI_SKIP_UPDATE_CHECK": "true",
    "PULUMI_AUTOMATION_API": "true",
    "PULUMI_DEBUG_COMMANDS": "true",  # without it the CLI does not know --event-log and --exec-kind
}
_GUARD = Path(__file__).with_name("guard.py")
_ALWAYS = ("--non-interactive", "--color=never")
PROGRAM_COMMANDS = ("up", "preview")
"""Those that run the program."""
_UP = ("--yes", "--skip-preview", "--suppress-outputs", "--suppress-progress", "--exec-kind=auto.local")


@dataclass(frozen=True)
class Pulumi:
    """The ``pulumi`` on PATH, for one stack.

    Args:
        program: The stack's program.
    """

    program: Program

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every command; never with an instruction of somebody else's."""
        own = {name: value for name, value in os.environ.items() if name != INSTRUCTION_VARIABLE}
        return {**own, **_AUTOMATION}

    @property
    def key(self) -> str:
        """What tells the stack from all others, also in other backends."""
        return sha256(
            f"{self.backend}\0{self.program.pulumi_project['name']}\0{self.program.stack}".encode()
        ).hexdigest()

    @property
    def backend(self) -> str:
        """URL of the backend, found as the CLI does: the environment, ``Pulumi.yaml``, the last login."""
        own = cast("Mapping[str, Any]", self.program.pulumi_project.get("backend") or {})
        return os.environ.get("PULUMI_BACKEND_URL") or str(own.get("url") or "") or _logged_in()

    @property
    def backend_folder(self) -> Path | None:
        """The folder ``.pulumi`` of a backend that is a folder; None for any other."""
        if not self.backend.startswith("file://"):
            return None
        parts = urlsplit(self.backend)
        path = Path(unquote(parts.netloc + parts.path)).expanduser()
        return (path if path.is_absolute() else self.program.folder / path) / ".pulumi"

    @property
    def lock_folder(self) -> Path | None:
        """Where the stack's locks are in a backend that is a folder; None for any other."""
        return self._of_stack("locks", "")

    def checkpoint(self) -> bytes:
        """Return the stack's state as it is stored, empty when there is none or it can't be read without the CLI."""
        for ending in (".json", ".json.gz"):
            path = self._of_stack("stacks", ending)
            if path and path.exists():
                if ending == ".json":
                    return path.read_bytes()
                import gzip  # noqa: PLC0415 - rarely used, and start-up counts

                return gzip.decompress(path.read_bytes())
        return b""

    def stored(self) -> bytes:
        """Return the stack's state as it is stored, or as the CLI tells it where it can't be read without that."""
        return self.checkpoint() or self.read("stack", "export").encode()

    def _of_stack(self, kind: str, ending: str) -> Path | None:
        folder = self.backend_folder
        project = str(self.program.pulumi_project["name"])
        middle = "organization" if kind == "locks" else ""
        return folder / kind / middle / project / f"{self.program.stack}{ending}" if folder else None

    def read(self, *arguments: str) -> str:
        """Run a command that changes nothing in the cluster, and return what it prints.

        Raises:
            PulumiError: If it failed; its lines are the command's.
        """
        line = ["pulumi", *arguments, *_ALWAYS, f"--stack={self.program.stack}"]
        try:
            finished = subprocess.run(
                line,
                cwd=self.program.folder,
                env=self.variables,
                capture_output=True,
                encoding="utf-8",  # whatever this user's locale is
                errors="replace",
                timeout=READ_SECONDS,
                check=False,
                start_new_session=True,  # Ctrl-C is for this process, which notes it while something changes
            )
        except FileNotFoundError:
            raise RefusedError("`pulumi` is not on PATH: install it, or `. .dev/env`") from None
        except subprocess.TimeoutExpired:
            raise PulumiError(f"`pulumi {arguments[0]}` did not end within {READ_SECONDS:.0f} s") from None
        if finished.returncode != 0:
            said = (finished.stderr.strip() or finished.stdout.strip()).splitlines()
            raise PulumiError([f"`pulumi {' '.join(arguments[:2])}` failed:", *said])
        return finished.stdout

    def history(self, count: int) -> list[dict[str, Any]]:
        """Return the stack's latest updates, the newest first, as ``pulumi stack history --json`` tells them."""
        told = self.read("stack", "history", "--json", "--full-dates", f"--page-size={count}", "--page=1")
        return cast("list[dict[str, Any]]", json.loads(told or "[]"))

    def state(self) -> dict[str, Any]:
        """Return the stack's state (``pulumi stack export``), secrets encrypted."""
        return cast("dict[str, Any]", json.loads(self.read("stack", "export")))

    def replace_state(self, state: Mapping[str, Any]) -> None:
        """Make another state the stack's (``pulumi stack import``).

        Args:
            state: As ``state`` returns it.

        Raises:
            PulumiError: If it is refused.
        """
        with tempfile.TemporaryDirectory(prefix=_prefix(self.key)) as folder:
            file = Path(folder) / "state.json"
            file.write_text(json.dumps(state), encoding="utf-8")
            self.read("stack", "import", f"--file={file}")

    def children(self, urn: str) -> list[str]:
        """Return the URNs of a component's own resources, from the state."""
        return [str(each["urn"]) for each in items(self.deployed(), "resources") if each.get("parent") == urn]

    def deployed(self) -> Object:
        """Return what the state has below ``deployment``: all resources as they were applied, secrets encrypted."""
        content = cast("Object", json.loads(self.stored()))
        return inner(content, "checkpoint", "latest") or inner(content, "deployment")

    def load_program(self) -> LanguageHost | None:
        """Start to load the program for a run that follows; None where Pulumi's own language host is to do it."""
        return language_host.start(self.program)

    def start(self, command: Command, held: Sequence[int] = (), loaded: LanguageHost | None = None) -> Run:
        """Start a command that changes something.

        Args:
            command: What to run.
            held: Descriptors of locks, which stay held until nothing of the command is left.
            loaded: The program, if its loading was begun before; it ends with the run.
        """
        return Run(self, command, held, loaded)


@dataclass(frozen=True)
class Command:
    """A command of pulumi that changes something.

    Args:
        words: The command with its own options.
        config: Text of the stack file to run with.
        instruction: What the program is told; None for a plain run.
    """

    words: tuple[str, ...]
    config: str
    instruction: Instruction | None = None


def up(config: str, message: str, instruction: Instruction | None = None, urn: str = "", *options: str) -> Command:
    """Return the command that brings a project, or the whole stack, to what is wanted.

    Args:
        config: Text of the stack file to run with.
        message: Why, for ``pulumi stack history``.
        instruction: What the program is told; None for a plain run of the whole stack.
        urn: Of the one component to touch; needed with an instruction, as what is targeted and not registered would
            be deleted, and what is registered and not targeted would be left.
        options: More options of ``pulumi up``.
    """
    if bool(instruction) != bool(urn):
        raise ValueError("an instruction and a target belong together")
    target = (f"--target={urn}", "--target-dependents") if urn else ()
    return Command(("up", *_UP, f"--message={message}", *target, *options), config, instruction)


class Run:
    """A running command of pulumi; used as a context, nothing of it is left afterwards."""

    def __init__(
        self, pulumi: Pulumi, command: Command, held: Sequence[int], loaded: LanguageHost | None = None
    ) -> None:
        """Start it; see ``Pulumi.start``."""
        changes = command.words[0] != _READING_COMMAND
        self._folder = Path(tempfile.mkdtemp(prefix=_prefix(pulumi.key if changes else _READING_COMMAND)))
        config = self._folder / "stack.yaml"
        config.write_text(command.config, encoding="utf-8")
        self._events = self._folder / "events"
        self._events.touch()
        self._output = self._folder / "output"
        self._errors = self._folder / "errors"
        self._rest = b""
        self._read_to = 0
        line = ["pulumi", *command.words, *_ALWAYS, f"--stack={pulumi.program.stack}"]
        line += [f"--config-file={config}", f"--event-log={self._events}"]
        told: dict[str, str] = {}
        if command.instruction:
            told[INSTRUCTION_VARIABLE] = command.instruction.model_dump_json(exclude_none=True)
        self._program = self._served(pulumi, command, loaded)
        if self._program:
            self._program.tell({**pulumi.variables, **told})
            line.append(f"--client={self._program.address}")
            held = (*held, self._program.descriptor)
        variables = {**pulumi.variables, **told, **({MARK_VARIABLE: pulumi.key} if changes else {})}
        self._control, self._process = self._launch(line, pulumi.program.folder, variables, held)

    @staticmethod
    def _served(pulumi: Pulumi, command: Command, loaded: LanguageHost | None) -> LanguageHost | None:
        """Return the program, loaded far enough to be called; None where Pulumi's own language host is to load it."""
        runs = command.words[0] in PROGRAM_COMMANDS
        host = loaded or (pulumi.load_program() if runs else None)
        if host and not (runs and host.serves()):
            host.close()
            return None
        return host

    def _launch(
        self, line: Sequence[str], folder: Path, variables: Mapping[str, str], held: Sequence[int]
    ) -> tuple[int, subprocess.Popen[bytes]]:
        listens, control = os.pipe()
        guard = [sys.executable, "-I", "-S", str(_GUARD), str(listens), str(self._folder), "--", *line]
        try:
            with self._output.open("wb") as output, self._errors.open("wb") as errors:
                process = subprocess.Popen(
                    guard,
                    cwd=folder,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    pass_fds=(listens, *held),
                    start_new_session=True,
                )
        finally:
            os.close(listens)
        return control, process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
        self._process.wait()
        if self._program:
            self._program.close()
        os.close(self._control)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def code(self) -> int | None:
        """The exit code, 128 + signal where one ended it; None while it runs."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def pid(self) -> int:
        """The leader of its session."""
        return self._process.pid

    def wait(self, seconds: float) -> bool:
        """Wait until it ends, at most so long; tell whether it did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def events(self) -> Iterator[Event]:
        """Yield what happened since the last call."""
        with self._events.open("rb") as file:
            file.seek(self._read_to)
            text = file.read()
        self._read_to += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            event = parse_event(line.decode(errors="replace"))
            if event:
                yield event

    def answer(self) -> str:
        """Return what it printed on standard output so far: what a machine reads, without warnings."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def output(self) -> str:
        """Return all that it printed so far, the errors after the rest."""
        printed = self._program.output() if self._program else ""
        return self.answer() + self._errors.read_text(encoding="utf-8", errors="replace") + printed

    def interrupt(self) -> None:
        """Ask it to stop: pulumi cancels what runs, saves its state and gives its lock back."""
        self._tell(b"i")

    def kill(self) -> None:
        """End it and everything that it started."""
        self._tell(b"k")

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, word)


def end_leftovers(key: str) -> int:
    """Kill what a killed run of a stack left on this host, and return how many processes that were.

    Its folders below the one for temporary files go too. Only to be called while this process holds the stack and runs
    nothing: then no other run's are there.

    Args:
        key: The stack's, as in ``Pulumi.key``.
    """
    mark = f"{MARK_VARIABLE}={key}".encode()
    count = 0
    for entry in os.scandir("/proc") if Path("/proc/self").exists() else ():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                count += _kill_marked(int(entry.name), mark)
    for folder in Path(tempfile.gettempdir()).glob(f"{_prefix(key)}*"):
        shutil.rmtree(folder, ignore_errors=True)  # one of another user stays
    return count


def _prefix(key: str) -> str:
    """Return what the names of a stack's temporary folders begin with."""
    return f"{_FOLDER}{key[:_KEY_CHARACTERS]}-"


def _kill_marked(pid: int, mark: bytes) -> bool:
    """Kill a process that carries the mark; the hold on it makes sure that it is still the same one."""
    environment = Path(f"/proc/{pid}/environ")
    if environment.stat().st_uid != os.getuid():  # another user's runs are kept apart by Pulumi's lock only
        return False
    if mark not in environment.read_bytes().split(b"\0"):
        return False
    hold = os.pidfd_open(pid)
    try:
        marked = mark in environment.read_bytes().split(b"\0")
        if marked:
            signal.pidfd_send_signal(hold, signal.SIGKILL)
        return marked
    finally:
        os.close(hold)


def _logged_in() -> str:
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    try:
        return str(json.loads((home / "credentials.json").read_text(encoding="utf-8")).get("current") or "")
    except (OSError, ValueError):
        return ""
