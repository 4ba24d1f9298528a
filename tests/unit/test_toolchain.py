"""The caching build, with a small program in the place of `go`: no network, no compiler."""

import dataclasses
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devcluster import debian, toolchain
from devcluster.failure import SetupError
from devcluster.progress import Progress
from devcluster.tooltable import TOOLS, Edit, ModuleFile, PatchedModule, SystemProgram, Tool

FAKE_GO = """#!/bin/sh
case "$1" in
env) echo "${FAKE_GO_VERSION:-go1.26.8}"; echo amd64;;
list) echo "$FAKE_MODULE";;
mod) echo "{\\"Dir\\": \\"$FAKE_MODULE\\", \\"Sum\\": \\"h1:right=\\"}";;
build)
  echo build >> "$FAKE_LOG"
  while [ "$1" != -o ]; do shift; done
  sleep "${FAKE_SECONDS:-0}"
  [ -z "$FAKE_FAILURE" ] || { echo "main.go:1: $FAKE_FAILURE" >&2; exit 1; }
  { echo "#!/bin/sh"; cat main.go; [ ! -d lego ] || sed "s/^/# /" lego/providers/dns.go; } > "$2"
  chmod +x "$2";;
esac
"""
TOOL = Tool("hello", package=".")
MISSING = SystemProgram("no-such-program-here", "some-package")


def _write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache, a work tree of its own, and `go` replaced."""
    _write_program(tmp_path / "bin" / "go", FAKE_GO)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PACKAGE_PLATFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "builds"))
    monkeypatch.setattr(toolchain, "ROOT", tmp_path / "root")
    return tmp_path / "cache" / "tools"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "devcluster" / "tools" / "hello"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module hello\n\ngo 1.26.0\n")
    (folder / "go.sum").write_text("")
    (folder / "main.go").write_text("echo hello\n")
    return folder


def _builds(cache: Path) -> int:
    log = cache.parent.parent / "builds"
    return len(log.read_text().splitlines()) if log.exists() else 0


def _build(tool: Tool = TOOL) -> Path:
    return toolchain.build(tool, Progress(quiet=True))


def _rows_with_a_module() -> list[Tool]:
    return [tool for tool in TOOLS if tool.module]


@pytest.mark.parametrize("tool", _rows_with_a_module(), ids=lambda tool: tool.name)
def test_row_names_the_version_that_its_go_mod_pins(tool: Tool) -> None:
    folder = toolchain.source_folder(tool)
    assert toolchain.required_versions(folder / "go.mod")[tool.module] == tool.version
    assert f"{tool.module} {tool.version} h1:" in (folder / "go.sum").read_text()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_row_has_what_its_build_reads(tool: Tool) -> None:
    folder = toolchain.source_folder(tool)
    go_mod = (folder / "go.mod").read_text()
    assert tool.package != "." or (folder / "main.go").is_file()
    assert tool.package == "." or f"tool {tool.package}\n" in go_mod
    if tool.patched:
        assert f"replace {tool.patched.module} => ./{tool.patched.folder}\n" in go_mod
        version = toolchain.required_versions(folder / "go.mod")[tool.patched.module]
        assert f"\n{tool.patched.module} {version} h1:" in (folder / "go.sum").read_text()
        assert all((folder / ours).is_file() for ours, _ in tool.patched.overlay)


def test_program_is_built_once_and_linked(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source.is_dir()
    tool = dataclasses.replace(TOOL, aliases=("hi",))
    monkeypatch.setattr(toolchain, "_BY_NAME", {"hello": tool})
    toolchain.ensure(["hello"], Progress(quiet=True))
    again = Progress(quiet=True)
    toolchain.ensure(["hello"], again)
    links = cache.parent.parent / "root" / ".dev" / "bin"
    said = [subprocess.check_output([links / name], text=True) for name in ("hello", "hi")]
    assert said == ["hello\n", "hello\n"]
    assert _builds(cache) == 1
    assert again.times == []


def test_changed_source_moves_the_link_to_a_new_build(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_BY_NAME", {"hello": TOOL})
    toolchain.ensure(["hello"], Progress(quiet=True))
    (source / "main.go").write_text("echo changed\n")
    toolchain.ensure(["hello"], Progress(quiet=True))
    link = cache.parent.parent / "root" / ".dev" / "bin" / "hello"
    assert subprocess.check_output([link], text=True) == "changed\n"
    assert len(list(cache.glob("hello-*"))) == 2


def test_shipped_file_lies_beside_the_program(
    cache: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache
    assert source
    (tmp_path / "module" / "cmd").mkdir(parents=True)
    (tmp_path / "module" / "cmd" / "helper").write_text("#!/bin/sh\n")
    monkeypatch.setenv("FAKE_MODULE", str(tmp_path / "module"))
    built = _build(dataclasses.replace(TOOL, files=(ModuleFile("example.org/module", "cmd/helper"),)))
    assert os.access(built / "helper", os.X_OK)


def _change_content(source: Path) -> None:
    (source / "main.go").write_text("echo other\n")


def _change_lock(source: Path) -> None:
    (source / "go.sum").write_text("example.org/module v1.0.0 h1:x=\n")


def _add_nested_file(source: Path) -> None:
    (source / "ext").mkdir()
    (source / "ext" / "ext.go").write_text("package ext\n")


def _rename(source: Path) -> None:
    (source / "main.go").rename(source / "hello.go")


@pytest.mark.parametrize("change", [_change_content, _change_lock, _add_nested_file, _rename])
def test_hash_changes_with_every_file(source: Path, change: Callable[[Path], None]) -> None:
    before = toolchain.input_hash(TOOL, source, "go1.26.8")
    change(source)
    assert toolchain.input_hash(TOOL, source, "go1.26.8") != before


@pytest.mark.parametrize(
    "tool",
    [
        dataclasses.replace(TOOL, link_flags=("-X a.b=c",)),
        dataclasses.replace(TOOL, version="v2.0.0"),
        dataclasses.replace(TOOL, package="example.org/hello"),
        dataclasses.replace(TOOL, aliases=("hi",)),
        dataclasses.replace(TOOL, patched=PatchedModule("example.org/module", "module")),
    ],
)
def test_hash_changes_with_the_row(source: Path, tool: Tool) -> None:
    assert toolchain.input_hash(tool, source, "go1.26.8") != toolchain.input_hash(TOOL, source, "go1.26.8")


def test_hash_changes_with_the_compiler(source: Path) -> None:
    assert toolchain.input_hash(TOOL, source, "go1.26.8") != toolchain.input_hash(TOOL, source, "go1.26.9")


def test_hash_ignores_what_no_build_reads(source: Path) -> None:
    before = toolchain.input_hash(TOOL, source, "go1.26.8")
    (source / "main_test.go").write_text("package main\n")
    (source / ".main.go.swp").write_text("editor")
    os.utime(source / "main.go", (1, 1))
    needy = dataclasses.replace(TOOL, needs=(MISSING,))
    assert toolchain.input_hash(needy, source, "go1.26.8") == before


def test_failing_build_says_why_and_leaves_nothing_that_counts(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source
    monkeypatch.setenv("FAKE_FAILURE", "undefined: thing")
    with pytest.raises(SetupError) as raised:
        _build()
    log = re.fullmatch(r"building hello failed; see (\S+)", str(raised.value))
    assert log
    assert "undefined: thing" in Path(log[1]).read_text()
    assert "undefined: thing" in raised.value.details
    assert {path.suffix for path in cache.iterdir()} == {".lock", ".log"}
    monkeypatch.delenv("FAKE_FAILURE")
    assert (_build() / "hello").is_file()
    assert {path.suffix for path in cache.iterdir()} == {".lock", ""}


def test_killed_build_is_waited_for_and_made_anew(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The killed builder's compiler goes on for a while: no second one may run beside it."""
    assert source
    code = (
        "from pathlib import Path; from devcluster import toolchain; from devcluster.progress import Progress;"
        "from devcluster.tooltable import Tool;"
        f"toolchain.build(Tool('hello', package='.'), Progress(quiet=True), Path({str(source)!r}))"
    )
    environment = {**os.environ, "FAKE_SECONDS": "1.5", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as builder:
        _wait_for(lambda: _builds(cache) == 1)
        builder.send_signal(signal.SIGKILL)
    assert list(cache.glob(".hello-*.unfinished"))
    progress = Progress(quiet=True)
    monkeypatch.delenv("FAKE_SECONDS", raising=False)
    built = toolchain.build(TOOL, progress)
    assert [step.title for step in progress.times] == ["wait for another build of hello", "build hello"]
    assert subprocess.check_output([built / "hello"], text=True) == "hello\n"
    assert not list(cache.glob(".*"))
    assert _builds(cache) == 2


def test_leftovers_of_another_tool_with_a_longer_name_are_left_alone(cache: Path, source: Path) -> None:
    assert source
    other = cache / ".hello-world-0123456789ab-x.unfinished"
    other.mkdir(parents=True)
    _build()
    assert other.is_dir()


def test_two_builders_at_once_build_once(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source
    monkeypatch.setenv("FAKE_SECONDS", "0.3")
    with ThreadPoolExecutor(2) as pool:
        built = [pool.submit(_build) for _ in range(2)]
    assert built[0].result() == built[1].result()
    assert _builds(cache) == 1


def test_patched_module_is_copied_checked_overlaid_and_edited(
    cache: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache
    tool = _patched_tool(source, tmp_path, monkeypatch, checksum="h1:right=")
    assert (_build(tool) / "hello").read_text().endswith("# tiny\n")
    assert (tmp_path / "module" / "providers" / "dns.go").read_text() == "large\n"
    assert not (source / "lego").exists()


def test_patched_module_with_another_checksum_is_refused(
    cache: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = _patched_tool(source, tmp_path, monkeypatch, checksum="h1:other=")
    with pytest.raises(SetupError, match=r"checksum of example.org/lego@v1.2.3 is not the one in go.sum"):
        _build(tool)
    assert _builds(cache) == 0


def test_patched_module_without_the_text_to_edit_is_refused(
    cache: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = _patched_tool(source, tmp_path, monkeypatch, checksum="h1:right=")
    (source / "small.go").write_text("small, small\n")
    with pytest.raises(SetupError, match=r"dns.go of a patched module has `small` 2 times, not once"):
        _build(tool)
    assert _builds(cache) == 0


def _patched_tool(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checksum: str) -> Tool:
    module = tmp_path / "module"
    (module / "providers").mkdir(parents=True)
    (module / "providers" / "dns.go").write_text("large\n")
    module.chmod(0o555)
    monkeypatch.setenv("FAKE_MODULE", str(module))
    (source / "small.go").write_text("small\n")
    with (source / "go.mod").open("a") as go_mod:
        go_mod.write("\nrequire example.org/lego v1.2.3\n\nreplace example.org/lego => ./lego\n")
    (source / "go.sum").write_text(f"example.org/lego v1.2.3 {checksum}\n")
    overlay = (("small.go", "providers/dns.go"),)
    edits = (Edit("providers/dns.go", "small", "tiny"),)
    return dataclasses.replace(TOOL, patched=PatchedModule("example.org/lego", "lego", overlay, edits))


def test_missing_go_is_said_in_one_line(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache
    assert source
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SetupError, match=r"^Go is not installed .*: install Go 1\.26 or newer$"):
        _build()


def test_old_go_is_said_in_one_line(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache
    assert source
    monkeypatch.setenv("FAKE_GO_VERSION", "go1.19.8")
    with pytest.raises(SetupError, match=r"^Go 1\.26\.0 or newer is needed, and this is go1\.19\.8: install"):
        _build()


def test_unknown_tool_is_refused_with_the_names(cache: Path) -> None:
    with pytest.raises(SetupError, match=r"no tool is called 'kubctl'; the table has pulumi, .*hyperkube"):
        toolchain.ensure(["kubctl"], Progress(quiet=True))
    assert not cache.exists()


def test_suitable_pulumi_of_the_machine_takes_the_place_of_ours(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACKAGE_PLATFORM_SYSTEM_PULUMI", "1")
    _write_program(tmp_path / "bin" / "pulumi", "#!/bin/sh\necho v3.260.1\n")
    ours = tmp_path / "root" / ".dev" / "bin" / "pulumi-language-python-exec"
    ours.parent.mkdir(parents=True)
    ours.symlink_to("/nowhere")
    toolchain.ensure(["pulumi", "pulumi-language-python", "pulumi-resource-kubernetes"], Progress(quiet=True))
    assert _builds(cache) == 0
    assert not ours.is_symlink()


@pytest.mark.parametrize("version", ["v3.258.9", "v4.0.0", "unknown"])
def test_unsuitable_pulumi_of_the_machine_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    assert cache
    monkeypatch.setenv("PACKAGE_PLATFORM_SYSTEM_PULUMI", "1")
    _write_program(tmp_path / "bin" / "pulumi", f"#!/bin/sh\necho {version}\n")
    with pytest.raises(SetupError, match=rf"bin/pulumi is {version}: install Pulumi v3\.259\.0 or a newer 3\.x"):
        toolchain.ensure(["pulumi"], Progress(quiet=True))


def test_only_missing_programs_name_their_packages() -> None:
    present = [SystemProgram("sh", "dash"), SystemProgram("/bin/sh", "dash")]
    absent = SystemProgram("/no/such/file", "another-package")
    assert debian.missing_packages([*present, MISSING, absent, MISSING]) == ["another-package", "some-package"]


def test_machine_without_apt_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SetupError, match=r"^missing programs, and no apt-get here: .* calls some-package$"):
        debian.ensure_installed([MISSING], Progress(quiet=True))


def test_apt_gets_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_program(tmp_path / "bin" / "apt-get", f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.refresh_lists.cache_clear()
    debian.ensure_installed([MISSING, SystemProgram("sh", "dash")], Progress(quiet=True))
    debian.ensure_installed([SystemProgram("sh", "dash")], Progress(quiet=True))
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install -y --no-install-recommends some-package")


def test_failing_apt_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_program(tmp_path / "bin" / "apt-get", "#!/bin/sh\necho E: no network >&2; exit 100\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.refresh_lists.cache_clear()
    with pytest.raises(SetupError, match=r"^could not refresh apt's package lists: E: no network$"):
        debian.ensure_installed([MISSING], Progress(quiet=True))


@pytest.mark.parametrize("known", [True, False])
def test_old_lists_of_apt_are_refreshed_once_and_the_download_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """A mirror removes a package when a newer one comes: a list from before names a file that is not there."""
    calls, fresh = tmp_path / "calls", tmp_path / "fresh"
    script = f"""#!/bin/sh
echo "$@" >> {calls}
case "$*" in
  *update) touch {fresh} ;;
  *) test -e {fresh} && touch some-package_1_amd64.deb || {{ echo "E: 404  Not Found" >&2; exit 100; }} ;;
esac
"""
    _write_program(tmp_path / "bin" / "apt-get", script)
    _write_program(tmp_path / "bin" / "apt-cache", f"#!/bin/sh\nexit {0 if known else 100}\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.refresh_lists.cache_clear()
    folder = tmp_path / "packages"
    folder.mkdir()
    assert [path.name for path in debian.download(["some-package"], folder)] == ["some-package_1_amd64.deb"]
    verbs = [("update" if line.endswith(" update") else "download") for line in calls.read_text().splitlines()]
    assert verbs == (["download", "update", "download"] if known else ["update", "download"])


def test_download_that_fails_with_fresh_lists_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '#!/bin/sh\ncase "$*" in *update) ;; *) echo "E: no such package" >&2; exit 100 ;; esac\n'
    _write_program(tmp_path / "bin" / "apt-get", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.refresh_lists.cache_clear()
    with pytest.raises(SetupError, match=r"^could not download the Debian packages some-package: E: no such package$"):
        debian.download(["some-package"], tmp_path)


def test_old_lists_without_the_right_to_refresh_them_say_who_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_program(tmp_path / "bin" / "apt-get", '#!/bin/sh\necho "E: 404  Not Found" >&2; exit 100\n')
    _write_program(tmp_path / "bin" / "apt-cache", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    debian.refresh_lists.cache_clear()
    with pytest.raises(SetupError, match=r"404  Not Found; .* old: as root, run: apt-get update$"):
        debian.download(["some-package"], tmp_path)


def _wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
