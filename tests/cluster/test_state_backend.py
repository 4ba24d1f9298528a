"""The state in object storage, on a real S3 server (versitygw) of the test's own; docs/how-to/state-backend.md.

No cluster is needed: the stack has one secret output.
"""

import json
import os
import re
import subprocess
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from devcluster import environment, process_tree, toolchain
from devcluster.instance import Instance
from devcluster.progress import Progress
from tests.cluster import object_storage
from tests.cluster.leaks import files_below, leaks
from tests.cluster.object_storage import CREDENTIALS, SECRET_KEY, Bucket

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60.0
COMMAND_SECONDS = 120.0
SECRET = "planted-in-the-state"  # noqa: S105 - looked for
PROGRAM = """
import pathlib, time, pulumi
gate = pulumi.Config().get("gate")
while gate and not pathlib.Path(gate).exists():
    time.sleep(0.05)
pulumi.export("answer", pulumi.Config().require_secret("answer"))
"""


@dataclass(frozen=True)
class Stack:
    """A small Pulumi program with one stack.

    Args:
        folder: Of the program.
        backend: URL of the backend.
        variables: The environment of every command.
    """

    folder: Path
    backend: str
    variables: dict[str, str]

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """Run a command of pulumi, check its exit code, and return all that it printed."""
        with self.started(*words) as process:
            output, errors = process.communicate(stdin, timeout=COMMAND_SECONDS)
        assert process.returncode == code, f"{words}: {output}\n{errors}"
        return output if code == 0 else output + errors

    @contextmanager
    def started(self, *words: str) -> Generator[subprocess.Popen[str]]:
        """Start a command in a session of its own, which ends with the context."""
        with subprocess.Popen(
            ["pulumi", *words, "--non-interactive", "--color=never"],
            cwd=self.folder,
            env={**self.variables, "PULUMI_BACKEND_URL": self.backend},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process_tree.end(process.pid)

    def at(self, backend: str) -> "Stack":
        """Return the same program with another backend."""
        return Stack(self.folder, backend, self.variables)

    def history(self) -> list[str]:
        return [each["result"] for each in json.loads(self("stack", "history", "--json"))]


@pytest.fixture
def local(tmp_path: Path) -> Stack:
    """A stack in a folder, with its program and a secret, deployed once."""
    toolchain.ensure(["pulumi", "pulumi-language-python"], Progress(quiet=True))
    folder, state = tmp_path / "program", tmp_path / "state"
    folder.mkdir()
    state.mkdir()
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "Pulumi.yaml").write_text("name: small\nruntime: {name: python, options: {virtualenv: .venv}}\n")
    (folder / "__main__.py").write_text(PROGRAM)
    path = os.pathsep.join([*environment.path_entries(Instance(0, ROOT)), os.environ["PATH"]])
    variables = {
        **os.environ,
        "PATH": path,
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "of the test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        **CREDENTIALS,
    }
    stack = Stack(folder, f"file://{state}", variables)
    stack("stack", "init", "uat")
    stack("config", "set", "--secret", "answer", stdin=SECRET)
    stack("up", "--yes", "--skip-preview")
    return stack


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    """A bucket on loopback."""
    with object_storage.bucket(tmp_path / "s3") as made:
        yield made


@pytest.fixture
def remote(local: Stack, bucket: Bucket) -> Stack:
    """The stack, moved into the bucket as the how-to page says."""
    moved = local.at(bucket.url)
    local("stack", "export", "--file=moved.json")
    moved("stack", "init", "uat")
    moved("stack", "import", "--file=moved.json")
    return moved


def test_a_stack_moves_from_a_folder_to_object_storage(local: Stack, remote: Stack, bucket: Bucket) -> None:
    remote("preview", "--expect-no-changes")
    assert remote("stack", "output", "--show-secrets", "answer").strip() == SECRET
    assert remote.history() == [], "the history stays where it was"
    remote("up", "--yes", "--skip-preview")
    assert remote.history() == ["succeeded"]
    assert local.history() == ["succeeded"]
    stored = files_below(bucket.folder)
    assert any(path.endswith(".pulumi/stacks/small/uat.json") for path in stored)
    secrets = {"secret": SECRET, "key": SECRET_KEY}
    assert leaks(secrets, {**stored, "export": remote("stack", "export")}) == []
    assert leaks(secrets, {"shown": remote("stack", "export", "--show-secrets")}), "the search sees what is there"


@pytest.mark.soak
def test_updates_are_kept_apart_by_a_lock_which_a_killed_one_leaves(
    tmp_path: Path, remote: Stack, bucket: Bucket
) -> None:
    gate = tmp_path / "gate"
    remote("config", "set", "gate", str(gate))
    with remote.started("up", "--yes", "--skip-preview") as first:
        wait_for_lock(bucket, first)
        assert "the stack is currently locked by 1 lock(s)" in remote("up", "--yes", "--skip-preview", code=1)
        gate.touch()
        output, errors = first.communicate(timeout=COMMAND_SECONDS)
    assert first.returncode == 0, output + errors
    assert not bucket.locks()
    gate.unlink()
    with remote.started("up", "--yes", "--skip-preview") as killed:
        wait_for_lock(bucket, killed)
    gate.touch()
    assert "the stack is currently locked by 1 lock(s)" in remote("up", "--yes", "--skip-preview", code=1)
    remote("cancel", "--yes", "uat")
    remote("up", "--yes", "--skip-preview")


@pytest.mark.soak
def test_another_secrets_provider_encrypts_all_anew(local: Stack) -> None:
    before = stored_secrets(local)
    with transit() as (address, asked):
        vault = Stack(local.folder, local.backend, {**local.variables, "VAULT_SERVER_URL": address})
        vault.variables["VAULT_SERVER_TOKEN"] = "of-the-test"  # noqa: S105 - of the test
        vault("stack", "change-secrets-provider", "hashivault://package-platform")
        after = stored_secrets(vault)
        alone = Stack(vault.folder, vault.backend, {**vault.variables, "PULUMI_CONFIG_PASSPHRASE": "no more needed"})
        assert alone("config", "get", "answer").strip() == SECRET
        alone("preview", "--expect-no-changes")
    assert asked, "the provider was asked"
    assert "encryptedkey: " in (local.folder / "Pulumi.uat.yaml").read_text()
    assert "encryptionsalt: " not in (local.folder / "Pulumi.uat.yaml").read_text()
    assert before
    assert after
    assert not before & after, "nothing is left that the passphrase opens"


def stored_secrets(stack: Stack) -> set[str]:
    """Return all that is encrypted in the state."""
    return set(re.findall(r'"ciphertext": "([^"]+)"', stack("stack", "export")))


def wait_for_lock(bucket: Bucket, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not bucket.locks():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no lock came"
        time.sleep(0.05)


@contextmanager
def transit() -> Generator[tuple[str, list[str]]]:
    """Stand in for the transit engine of Vault: what it encrypts is only turned round."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked.append(self.path)
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "/encrypt/" in self.path:
                data = {"ciphertext": "vault:v1:" + b64encode(b64decode(sent["plaintext"])[::-1]).decode()}
            else:
                turned = b64decode(sent["ciphertext"].removeprefix("vault:v1:"))[::-1]
                data = {"plaintext": b64encode(turned).decode()}
            body = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT  # noqa: N815 - the name that the server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
