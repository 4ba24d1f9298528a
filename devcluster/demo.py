"""`python -m devcluster demo`: the chain from `git push` to the cluster, run for real and told step by step.

Gitea, its webhooks, the pipeline's commands, the registry and the cluster are real; a small job runner stands where
Jenkins stands. The demo's stack is called `test` as well, in a state and a namespace of its own.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import yaml

from devcluster import commands, deploy, images, machine, pki, processes
from devcluster.configuration import SAMPLE
from devcluster.failure import SetupError
from devcluster.gitea import Gitea
from devcluster.instance import Instance
from devcluster.job_runner import FAILURE, PORT, SUCCESS
from devcluster.progress import Progress
from pipeline.errors import PipelineError
from pipeline.git import Checkout, askpass
from pipeline.keys import GITEA_TOKEN, WEBHOOK_KEY

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "devcluster" / "samples"
STACK, NAME, OWNER, CONFIG = "test", "demo", "sjzy", "config"
API, OTHER_API, PAGE = "SJZY.Package.Api", "SJZY.Package.Output.Api", "packet_label"
CONFIG_FILE = f"test/{API}/appsettings.json"
RATE = 20
BUILD_SECONDS = 300.0
START_SECONDS = 30.0
COMMAND_SECONDS = 600.0
LONGEST_LOAD_SECONDS = 900
BACK_END: dict[str, Any] = {
    "build": {
        "command": ["env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-o", "publish/backend", "."],
        "base": f"{images.BACK_BASE}:{images.BASE_TAG}",
        "entrypoint": ["/app/backend"],
    },
    "env": {"CONFIG_FILE": "/app/config/appsettings.json"},
    "config": {"mount": "/app/config", "files": ["appsettings.json"]},
}
FRONT_END: dict[str, Any] = {
    "build": {"command": ["python3", "build.py"], "base": f"{images.FRONT_BASE}:{images.BASE_TAG}"},
    "config": {"files": [{"file": "env.js", "path": "/usr/share/nginx/html/env.js"}]},
}
# What this release calls itself in its answers; one that can't start says so in its log.
RELEASE_GO = """package main

import "os"

func init() {
	os.Setenv("PROJECT", "%s")
	os.Setenv("TAG", "%s")
	os.Setenv("CRASH_AT_START", "%s")
}
"""


@dataclass(frozen=True)
class Load:
    """What became of the requests that were sent meanwhile.

    Args:
        requests: sent.
        failed: of them, without a 200.
        errors: what went wrong, each once.
    """

    requests: int
    failed: int
    errors: tuple[str, ...]


@dataclass
class Demo:
    """The demo of one instance.

    Args:
        instance: the embedded cluster; it is up, with the stack `test`, which has the ingress.
        progress: told of the steps that take long.
    """

    instance: Instance
    progress: Progress
    gitea: Gitea = field(init=False)

    def __post_init__(self) -> None:
        self.gitea = Gitea(self.instance.services[0], str(self.instance.host_address))

    @property
    def folder(self) -> Path:
        """Program, checkouts and logs of the demo."""
        return self.instance.state / "demo"

    @property
    def program(self) -> Path:
        """The copy of the program, with `build` and `config` in its project files."""
        return self.folder / "program"

    @property
    def runner_url(self) -> str:
        """The job runner, which stands where Jenkins stands."""
        return f"http://{self.instance.host_address}:{PORT}"

    @property
    def config(self) -> str:
        """The config repository's name in Gitea."""
        return CONFIG

    @property
    def projects(self) -> tuple[str, ...]:
        """All Gitea projects."""
        return tuple(path.stem for path in sorted((self.program / "projects").glob("*.yaml")))

    # What has to be there.

    def start(self) -> None:
        """Start Gitea and the job runner, with all repositories and their webhooks.

        Raises:
            SetupError: something does not come up.
        """
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        self._copy_program()
        self._pulumi("stack", "select", "--create", STACK)
        self._pulumi("up", "--stack", STACK, "--yes", "--skip-preview", "--suppress-outputs")
        pki.write_private(self._key_file, self._key().encode())
        self.gitea.start(self.progress)
        with self.progress.step("repositories"):
            self._make_repositories()
        self._start_runner()

    def stop(self) -> None:
        """End Gitea and the job runner."""
        for folder in self.instance.services:
            processes.end_all(folder)

    def apply_webhooks(self) -> str:
        """Run `python -m pipeline webhooks apply`, and return what it says."""
        return self.pipeline("webhooks", "apply", "--cwd", str(self.program))

    def pipeline(self, *words: str) -> str:
        """Run a command of the pipeline as a person does, and return what it says.

        Raises:
            SetupError: it failed.
        """
        return self._run([sys.executable, "-m", "pipeline", *words], ROOT)

    # What a developer does.

    def push(self, repository: str, files: Mapping[str, str], message: str, *, branch: str = "main") -> str:
        """Commit files to a repository, push them, and return the commit.

        Raises:
            SetupError: git failed.
        """
        with _git_errors(), askpass(self.gitea.token_file.read_text()) as variables:
            checkout = Checkout(self.folder / "developer" / repository, self._url(repository), {**_AUTHOR, **variables})
            for name, content in files.items():
                path = checkout.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
            checkout.run("add", "--all")
            checkout.run("commit", "--quiet", "--allow-empty", f"--message={message}")
            checkout.run("push", "--quiet", self._url(repository), f"HEAD:refs/heads/{branch}")
            return checkout.run("rev-parse", "HEAD")

    def push_release(self, project: str, release: str, *, crash: bool = False) -> str:
        """Push a release of a sample, which calls itself by a name in its answers."""
        if self._kind(project) == "backend":
            files = {"release.go": RELEASE_GO % (project, release, int(crash))}
        else:
            files = {"release.json": json.dumps({"project": project, "tag": release})}
        return self.push(project, files, f"Release {release}")

    # What comes of it.

    def builds(self) -> list[Mapping[str, Any]]:
        """Return all builds of the job runner."""
        with httpx2.Client(trust_env=False, timeout=10) as client:
            return client.get(self.runner_url).json()["builds"]

    def wait_for_build(self, job: str, commit: str) -> Mapping[str, Any]:
        """Return a commit's build once it has ended.

        Raises:
            SetupError: it does not come, or does not end.
        """

        def ended() -> Mapping[str, Any] | None:
            found = [each for each in self.builds() if (each["job"], each["commit"]) == (job, commit)]
            return next((each for each in found if each["result"] in {SUCCESS, FAILURE}), None)

        return _until(ended, f"the build of {job} {commit[:12]} has not ended", BUILD_SECONDS)

    def log(self, build: Mapping[str, Any]) -> str:
        """Return a build's log."""
        with httpx2.Client(trust_env=False, timeout=10) as client:
            return client.get(f"{self.runner_url}/job/{build['job']}/{build['number']}/").text

    def url(self, project: str) -> str:
        """Return where a project answers, as a person types it."""
        outputs = json.loads(self._pulumi("stack", "output", "--stack", STACK, "--json"))
        return str(outputs["endpoints"][project]["url"])

    def answer(self, project: str) -> str:
        """Return what a project answers through the VIP."""
        url = httpx2.URL(self.url(project))
        with httpx2.Client(trust_env=False, timeout=10, headers={"Host": url.host}) as client:
            return client.get(f"http://{self.instance.ingress_addresses[0]}{url.path}").text

    @contextmanager
    def load(self, project: str) -> Generator[Callable[[], Load]]:
        """Send requests to a project through the VIP as long as the context lasts; call what it yields afterwards.

        Raises:
            SetupError: The requests ended before the context did, so that they say nothing about the rest of it.
        """
        url = httpx2.URL(self.url(project))
        results = self.folder / "load.bin"
        target = f"GET http://{self.instance.ingress_addresses[0]}{url.path}\nHost: {url.host}\n"
        vegeta = str(self.instance.binaries / "vegeta")
        options = (f"-rate={RATE}/1s", f"-duration={LONGEST_LOAD_SECONDS}s", "-timeout=30s", f"-output={results}")
        # Marked as one of the services, so that `down` ends it when this process is killed.
        variables = {**os.environ, processes.MARK: str(self.instance.services[1])}
        process = subprocess.Popen(
            [vegeta, "attack", *options], env=variables, stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        if process.stdin is None:
            raise TypeError("the process was started with a pipe")
        process.stdin.write(target)
        process.stdin.close()
        try:
            yield lambda: self._load(vegeta, results)
            if process.poll() is not None:
                raise SetupError(f"the requests to {project} ended too early, with exit code {process.returncode}")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)

    def _load(self, vegeta: str, results: Path) -> Load:
        told = json.loads(self._run([vegeta, "report", "-type=json", str(results)], ROOT))
        good = int(told["status_codes"].get("200", 0))
        return Load(int(told["requests"]), int(told["requests"]) - good, tuple(told["errors"] or ()))

    # How it is made.

    def _kind(self, project: str) -> str:
        return str(yaml.safe_load((ROOT / "projects" / f"{project}.yaml").read_text())["kind"])

    def _copy_program(self) -> None:
        """Copy the program as it is now; what it has deployed is in the stack's state."""
        shutil.rmtree(self.program, ignore_errors=True)
        deploy.copy_program(ROOT, self.program, "projects")
        for path in (self.program / "projects").glob("*.yaml"):
            fields = yaml.safe_load(path.read_text())
            fields.update(BACK_END if fields["kind"] == "backend" else FRONT_END)
            path.write_text(yaml.safe_dump(fields, allow_unicode=True, sort_keys=False))
        (self.program / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump(self._stack_file()))
        servers = {
            "gitea": {"url": self.gitea.url, "owner": OWNER, "configRepository": CONFIG, "branch": "main"},
            "jenkins": {"url": self.runner_url},
            "registry": "harbor.package.test",
        }
        (self.program / "pipeline.yaml").write_text(yaml.safe_dump(servers))

    def _stack_file(self) -> dict[str, Any]:
        """Return the stack's file: that of `uat`, in a namespace of its own, without a tag."""
        text = deploy.stack_file(ROOT, "uat", self.instance).read_text()
        config: dict[str, Any] = yaml.safe_load(text)["config"]
        environment = config["package-platform:environment"]
        environment.update(namespace=f"package-{NAME}", domain=f"{NAME}.package.test")
        # Without a salt: it has no secrets, and pulumi adds one.
        return {
            "config": {
                "package-platform:environment": environment,
                "package-platform:tags": {},
                "package-platform:configPath": str(self.folder / "config"),
            }
        }

    def _make_repositories(self) -> None:
        """Make the organisation and the repositories with the samples' sources; those that are there stay."""
        headers = {"Authorization": f"token {self.gitea.token_file.read_text()}"}
        with httpx2.Client(base_url=f"{self.gitea.url}/api/v1", headers=headers, trust_env=False, timeout=30) as client:
            if client.get(f"/orgs/{OWNER}").is_error:
                client.post("/orgs", json={"username": OWNER}).raise_for_status()
            for name in (*self.projects, CONFIG):
                if client.get(f"/repos/{OWNER}/{name}").is_error:
                    self._first_commit(name)
                    made = {"name": name, "private": True, "default_branch": "main"}
                    client.post(f"/orgs/{OWNER}/repos", json=made).raise_for_status()
                    self.push(name, {}, "The sample's source")

    def _first_commit(self, repository: str) -> None:
        folder = self.folder / "developer" / repository
        shutil.rmtree(folder, ignore_errors=True)
        if repository == CONFIG:
            shutil.copytree(SAMPLE, folder)
        elif self._kind(repository) == "backend":
            shutil.copytree(SOURCES / "backend", folder, ignore=shutil.ignore_patterns("*_test.go", "publish"))
        else:
            shutil.copytree(SOURCES / "source" / "frontend", folder)
            shutil.copytree(SOURCES / "frontend" / "site", folder / "site")
        with _git_errors():
            Checkout(folder, repository, {}).run("init", "--quiet", "--initial-branch=main")

    def _url(self, repository: str) -> str:
        return f"{self.gitea.url}/{OWNER}/{repository}.git"

    @property
    def _key_file(self) -> Path:
        return self.folder / "webhook-key"

    def _key(self) -> str:
        return self._key_file.read_text() if self._key_file.exists() else secrets.token_hex(32)

    def _variables(self) -> dict[str, str]:
        return {
            **deploy.variables(self.instance),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            f"{GITEA_TOKEN}_FILE": str(self.gitea.token_file),
            f"{WEBHOOK_KEY}_FILE": str(self._key_file),
        }

    def _start_runner(self) -> None:
        """Start it anew, so that it knows the project files as they are now."""
        folder = self.instance.services[1]
        processes.end_all(folder)
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "runner.log"
        where = ("--address", str(self.instance.host_address), "--port", str(PORT))
        with log.open("ab") as stream:
            subprocess.Popen(
                [sys.executable, "-m", "devcluster.job_runner", str(folder), str(self.program), *where],
                cwd=ROOT,
                env={**self._variables(), processes.MARK: str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

        def answers() -> bool:
            try:
                self.builds()
            except httpx2.HTTPError:
                if not processes.marked(folder):
                    raise SetupError("the job runner does not come up", machine.tail(log)) from None
                return False
            return True

        _until(answers, "the job runner does not answer", START_SECONDS)

    def _pulumi(self, *words: str) -> str:
        return self._run(["pulumi", *words, "--non-interactive"], self.program)

    def _run(self, line: list[str], folder: Path) -> str:
        return commands.run(line, timeout=COMMAND_SECONDS, env=self._variables(), folder=folder)


_AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "A developer"), ("EMAIL", "developer@example.com"))
}


@contextmanager
def _git_errors() -> Generator[None]:
    """Let what the pipeline's git says be an error of this package."""
    try:
        yield
    except PipelineError as error:
        raise SetupError(str(error)) from error


def run(instance: Instance, progress: Progress) -> None:
    """Run the demo and tell it on standard output.

    Raises:
        SetupError: something did not go as it has to.
    """
    demo = Demo(instance, progress)
    demo.start()
    _say(f"Gitea has {len(demo.projects)} projects and `{CONFIG}`; their webhooks:", demo.apply_webhooks())
    first = demo.push_release(API, "first")
    _expect(demo, demo.wait_for_build(API, first), SUCCESS)
    _say(f"`git push` to {API}: built, pushed, released for the first time; it answers", demo.answer(API))
    with demo.load(API) as load:
        second = demo.push_release(API, "second")
        _expect(demo, demo.wait_for_build(API, second), SUCCESS)
        _say("the next push changes the answer:", demo.answer(API))
        broken = demo.wait_for_build(API, demo.push_release(API, "broken", crash=True))
        log = _expect(demo, broken, FAILURE)
        _say("a push that breaks it: the build is red, and says", "\n".join(log.splitlines()[-25:]))
        _say("while the old version serves:", demo.answer(API))
        both = {OTHER_API: demo.push_release(OTHER_API, "first"), PAGE: demo.push_release(PAGE, "first")}
        for project, commit in both.items():
            _expect(demo, demo.wait_for_build(project, commit), SUCCESS)
        _say("two pushes to two projects at once, both arrived:", "\n".join(demo.url(name) for name in both))
        before = demo.answer(API)
        commit = demo.push(CONFIG, {CONFIG_FILE: '{"Environment": "test", "PageSize": 100}\n'}, "Longer pages")
        log = _expect(demo, demo.wait_for_build(CONFIG, commit), SUCCESS)
        _say(f"a push to `{CONFIG}` alone:", "\n".join(line for line in log.splitlines() if "changes" in line))
        _say("before and after, the configuration's hash:", f"{before}\n{demo.answer(API)}")
    sent = load()
    _say(f"requests to {API} meanwhile: {sent.requests}, failed: {sent.failed}", "\n".join(sent.errors))
    if sent.failed:
        raise SetupError(f"{sent.failed} of {sent.requests} requests failed")
    urls = [f"{name:<26}{demo.url(name)}" for name in (API, *both)]
    urls += [f"{'Gitea (API and git)':<26}{demo.gitea.url}", f"{'job runner':<26}{demo.runner_url}"]
    vip = instance.ingress_addresses[0]
    _say(f"it stays up; `make down` ends it. Host names lead to the VIP, {vip}:", "\n".join(urls))


def _expect(demo: Demo, build: Mapping[str, Any], result: str) -> str:
    log = demo.log(build)
    if build["result"] != result:
        raise SetupError(f"the build {build['job']} #{build['number']} is {build['result']}, not {result}", log)
    return log


def _say(what: str, text: str) -> None:
    print(f"\n== {what}")
    print("\n".join(f"   {line}" for line in text.rstrip().splitlines()), flush=True)


def _until(ask: Callable[[], T | None], problem: str, seconds: float) -> T:
    deadline = time.monotonic() + seconds
    while not (found := ask()):
        if time.monotonic() > deadline:
            raise SetupError(f"after {seconds:.0f} s {problem}")
        time.sleep(0.5)
    return found
