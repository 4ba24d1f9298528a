"""A program that is loaded ahead, run by the real engine; it is to be the same as with Pulumi's own language host.

No cluster is needed: the programs declare nothing in one.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import environment, toolchain
from devcluster.instance import Instance
from devcluster.progress import Progress
from model.release import INSTRUCTION_VARIABLE, Instruction
from release.events import Event
from release.inputs import Program
from release.pulumi import Command, Pulumi, up

ROOT = Path(__file__).parents[2]
URN = "urn:pulumi:uat::small::pulumi:pulumi:Stack::small-uat"
GOOD = f"""
import os, sys, pulumi
print("printed")
pulumi.info("told")
config = pulumi.Config()
pulumi.export("answer", config.require_secret("answer"))
pulumi.export("keys", sorted(pulumi.runtime.get_config_env()))
pulumi.export("secret", pulumi.runtime.get_config_secret_keys_env())
pulumi.export("instruction", os.environ.get("{INSTRUCTION_VARIABLE}"))
pulumi.export("names", [pulumi.get_project(), pulumi.get_stack(), pulumi.get_organization()])
pulumi.export("ahead", "language_host.py" in " ".join(sys.orig_argv))
"""
CONFIG = {"config": {"small:answer": "planted", "other:key": "value"}}


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pulumi]:
    """The stack of a small program, in a backend of its own."""
    toolchain.ensure(["pulumi", "pulumi-language-python"], Progress(quiet=True))
    folder, state = tmp_path / "program", tmp_path / "state"
    folder.mkdir()
    state.mkdir()
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "language_host.py").write_bytes((ROOT / "language_host.py").read_bytes())
    (folder / "Pulumi.yaml").write_text("name: small\nruntime: {name: python, options: {virtualenv: .venv}}\n")
    (folder / "__main__.py").write_text(GOOD)
    path = os.pathsep.join([*environment.path_entries(Instance(0, ROOT)), os.environ["PATH"]])
    variables = {
        "PATH": path,
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "of the test",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(INSTRUCTION_VARIABLE, raising=False)
    found = Pulumi(Program(folder, "uat"))
    found.read("stack", "init")
    with tempfile.TemporaryDirectory(prefix="t") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield found
        assert list(Path(short).iterdir()) == [], "nothing of a run is left"


def ran(pulumi: Pulumi, command: Command, *, ahead: bool) -> tuple[int, list[Event], str]:
    """Run a command to its end; returns its exit code, the events, and all that was printed."""
    found: list[Event] = []
    with pulumi.start(command, loaded=pulumi.load_program() if ahead else None) as run:
        while not run.wait(0.05):
            found += run.events()
        found += run.events()
        return run.code or 0, found, run.output()


def outputs(pulumi: Pulumi) -> dict[str, object]:
    return json.loads(pulumi.read("stack", "output", "--json", "--show-secrets"))


def plainly(pulumi: Pulumi) -> Pulumi:
    """Return the stack without what loads the program ahead."""
    (pulumi.program.folder / "language_host.py").unlink()
    return pulumi


def test_the_program_meets_what_it_meets_with_pulumis_own_language_host(pulumi: Pulumi) -> None:
    instruction = Instruction(project="SJZY.Package.Api")
    command = up(json.dumps(CONFIG), "loaded ahead", instruction, URN)
    code, events, printed = ran(pulumi, command, ahead=True)
    assert code == 0, printed
    assert "printed" in printed
    first = outputs(pulumi)
    assert first["instruction"] == instruction.model_dump_json(exclude_none=True)
    assert first["keys"] == ["other:key", "small:answer"]
    assert [event.text for event in events if event.kind == "info"] == ["told"]

    code, _, printed = ran(plainly(pulumi), command, ahead=True)
    assert code == 0, printed
    second = outputs(pulumi)
    assert (first.pop("ahead"), second.pop("ahead")) == (True, False)
    assert second == first


def test_a_run_begins_the_loading_itself_where_nobody_did(pulumi: Pulumi) -> None:
    code, _, printed = ran(pulumi, up(json.dumps(CONFIG), "plain"), ahead=False)
    assert code == 0, printed
    assert outputs(pulumi)["ahead"] is True


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import pulumi\nraise pulumi.RunError('nothing was changed: no')\n", "nothing was changed: no"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("raise ValueError('not so')\n", "ValueError: not so"),
        ("this is no Python\n", "SyntaxError"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    ],
)
def test_an_error_of_the_program_is_told_once_and_ends_the_run(pulumi: Pulumi, program: str, said: str) -> None:
    (pulumi.program.folder / "__main__.py").write_text(program)
    code, events, printed = ran(pulumi, up(json.dumps(CONFIG), "bad"), ahead=True)
    assert code not in (0, None), printed
    errors = [event.text for event in events if event.kind == "error"]
    assert len([text for text in errors if said in text]) == 1, errors
    assert len(errors) == 1, errors


def test_a_secret_of_the_config_is_in_no_environment_and_no_arguments(pulumi: Pulumi) -> None:
    (pulumi.program.folder / "__main__.py").write_text(GOOD + "import time\ntime.sleep(3)\n")
    looked: list[bytes] = []
    with pulumi.start(up(json.dumps(CONFIG), "secret"), loaded=pulumi.load_program()) as run:
        while not run.wait(0.05):
            if any(event.kind == "info" for event in run.events()):
                looked = everything()
        assert run.code == 0, run.output()
    assert [part for part in looked if b"language_host.py" in part], "the program's process was looked at"
    assert [part for part in looked if b"planted" in part] == []


def everything() -> list[bytes]:
    """Return the arguments and the first environment of every process of this user."""
    found: list[bytes] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    found.append((entry / name).read_bytes())
                except OSError:
                    continue
    return found
