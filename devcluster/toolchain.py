"""Builds the programs of the table from pinned Go modules, once for each state of their inputs.

A program lies in `<cache>/tools/<tool>-<hash>/`, where the hash covers every input of its build, so that all
work trees of a user share it and a change of any input leads to another folder. `<root>/.dev/bin` holds links.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

from devcluster import debian
from devcluster.failure import SetupError
from devcluster.progress import Progress
from devcluster.tooltable import TOOLS, PatchedModule, Tool

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_PULUMI_VARIABLE = "PACKAGE_PLATFORM_SYSTEM_PULUMI"
CACHE_VARIABLE = "PACKAGE_PLATFORM_CACHE"

_SYSTEM_PULUMI_TOOLS = ("pulumi", "pulumi-language-python", "pulumi-resource-kubernetes")
# The linker drops debugging information (`-s -w`); the compiler need not make it, a fifth of its work.
_BUILD_FLAGS = ("-trimpath", "-mod=readonly", "-gcflags=all=-dwarf=false")
_HASH_LENGTH = 12
_LOG_TAIL_LINES = 15
_BY_NAME = {tool.name: tool for tool in TOOLS}


def uses_system_pulumi() -> bool:
    """Tell whether the user wants the `pulumi` that is on PATH already, with the provider that it downloads."""
    return os.environ.get(SYSTEM_PULUMI_VARIABLE) == "1"


def ensure(names: Sequence[str], progress: Progress) -> None:
    """Make each named program callable as `<root>/.dev/bin/<name>`, building what the cache lacks.

    Programs of the operating system that they need are installed too. Builds run one after another, because
    linking the largest takes 3 GB of memory.

    Args:
        names: of tools in the table.
        progress: told of every build and installation; silent when there is nothing to do.

    Raises:
        SetupError: an unknown name, Go is missing or too old, or a build or an installation failed.
    """
    tools = [find(name) for name in names]
    if uses_system_pulumi():
        _check_system_pulumi()
        tools = [tool for tool in tools if tool.name not in _SYSTEM_PULUMI_TOOLS]
        _unlink(_SYSTEM_PULUMI_TOOLS)
    debian.ensure_installed((program for tool in tools for program in tool.needs), progress)
    for tool in tools:
        _link(build(tool, progress))


def find(name: str) -> Tool:
    """Return the row of the table with that name.

    Raises:
        SetupError: there is none.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise SetupError(f"no tool is called {name!r}; the table has {', '.join(_BY_NAME)}") from None


def cache_folder() -> Path:
    """Return the folder that outlives work trees: `PACKAGE_PLATFORM_CACHE`, or one below `XDG_CACHE_HOME`."""
    if explicit := os.environ.get(CACHE_VARIABLE):
        return Path(explicit).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "package-platform"


def build(tool: Tool, progress: Progress, source: Path | None = None) -> Path:
    """Return the folder that holds the built program under its name, its aliases and its files.

    Two builders of one tool wait for each other, and a build that was killed leaves nothing that counts.

    Args:
        tool: what to build.
        progress: told of a build; a cached program is no step.
        source: the tool's folder; below this package unless given.

    Raises:
        SetupError: Go is missing or too old, or the build failed.
    """
    source = source or source_folder(tool)
    version = _go_version(source)
    target = cache_folder() / "tools" / f"{tool.name}-{input_hash(tool, source, version)}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent / f"{tool.name}.lock", f"wait for another build of {tool.name}", progress) as lock:
        if not target.is_dir():
            with progress.step(f"build {tool.name} {tool.version}".strip()):
                _build_beside(tool, source, target, lock)
    return target


def source_folder(tool: Tool) -> Path:
    """Return the folder of a tool's Go module."""
    return ROOT / "devcluster" / (tool.folder or f"tools/{tool.name}")


def input_hash(tool: Tool, source: Path, go_version: str) -> str:
    """Return the hash of everything that decides what a build makes.

    Args:
        tool: its row of the table.
        source: the folder whose files count, save hidden ones and tests.
        go_version: what `go env` says of the compiler and its target.
    """
    digest = hashlib.sha256()
    # What the finished program needs to run does not change how it is built.
    recipe = [repr(dataclasses.replace(tool, needs=())), go_version, repr(_BUILD_FLAGS)]
    if tool.patched:
        recipe.append(inspect.getsource(_copy_patched) + inspect.getsource(_edit))
    if tool.tags or tool.cgo:
        recipe.append(repr((tool.tags, tool.cgo)))
    for part in recipe:
        digest.update(part.encode() + b"\0")
    for path in _input_files(source):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(source)}\0{content}\0".encode())
    return digest.hexdigest()[:_HASH_LENGTH]


@contextlib.contextmanager
def locked(path: Path, waiting: str, progress: Progress) -> Generator[int]:
    """Hold an exclusive lock between processes, which ends with the last process that has it open.

    Args:
        path: the lock's file; made, and never removed.
        waiting: title of the step while another process has it.
        progress: told of that step.

    Yields:
        The lock's file descriptor, for a child that has to keep the lock should this process be killed.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step(waiting):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextlib.contextmanager
def replacing_folder(target: Path) -> Generator[Path]:
    """Give an empty folder that becomes `target` when the body ends well, and vanishes when it does not.

    The caller holds a lock for `target`, so an older unfinished folder of that name belongs to a killed process.
    """
    hashes = "[0-9a-f]" * _HASH_LENGTH
    for stale in target.parent.glob(f".{target.name[:-_HASH_LENGTH]}{hashes}-*.unfinished"):
        shutil.rmtree(stale)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".unfinished", dir=target.parent))
    try:
        unfinished.chmod(0o755)
        yield unfinished
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _build_beside(tool: Tool, source: Path, target: Path, lock: int) -> None:
    """Build in a temporary folder beside `target`, then rename it."""
    with replacing_folder(target) as unfinished, tempfile.TemporaryDirectory(dir=unfinished) as work:
        module = Path(work)
        copy_module(tool, source, module)
        _go_build(tool, module, unfinished / tool.name, target.with_suffix(".log"), lock)
        for alias in tool.aliases:
            (unfinished / alias).symlink_to(tool.name)
        for file in tool.files:
            folder = go(["list", "-m", "-f", "{{.Dir}}", file.module], module).strip()
            _copy_shipped(Path(folder) / file.path, unfinished / Path(file.path).name)


def copy_module(tool: Tool, source: Path, target: Path) -> None:
    """Copy what a build reads from a tool's folder into an empty one, with the patched copy of a dependency."""
    for path in _input_files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if tool.patched:
        _copy_patched(tool.patched, target)


def _copy_shipped(shipped: Path, target: Path) -> None:
    """Copy a file or a folder of a module; the module cache is read-only, the copy need not be."""
    if shipped.is_dir():
        shutil.copytree(shipped, target, copy_function=shutil.copyfile)
        for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        return
    shutil.copy(shipped, target)
    target.chmod(0o755)


def _go_build(tool: Tool, module: Path, output: Path, log: Path, lock: int) -> None:
    """Run `go build`; its output goes to `log`, which stays only when it fails.

    The child has the lock open too: should this process be killed, the next builder waits for the child
    instead of linking a second time beside it.
    """
    link_flags = " ".join(("-s -w", *tool.link_flags))
    tags = ["-tags", ",".join(tool.tags)] if tool.tags else []
    command = ["nice", "go", "build", *_BUILD_FLAGS, *tags, "-ldflags", link_flags, "-o", str(output), tool.package]
    with log.open("wb") as stream:
        done = subprocess.run(
            command,
            cwd=module,
            env={**_go_environment(), **({"CGO_ENABLED": "1"} if tool.cgo else {})},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            pass_fds=(lock,),
            check=False,
        )
    if done.returncode != 0:
        tail = log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        raise SetupError(f"building {tool.name} failed; see {log}", "\n".join(tail))
    log.unlink()


def _copy_patched(patched: PatchedModule, module: Path) -> None:
    """Put the changed copy of a module where the tool's `go.mod` expects it.

    The module is checked against `go.sum` here, as Go does not check what a folder replaces.
    """
    version = required_versions(module / "go.mod")[patched.module]
    download = json.loads(go(["mod", "download", "-json", f"{patched.module}@{version}"], Path("/")))
    wanted = f"{patched.module} {version} {download['Sum']}"
    if wanted not in (module / "go.sum").read_text().splitlines():
        raise SetupError(f"the checksum of {patched.module}@{version} is not the one in go.sum")
    copy = module / patched.folder
    ignore = shutil.ignore_patterns("*_test.go", "testdata", "e2e", "docs")
    # The module cache is read-only: modes are not copied.
    shutil.copytree(download["Dir"], copy, ignore=ignore, copy_function=shutil.copyfile)
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    for ours, theirs in patched.overlay:
        shutil.copyfile(module / ours, copy / theirs)
    for edit in patched.edits:
        _edit(copy / edit.path, edit.old, edit.new)


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    if text.count(old) != 1:
        raise SetupError(f"{file.name} of a patched module has `{old}` {text.count(old)} times, not once")
    file.write_text(text.replace(old, new))


def required_versions(go_mod: Path) -> dict[str, str]:
    """Return the version of every module that a `go.mod` requires, direct or not."""
    pattern = re.compile(r"^(?:require )?\s*([\w.~/-]+\.[\w.~/-]+) (v\S+)", re.MULTILINE)
    return dict(pattern.findall(go_mod.read_text()))


def _input_files(source: Path) -> list[Path]:
    """Return the files of a tool's folder that its build may read, sorted."""
    return sorted(
        path
        for path in source.rglob("*")
        if path.is_file()
        and not path.name.endswith("_test.go")
        and not any(part.startswith((".", "__")) for part in path.relative_to(source).parts)
    )


def _go_environment() -> dict[str, str]:
    """Return the environment of every `go` command: static binaries, and no setting of the user's work space.

    The compiler spends a quarter of its time on collecting garbage that fits into memory: it starts to do so at
    2 GiB, unless the user's environment says otherwise.
    """
    return {
        "GOGC": "off",
        "GOMEMLIMIT": "2GiB",
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false",
        "GOOS": "linux",
        "GOWORK": "off",
    }


def go(arguments: Sequence[str], folder: Path) -> str:
    """Run a short `go` command and return what it prints.

    Raises:
        SetupError: Go is missing, or the command failed.
    """
    try:
        done = subprocess.run(
            ["go", *arguments], cwd=folder, env=_go_environment(), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise SetupError("Go is not installed (no `go` on PATH): install Go 1.26 or newer") from None
    if done.returncode != 0:
        lines = (done.stderr.strip() or "no reason given").splitlines()
        raise SetupError(f"go {arguments[0]} failed: {lines[-1]}", "\n".join(lines))
    return done.stdout


@functools.cache
def _go_version(source: Path) -> str:
    """Return what identifies the compiler for a module, and check that it is new enough.

    Raises:
        SetupError: Go is missing, or older than the module's `go.mod` asks for.
    """
    question = ["env", "GOVERSION", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GOFIPS140"]
    match = re.search(r"^go (\S+)$", (source / "go.mod").read_text(), re.MULTILINE)
    wanted = match[1] if match else "1.26"
    answer = go(question, Path("/"))
    if _numbers(answer) < _numbers(wanted):
        # A Go from 1.21 on may fetch the newer one by itself, unless GOTOOLCHAIN=local forbids it.
        with contextlib.suppress(SetupError):
            answer = go(question, source)
    found = answer.split("\n", 1)[0]
    if _numbers(answer) < _numbers(wanted):
        raise SetupError(f"Go {wanted} or newer is needed, and this is {found}: install a newer Go")
    return answer


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading `major.minor.patch` of a text such as `go1.26.8` as numbers; missing ones are 0."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(part or 0) for part in match.groups()) if match else (0, 0, 0)


def _check_system_pulumi() -> None:
    """Refuse a `pulumi` on PATH that is missing, ours, or not of the right version.

    Raises:
        SetupError: says which.
    """
    wanted = find("pulumi").version
    remedy = f"install Pulumi {wanted} or a newer 3.x, or unset {SYSTEM_PULUMI_VARIABLE}"
    ours = {str(_links_folder()), str(_links_folder().resolve())}
    folders = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part not in ours]
    program = shutil.which("pulumi", path=os.pathsep.join(folders))
    if program is None:
        raise SetupError(f"{SYSTEM_PULUMI_VARIABLE}=1, but there is no pulumi on PATH: {remedy}")
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    found = _numbers(done.stdout)
    if done.returncode != 0 or found < _numbers(wanted) or found[0] != _numbers(wanted)[0]:
        raise SetupError(f"{program} is {done.stdout.strip() or 'of no known version'}: {remedy}")


def _links_folder() -> Path:
    return ROOT / ".dev" / "bin"


def _link(folder: Path) -> None:
    """Link everything that a build made into the work tree's `.dev/bin`, each link replaced at once."""
    links = _links_folder()
    links.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            continue
        link = links / path.name
        if link.is_symlink() and link.readlink() == path:
            continue
        fresh = links / f".{path.name}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(path)
        fresh.rename(link)


def _unlink(names: Sequence[str]) -> None:
    """Take away our own links to tools that the machine's own take the place of."""
    for name in names:
        tool = find(name)
        for link in (name, *(Path(file.path).name for file in tool.files)):
            (_links_folder() / link).unlink(missing_ok=True)
