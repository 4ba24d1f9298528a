"""The pipeline against a real Gitea, without a cluster: webhooks as they really come, and git with a token.

The last stage is replaced: what is deployed is the matter of `test_pipeline.py`.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from devcluster import processes
from devcluster.gitea import Gitea
from devcluster.job_runner import Gate, RefusedPushError
from devcluster.progress import Progress
from pipeline import keys
from pipeline.git import Checkout, askpass
from tests.unit.test_job_runner import wait

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1"
OWNER, API, PAGE, CONFIG = "sjzy", "Some.Api", "web", "config"
KEY = "k" * 32
WRONG = {keys.GITEA_TOKEN: "mistyped"}
AUTHOR = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass
class Receiver:
    """Takes what Gitea sends, as it comes."""

    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])
    port: int = 0


@dataclass(frozen=True)
class Forge:
    """A Gitea with three repositories, and a program's folder that speaks of it."""

    gitea: Gitea
    program: Path
    receiver: Receiver

    def api(self, method: str, path: str, **content: Any) -> Any:
        headers = {"Authorization": f"token {self.gitea.token_file.read_text()}"}
        with httpx2.Client(base_url=f"{self.gitea.url}/api/v1", headers=headers, trust_env=False, timeout=30) as client:
            response = client.request(method, path, **content)
            response.raise_for_status()
            return response.json() if response.content else None

    def hooks(self, repository: str) -> list[Mapping[str, Any]]:
        return self.api("GET", f"/repos/{OWNER}/{repository}/hooks")

    def pipeline(self, *words: str, code: int = 0, **variables: str) -> str:
        """Run a command as a process of its own, and return all that it says."""
        secrets = {"GITEA_TOKEN_FILE": str(self.gitea.token_file), "PIPELINE_WEBHOOK_KEY": KEY}
        finished = subprocess.run(
            [sys.executable, "-m", "pipeline", *words, "--cwd", str(self.program)],
            cwd=ROOT,
            env={**os.environ, **secrets, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = finished.stdout + finished.stderr
        assert finished.returncode == code, said
        assert self.gitea.token_file.read_text() not in said
        return said

    def push(self, repository: str, folder: Path, content: str, branch: str = "main") -> str:
        with askpass(self.gitea.token_file.read_text()) as variables:
            url = f"{self.gitea.url}/{OWNER}/{repository}.git"
            checkout = Checkout(folder, url, {**AUTHOR, **variables})
            if not folder.exists():
                folder.mkdir(parents=True)
                checkout.run("init", "--quiet", "--initial-branch=main")
            (folder / "file").write_text(content)
            checkout.run("add", "--all")
            checkout.run("commit", "--quiet", "--message=test")
            checkout.run("push", "--quiet", "--force", url, f"HEAD:refs/heads/{branch}")
            return checkout.run("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    folder = tmp_path_factory.mktemp("gitea")
    with socket.create_server((ADDRESS, 0)) as free:
        port = int(free.getsockname()[1])
    gitea, receiver = Gitea(folder / "gitea", ADDRESS, port), Receiver()
    server = ThreadingHTTPServer((ADDRESS, 0), _handler(receiver))
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    program = folder / "program"
    (program / "projects").mkdir(parents=True)
    for name, kind in ((API, "backend"), (PAGE, "frontend")):
        fields = {"kind": kind, "config": {"mount": "/app/config", "files": ["file"]}}
        (program / "projects" / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    servers = {
        "gitea": {"url": gitea.url, "owner": OWNER},
        "jenkins": {"url": f"http://{ADDRESS}:{receiver.port}"},
        "registry": "harbor.example.com",
    }
    (program / "pipeline.yaml").write_text(yaml.safe_dump(servers))
    made = Forge(gitea, program, receiver)
    try:
        gitea.start(Progress())
        made.api("POST", "/orgs", json={"username": OWNER})
        for name in (API, PAGE, CONFIG):
            made.api("POST", f"/orgs/{OWNER}/repos", json={"name": name, "private": True, "default_branch": "main"})
        yield made
    finally:
        gitea.stop()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append((headers, self.rfile.read(int(headers["content-length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
            pass

    return Handler


def test_webhooks_are_made_once_and_repaired(forge: Forge) -> None:
    assert "Some.Api: (dry run) is made" in forge.pipeline("webhooks", "apply", "--dry-run")
    assert forge.hooks(API) == []
    forge.pipeline("webhooks", "apply")
    before = {name: forge.hooks(name) for name in (API, PAGE, CONFIG)}
    assert {name: len(hooks) for name, hooks in before.items()} == {API: 1, PAGE: 1, CONFIG: 1}
    assert forge.pipeline("webhooks", "apply").count(": is right\n") == 3
    assert {name: forge.hooks(name) for name in before} == before
    (hook,) = before[API]
    where = f"/repos/{OWNER}/{API}/hooks"
    damaged = {name: hook[name] for name in ("authorization_header",)}
    damaged |= {"branch_filter": "*", "active": False, "events": ["push", "create"]}
    forge.api("PATCH", f"{where}/{hook['id']}", json=damaged)
    foreign = {"url": "http://127.0.0.1:9/chat", "content_type": "json"}
    chat = {"type": "gitea", "events": ["push"], "active": False, "config": foreign}
    forge.api("POST", where, json=chat)
    said = forge.pipeline("webhooks", "apply")
    assert "Some.Api: is repaired: active is False, not True; events is ['create', 'push'], not ['push']; " in said
    assert said.count(": is right\n") == 2
    found = {each["id"]: each for each in forge.hooks(API)}
    assert len(found) == 2
    compared = ("active", "events", "branch_filter", "config", "authorization_header")
    assert [found[hook["id"]][name] for name in compared] == [hook[name] for name in compared]
    forge.api("DELETE", f"{where}/{max(found)}")


def test_a_push_comes_signed_and_another_branch_does_not_come(forge: Forge, tmp_path: Path) -> None:
    forge.pipeline("webhooks", "apply")
    forge.receiver.got.clear()
    forge.push(API, tmp_path / "api", "on a branch", "feature")
    commit = forge.push(API, tmp_path / "api", "on main")
    wait(lambda: bool(forge.receiver.got))
    ((headers, body),) = forge.receiver.got
    gate = Gate(KEY, OWNER, {API: "main"}, tmp_path / "seen")
    assert gate.check(headers, body).commit == commit
    with pytest.raises(RefusedPushError, match="came before"):
        gate.check(headers, body)
    with pytest.raises(RefusedPushError, match="wrongly signed"):
        gate.check({**headers, "x-gitea-delivery": "new"}, body.replace(b"on main", b"on mair") + b" ")


def test_another_key_makes_webhooks_anew_with_its_own_secret(forge: Forge, tmp_path: Path) -> None:
    forge.pipeline("webhooks", "apply")
    (before,) = forge.hooks(PAGE)
    other = "o" * 32
    assert "web: is made anew: its key is another" in forge.pipeline("webhooks", "apply", PIPELINE_WEBHOOK_KEY=other)
    (after,) = forge.hooks(PAGE)
    assert after["id"] != before["id"]
    forge.receiver.got.clear()
    forge.push(PAGE, tmp_path / "web", "x")
    wait(lambda: bool(forge.receiver.got))
    ((headers, body),) = forge.receiver.got
    assert Gate(other, OWNER, {PAGE: "main"}, tmp_path / "seen").check(headers, body).repository == PAGE
    assert headers["authorization"] == f"Bearer {keys.hook_token(other, PAGE)}"


def test_checkout_brings_the_pushed_commit_and_the_configuration(forge: Forge, tmp_path: Path) -> None:
    """Nobody but the token's owner may read the repositories, so this fails without it."""
    first = forge.push(API, tmp_path / "api", "first")
    forge.push(API, tmp_path / "api", "second")
    foreign = forge.push(API, tmp_path / "api", "elsewhere", "feature")
    config = forge.push(CONFIG, tmp_path / "config", "configuration")
    work = tmp_path / "work"
    said = forge.pipeline("checkout", API, "--commit", first, "--workspace", str(work))
    assert said == f"{API} is at {first}, its configuration at {config}\n"
    assert (work / "source" / "file").read_text() == "first"
    assert (work / "config" / "file").read_text() == "configuration"
    token = forge.gitea.token_file.read_text()
    assert not any(token in path.read_text(errors="replace") for path in work.rglob("*") if path.is_file())
    said = forge.pipeline("checkout", API, "--commit", foreign, "--workspace", str(work), code=2)
    assert f"commit {foreign} is not on the branch main" in said
    said = forge.pipeline("checkout", API, "--workspace", str(work), code=1, **WRONG)
    assert "git fetch of" in said
    assert "mistyped" not in said


def test_a_missing_repository_and_a_token_without_rights_are_named(forge: Forge) -> None:
    file = forge.program / "projects" / "New.Api.yaml"
    file.write_text("kind: backend\n")
    try:
        said = forge.pipeline("webhooks", "apply", code=1)
    finally:
        file.unlink()
    assert "pipeline: sjzy/New.Api: Gitea has no such repository, or the token may not see it" in said
    assert "Some.Api: " in said
    said = forge.pipeline("webhooks", "apply", code=1, **WRONG)
    assert said.count("Gitea refuses the token (401): $GITEA_TOKEN needs write:repository") == 3


def test_gitea_runs_with_few_rights_and_leaves_nothing(forge: Forge) -> None:

    ours = processes.marked(forge.gitea.folder)
    owners = {Path(f"/proc/{each.pid}").stat().st_uid for each in ours}
    assert 65534 in owners
    web = next(each for each in ours if Path(f"/proc/{each.pid}").stat().st_uid == 65534)
    status = Path(f"/proc/{web.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert str(forge.gitea.folder) not in Path("/proc/mounts").read_text()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is spoken to without the machine's proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
