"""A small job runner that stands where Jenkins stands: `python -m devcluster.job_runner`.

It takes Gitea's webhooks at the address of Jenkins' Generic Webhook Trigger, checks them more strictly than that plugin
can, and runs the stages of the shared Jenkinsfile: one queue per project, projects beside each other. It is no Jenkins:
no Groovy, no users, no plugins. https://docs.gitea.com/usage/webhooks tells what Gitea sends.
"""

import hashlib
import hmac
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from devcluster.jenkinsfile import Pipeline, UnknownFormError, parse
from model.fields import plain_mapping
from pipeline import keys
from pipeline.settings import Program
from pipeline.webhooks import TRIGGER_PATH, branches

ROOT = Path(__file__).resolve().parent.parent
PORT = 8080
LARGEST_BODY = 1024 * 1024
# What the jobs' parameters are when a push starts them.
PARAMETERS: Mapping[str, str] = {"TAG": "", "STACK": "test"}
QUEUED, RUNNING, SUCCESS, FAILURE = "QUEUED", "RUNNING", "SUCCESS", "FAILURE"
# Names of a commit that mean "none": the branch was deleted.
_NO_COMMIT = {"0" * 40, "0" * 64}


class RefusedPushError(Exception):
    """A delivery that starts nothing.

    Args:
        status: of the answer.
        reason: in one line.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Push:
    """A push that was checked.

    Args:
        repository: its name, which is the job's.
        commit: at the head of the branch now.
        pusher: who pushed.
    """

    repository: str
    commit: str
    pusher: str


@dataclass
class Gate:
    """Decides which deliveries start something.

    Args:
        key: from which the webhooks' secrets and tokens are derived.
        owner: of the repositories in Gitea.
        branches: repository → the branch that is released; others are unknown.
        seen: file that remembers deliveries over restarts.
    """

    key: str
    owner: str
    branches: Mapping[str, str]
    seen: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, headers: Mapping[str, str], body: bytes) -> Push:
        """Return what was pushed.

        Args:
            headers: of the request, names in lower case.
            body: as it came, byte by byte: that is what is signed.

        Raises:
            RefusedPushError: It is not signed by Gitea, came before, or is not for us.
        """
        try:
            payload = plain_mapping(json.loads(body)) or {}
        except ValueError:
            payload = {}
        repository = plain_mapping(payload.get("repository")) or {}
        name = str(repository.get("name", ""))
        self._check_sender(name, headers, body)
        if name not in self.branches or repository.get("full_name") != f"{self.owner}/{name}":
            raise RefusedPushError(HTTPStatus.NOT_FOUND, f"there is no project {name!r}")
        if headers.get("x-gitea-event") != "push":
            raise RefusedPushError(HTTPStatus.UNPROCESSABLE_ENTITY, "only pushes start a job")
        branch, commit = self.branches[name], str(payload.get("after", ""))
        if payload.get("ref") != f"refs/heads/{branch}" or commit in _NO_COMMIT:
            raise RefusedPushError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{payload.get('ref')} of {name} is not released, only {branch} is"
            )
        self._check_fresh(headers.get("x-gitea-delivery", ""), body)
        pusher = plain_mapping(payload.get("pusher")) or {}
        return Push(name, commit, str(pusher.get("login", "")))

    def _check_sender(self, name: str, headers: Mapping[str, str], body: bytes) -> None:
        """Check signature and token, each in constant time, before anything that was sent is believed."""
        signature = hmac.new(keys.hook_secret(self.key, name).encode(), body, hashlib.sha256).hexdigest()
        signed = hmac.compare_digest(headers.get("x-gitea-signature", "").encode(), signature.encode())
        token = f"Bearer {keys.hook_token(self.key, name)}"
        known = hmac.compare_digest(headers.get("authorization", "").encode(), token.encode())
        if not (signed and known):
            what = "unsigned" if "x-gitea-signature" not in headers else "wrongly signed"
            raise RefusedPushError(HTTPStatus.FORBIDDEN, what if not signed else "wrong token")

    def _check_fresh(self, delivery: str, body: bytes) -> None:
        """Refuse what came before: by its number, or, as the number is not signed, by its signed content."""
        marks = {f"delivery {delivery}", f"content {hashlib.sha256(body).hexdigest()}"}
        with self._lock:
            before = set(self.seen.read_text().splitlines()) if self.seen.exists() else set[str]()
            if not delivery or marks & before:
                raise RefusedPushError(HTTPStatus.CONFLICT, "this delivery came before")
            with self.seen.open("a") as stream:
                stream.write("".join(f"{mark}\n" for mark in sorted(marks)))


@dataclass
class Build:
    """One run of a job.

    Args:
        job: its name.
        number: counted per job.
        push: what started it.
        log: what it says.
        result: `QUEUED`, `RUNNING`, `SUCCESS` or `FAILURE`.
        stage: the last one that was begun.
    """

    job: str
    number: int
    push: Push
    log: Path
    result: str = QUEUED
    stage: str = ""

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "job": self.job,
            "number": self.number,
            "commit": self.push.commit,
            "result": self.result,
            "stage": self.stage,
        }


class Runner:
    """Runs the jobs."""

    def __init__(  # noqa: PLR0913 - what a runner consists of
        self,
        folder: Path,
        program: Program,
        pipelines: Mapping[str, Pipeline],
        *,
        url: str,
        variables: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> None:
        """Prepare it.

        Args:
            folder: for work folders and logs.
            program: folder with `projects/`, in which every command runs.
            pipelines: job → its stages; the empty name stands for every other job.
            url: of the runner itself.
            variables: the environment of every command.
            parameters: of every job, besides the commit; stronger than what its Jenkinsfile sets.
        """
        self._folder = folder
        self._program = program
        self._pipelines = pipelines
        self._url = url
        self._variables = dict(variables)
        self._parameters = dict(parameters)
        self._lock = threading.Lock()
        self._queues: dict[str, queue.Queue[Build]] = {}
        self.builds: list[Build] = []

    def start(self, push: Push) -> Build:
        """Put a build in its project's queue."""
        with self._lock:
            folder = self._folder / "jobs" / push.repository
            folder.mkdir(parents=True, exist_ok=True)
            number = 1 + max((int(path.stem) for path in folder.glob("*.log")), default=0)
            build = Build(push.repository, number, push, folder / f"{number}.log")
            build.log.touch()
            self.builds.append(build)
            if push.repository not in self._queues:
                waiting = self._queues[push.repository] = queue.Queue[Build]()
                threading.Thread(target=self._work, args=(waiting,), daemon=True).start()
            self._queues[push.repository].put(build)
        return build

    def find(self, job: str, number: int) -> Build | None:
        """Return a build of this process."""
        return next((each for each in self.builds if (each.job, each.number) == (job, number)), None)

    def _work(self, waiting: queue.Queue[Build]) -> None:
        while True:
            build = waiting.get()
            build.result = RUNNING
            try:
                good = self._run(build)
            except (OSError, UnknownFormError) as error:
                build.log.write_text(f"{build.log.read_text()}{error}\n")
                good = False
            build.result = SUCCESS if good else FAILURE

    def _run(self, build: Build) -> bool:
        """Run the stages one after another; the first that fails is the last."""
        workspace = self._folder / "workspace" / build.job
        workspace.mkdir(parents=True, exist_ok=True)
        pipeline = self._pipelines.get(build.job, self._pipelines[""])
        parameters = {**self._parameters, "COMMIT": build.push.commit}
        variables = {
            **self._variables,
            **pipeline.variables,
            **parameters,
            "PROJECT": build.job,
            "JOB_NAME": build.job,
            "JOB_BASE_NAME": build.job,
            "BUILD_NUMBER": str(build.number),
            "BUILD_URL": f"{self._url}/job/{build.job}/{build.number}/",
            "BUILD_USER_ID": build.push.pusher,
            "PIPELINE_WORKSPACE": str(workspace),
        }
        with build.log.open("a", encoding="utf-8") as log:
            for stage in pipeline.stages:
                if not stage.applies(parameters):
                    continue
                build.stage = stage.name
                log.write(f"[{stage.name}] {stage.command}\n")
                log.flush()
                code = subprocess.run(
                    ["sh", "-c", stage.command],
                    cwd=self._program.folder,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=False,
                ).returncode
                if code:
                    log.write(f"[{stage.name}] ended with exit code {code}\nFinished: {FAILURE}\n")
                    return False
            log.write(f"Finished: {SUCCESS}\n")
            return True


class Handler(BaseHTTPRequestHandler):
    """Takes webhooks; shows builds."""

    gate: Gate
    runner: Runner

    def do_POST(self) -> None:
        """Take a webhook."""
        length = self.headers.get("Content-Length", "")
        if self.path != TRIGGER_PATH:
            self._answer(HTTPStatus.NOT_FOUND, {"refused": "nothing is here"})
        elif not length.isascii() or not length.isdigit() or int(length) > LARGEST_BODY:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"refused": f"a body has at most {LARGEST_BODY} bytes"})
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                build = self.runner.start(self.gate.check(headers, self.rfile.read(int(length))))
            except RefusedPushError as refusal:
                self._answer(refusal.status, {"refused": refusal.reason})
            else:
                self._answer(HTTPStatus.CREATED, build.facts())

    def do_GET(self) -> None:
        """Show all builds as JSON, or the log of one: `/job/<name>/<number>/`."""
        parts = self.path.strip("/").split("/")
        if parts == [""]:
            self._answer(HTTPStatus.OK, {"builds": [each.facts() for each in self.runner.builds]})
            return
        build = None
        if len(parts) > 2 and parts[0] == "job" and parts[2].isascii() and parts[2].isdigit():  # noqa: PLR2004 - a path of three parts
            build = self.runner.find(parts[1], int(parts[2]))
        if build is None:
            self._answer(HTTPStatus.NOT_FOUND, {"refused": "there is no such build"})
        else:
            self._send(HTTPStatus.OK, "text/plain; charset=utf-8", build.log.read_bytes())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Say what was asked and answered; no header is told, so no token is."""
        sys.stderr.write(f"{self.address_string()} {format % args}\n")

    def _answer(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode() + b"\n")

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        # What was not read of a refused body must not be taken for the next request.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True


def serve(
    program: Program, folder: Path, address: str, port: int = PORT, *, parameters: Mapping[str, str] = PARAMETERS
) -> ThreadingHTTPServer:
    """Return the runner's server; the caller lets it serve.

    Args:
        program: folder of the program, whose `pipeline.yaml` and `projects/` count.
        folder: for work folders, logs, and what was delivered.
        address: where it listens.
        port: where it listens; 0 for a free one.
        parameters: of every job.

    Raises:
        PipelineError: the program's files, or the key of the webhooks, are not right.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gitea = program.settings.gitea
    gate = Gate(keys.webhook_key(), gitea.owner, branches(program), folder / "deliveries")
    files = {"": "Jenkinsfile", gitea.config_repository: "config.Jenkinsfile"}
    pipelines = {job: parse(ROOT / "pipeline" / file) for job, file in files.items()}
    handler = type("BoundHandler", (Handler,), {"gate": gate})
    server = ThreadingHTTPServer((address, port), handler)
    variables = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    variables["PYTHONPATH"] = str(ROOT)
    url = f"http://{address}:{server.server_port}"
    runner = Runner(folder, program, pipelines, url=url, variables=variables, parameters=parameters)
    handler.runner = runner  # pyright: ignore[reportAttributeAccessIssue]
    return server


def main(
    folder: Annotated[Path, typer.Argument(help="For work folders and logs.")],
    program: Annotated[Path, typer.Argument(help="Folder with pipeline.yaml and projects/.")],
    *,
    address: Annotated[str, typer.Option(help="Where it listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where it listens.")] = PORT,
) -> None:
    """Run the jobs until this process is ended."""
    serve(Program(program), folder, address, port).serve_forever()


if __name__ == "__main__":
    typer.run(main)
