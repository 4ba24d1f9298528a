"""Running the comparison of releases: all contestants in one namespace, each changed in turn under load."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import yaml

from bench import contestants as who
from bench import processes
from bench.contestants import Commands, Contestant, Programs
from bench.figures import Profile
from bench.release_figures import ACTIONS, Action, Answer, Change, Row, change
from bench.release_profile import profile
from bench.workspace import CommandError, copy_program
from devcluster import deploy, toolchain
from devcluster.images import TAGS
from devcluster.instance import REGISTRY_NAME, Instance
from devcluster.progress import Progress
from devcluster.tooltable import ARGO_DEFINITIONS
from model.release import Release
from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request
from tests.cluster.program import purge

FIRST_TAG = TAGS[0]
"""What everybody runs at first, and goes back to."""
COMMAND_SECONDS = 360.0
SETUP_SECONDS = 900.0
HEAD_START_SECONDS = 2.0
TAIL_SECONDS = 4.0
"""How long the load goes on after a command: its old pods may still answer."""
ANSWER_SECONDS = 90.0
LEAVE_SECONDS = 120.0
START_SECONDS = 60.0
END_SECONDS = 15.0
REQUEST_SECONDS = 5.0
_SAID_CHARACTERS = 1500
_NAME_LABEL = "app.kubernetes.io/name"
_SCOPE = f"--namespace={who.CLUSTER_NAMESPACE}"


def tag_of_round(number: int) -> str:
    """Return the tag that is released in a round; never that of the round before, or a warm slot would have it. Pure.

    Args:
        number: 0 and up.
    """
    return TAGS[1 + number % (len(TAGS) - 1)]


@dataclass
class Contest:
    """The contestants on a running cluster.

    Args:
        cluster: The cluster.
        folder: For the copy of the program, charts and results.
        progress: Is told every step.
        rate: Requests a second during a change.
        variables: The whole environment of all commands.
        programs: Where the contestants' programs are.
        images: Tag → reference with digest.
        environment: As a stack file has it, with the cluster's ingress.
    """

    cluster: Cluster
    folder: Path
    progress: Progress
    rate: int
    variables: Mapping[str, str]
    programs: Programs
    images: Mapping[str, str]
    environment: Mapping[str, Any]
    _taken: dict[str, dict[Action, list[Change]]] = field(default_factory=dict[str, dict[Action, list[Change]]])
    _failures: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def create(cls, instance: Instance, progress: Progress, rate: int, provider: Path | None) -> "Contest":
        """Copy the program below the instance's state; nothing is deployed yet.

        Args:
            instance: The cluster; it is up.
            progress: Is told every step.
            rate: Requests a second during a change.
            provider: Another `pulumi-resource-kubernetes` to run with.
        """
        folder = instance.state / "bench-release"
        homes = {f"HELM_{name}_HOME": str(folder / "helm") for name in ("CACHE", "CONFIG", "DATA")}
        variables = {**copy_program(instance, folder, provider), **homes}
        programs = Programs(
            release=instance.root / "bin" / "release",
            program=folder,
            helm=Path("helm"),
            argo=Path("kubectl-argo-rollouts"),
            charts=folder / "charts",
        )
        committed = deploy.stack_file(instance.root, "test", instance).read_text(encoding="utf-8")
        environment = yaml.safe_load(committed)["config"]["package-platform:environment"]
        images = {tag: _reference(instance, tag) for tag in TAGS}
        return cls(Cluster(instance), folder, progress, rate, variables, programs, images, environment)

    # Setting up.

    def build(self, taking_part: Sequence[Contestant]) -> None:
        """Build the contestants' programs; where that fails, they have failed.

        Args:
            taking_part: Who needs them.
        """
        for contestant in taking_part:
            with self._noted(contestant, "its program could not be built"):
                if contestant.group == "helm":
                    self.programs = replace(self.programs, helm=_program("helm", self.progress))
                elif contestant.group == "argo":
                    self.programs = replace(self.programs, argo=_program("kubectl-argo-rollouts", self.progress))
                    toolchain.build(toolchain.find("rollouts-controller"), self.progress)

    def set_up(self) -> None:
        """Bring up namespace, ingress and our own contestants; without these there is no contest.

        Raises:
            CommandError: That failed.
        """
        for contestant in who.CONTESTANTS:
            if contestant.group == "release":
                text = yaml.safe_dump(contestant.file(), sort_keys=False)
                (self.folder / "projects" / f"{contestant.gitea_name}.yaml").write_text(text)
        (self.folder / f"Pulumi.{who.STACK}.yaml").write_text(who.stack_file(self.environment, FIRST_TAG))
        with self.progress.step("contest: what an earlier run left is removed"):
            purge(self.cluster)
        with self.progress.step("contest: pulumi up of namespace, ingress and our own"):
            self._run("pulumi", "stack", "init", who.STACK, "--non-interactive", limit=SETUP_SECONDS)
            options = ("--yes", "--skip-preview", "--suppress-outputs", "--non-interactive", f"--stack={who.STACK}")
            self._run("pulumi", "up", *options, limit=SETUP_SECONDS)
        with self.progress.step("contest: every node fetches the images"):
            loader = who.image_loader(self._objects(who.CONTESTANTS[-1]), self.images)
            self._apply([loader])
            try:
                self._run("kubectl", "rollout", "status", _SCOPE, "daemonset/contest-images", "--timeout=240s")
            finally:
                self._run("kubectl", "delete", _SCOPE, "daemonset/contest-images", "--wait", "--timeout=120s")

    def enter(self, contestant: Contestant) -> None:
        """Bring one contestant to its first release, and wait until it answers; a failure is noted.

        Args:
            contestant: Who.
        """
        with self._noted(contestant, "could not be set up"), self.progress.step(f"contest: {contestant.title} enters"):
            if contestant.group == "kubectl":
                self._apply(self._objects(contestant).all())
            elif contestant.group == "helm":
                self._install_chart(contestant)
            elif contestant.group == "argo":
                self._apply(who.rollout_objects(contestant, self._objects(contestant)))
            self._wait_for(contestant, FIRST_TAG)

    def _install_chart(self, contestant: Contestant) -> None:
        for path, text in who.chart(self._objects(contestant), contestant.name).items():
            file = self.programs.charts / contestant.name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        chart = str(self.programs.charts / contestant.name)
        wait = ("--wait", f"--timeout={who.TIMEOUT}")
        self._run(str(self.programs.helm), "install", contestant.name, chart, _SCOPE, *wait)

    def _objects(self, contestant: Contestant) -> who.Objects:
        release = Release(tag=FIRST_TAG, digest=self.images[FIRST_TAG].partition("@")[2])
        return who.plain_objects(contestant, self.environment, release)

    # Measuring.

    def fail(self, taking_part: Sequence[Contestant], why: str) -> None:
        """Take contestants out of the contest."""
        for contestant in taking_part:
            self._failures.setdefault(contestant.gitea_name, why)

    def alive(self, contestant: Contestant) -> bool:
        """Tell whether a contestant has not failed yet."""
        return contestant.gitea_name not in self._failures

    def take_turn(self, contestant: Contestant, number: int) -> None:
        """Release a tag and go back, each under load; a failure is noted.

        Args:
            contestant: Who.
            number: Of the round, 0 and up.
        """
        tag = tag_of_round(number)
        commands: dict[Action, Commands] = {
            "deploy": who.deploy_commands(contestant, self.programs, tag, self.images[tag]),
            "rollback": who.rollback_commands(contestant, self.programs),
        }
        for action in ACTIONS:
            old, new = (FIRST_TAG, tag) if action == "deploy" else (tag, FIRST_TAG)
            with self._noted(contestant, f"{action} of round {number + 1}"):
                self._settle()
                with self.progress.step(f"round {number + 1}: {contestant.title}, {action}"):
                    taken = self._change(contestant, commands[action], old, new, f"{contestant.name}-{number}-{action}")
                told = f"{taken.seconds:.1f} s, last old answer {taken.last_old:.1f} s, {taken.failed} failed"
                print(f"round {number + 1}: {contestant.title}, {action}: {told} of {taken.sent}", flush=True)
                self._taken.setdefault(contestant.gitea_name, {}).setdefault(action, []).append(taken)
            if not self.alive(contestant):
                return

    def _change(self, contestant: Contestant, commands: Commands, old: str, new: str, name: str) -> Change:
        url, host = self._route(contestant)
        with Load(self.cluster, self.folder / "load" / name, [Request(url, host)], self.rate) as load:
            time.sleep(HEAD_START_SECONDS)
            begun, started = datetime.now(UTC), time.monotonic()
            for command in commands:
                self._run(*command)
            seconds = time.monotonic() - started
            self._wait_for(contestant, new)
            time.sleep(TAIL_SECONDS)
        answers = [
            Answer((hit.time - begun).total_seconds(), hit.seconds, hit.code, hit.tag) for hit in load.results().hits
        ]
        return change(answers, seconds, old, new)

    def rows(self, taking_part: Sequence[Contestant]) -> tuple[Row, ...]:
        """Return what was found so far."""
        return tuple(
            Row(
                contestant=each,
                changes={action: tuple(found) for action, found in self._taken.get(each.gitea_name, {}).items()},
                failure=self._failures.get(each.gitea_name, ""),
            )
            for each in taking_part
        )

    def profiles(self, number: int) -> list[Profile]:
        """Look into a release and a way back of each of our own contestants, without load.

        Args:
            number: Of the next round.
        """
        tag = tag_of_round(number)
        found: list[Profile] = []
        for contestant in who.CONTESTANTS:
            if contestant.group != "release" or not self.alive(contestant):
                continue
            steps = {
                "deploy": who.deploy_commands(contestant, self.programs, tag, self.images[tag]),
                "rollback": who.rollback_commands(contestant, self.programs),
            }
            for action, (command,) in steps.items():
                self._settle()
                with self.progress.step(f"where the time goes: {contestant.title}, {action}"):
                    title = f"`release {action}`, {contestant.strategy}, {who.REPLICAS} real pods"
                    found.append(profile(title, 2, command, self.folder, self.variables))
        return found

    # Cleaning up.

    def clean_up(self) -> None:
        """Take everything of the contest out of the cluster, as far as it goes."""
        with contextlib.suppress(Exception), self.progress.step("contest: everything is removed"):
            purge(self.cluster)

    # Helpers.

    @contextlib.contextmanager
    def _noted(self, contestant: Contestant, what: str) -> Generator[None]:
        """Note a failure of the body as the contestant's own; only an interruption goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            self._failures[contestant.gitea_name] = f"{what}: {error}"
            print(f"FAILED {contestant.title}, {what}: {error}", flush=True)

    def _run(self, *command: str, limit: float = COMMAND_SECONDS) -> str:
        code, out, errors = processes.run(command, self.folder, self.variables, limit)
        if code != 0:
            said = (out + errors).strip()[-_SAID_CHARACTERS:]
            words = " ".join([Path(command[0]).name, *command[1:4]])
            raise CommandError(f"`{words}` ended with {code}: {said}")
        return out

    def _apply(self, objects: Sequence[Mapping[str, Any]]) -> None:
        file = self.folder / "objects.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
        self._run("kubectl", "apply", "--server-side", "--force-conflicts", f"--filename={file}")

    def _route(self, contestant: Contestant) -> tuple[str, str]:
        address = self.cluster.instance.ingress_addresses[0]
        return f"http://{address}/{contestant.name}", f"{who.HOST}.{who.DOMAIN}"

    def _wait_for(self, contestant: Contestant, tag: str) -> None:
        """Wait until a contestant's route answers with a tag.

        Raises:
            CommandError: It does not in time; the message says what it answered.
        """
        url, host = self._route(contestant)
        deadline = time.monotonic() + ANSWER_SECONDS
        seen = "nothing"
        with httpx2.Client(trust_env=False, timeout=REQUEST_SECONDS, headers={"Host": host}) as client:
            while time.monotonic() < deadline:
                try:
                    answer = client.get(url)
                    seen = answer.text[:200] if answer.is_success else str(answer.status_code)
                    if answer.is_success and answer.json().get("tag") == tag:
                        return
                except (httpx2.TransportError, ValueError) as error:
                    seen = str(error)
                time.sleep(0.2)
        raise CommandError(f"after {ANSWER_SECONDS:.0f} s {url} does not answer as {tag}, but: {seen}")

    def _settle(self) -> None:
        """Wait until no pod is leaving or starting, so that nobody pays for the one before.

        What those run who have failed is not waited for.
        """
        out = {each.name for each in who.CONTESTANTS if not self.alive(each)}
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline:
            pods = self.cluster.get("pods", _SCOPE)["items"]
            counting = [pod for pod in pods if pod["metadata"].get("labels", {}).get(_NAME_LABEL) not in out]
            if not any("deletionTimestamp" in pod["metadata"] or not _is_ready(pod) for pod in counting):
                return
            time.sleep(0.5)
        self.progress.note(f"pods still move after {LEAVE_SECONDS:.0f} s")


def _program(name: str, progress: Progress) -> Path:
    return toolchain.build(toolchain.find(name), progress) / name


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _reference(instance: Instance, tag: str) -> str:
    """Return a sample image's reference with its digest, as the program would run it.

    Raises:
        CommandError: The registry has no such sample.
    """
    url = f"{instance.registry_endpoint}/v2/{who.REPOSITORY}/manifests/{tag}"
    kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
    try:
        answer = httpx2.Client(trust_env=False, timeout=REQUEST_SECONDS).head(url, headers={"Accept": kinds})
    except httpx2.TransportError as error:
        raise CommandError(f"the registry does not answer: {error}") from None
    digest = answer.headers.get("Docker-Content-Digest", "")
    if not answer.is_success or not digest:
        raise CommandError(f"the registry has no sample {who.REPOSITORY}:{tag} ({answer.status_code})")
    return f"{REGISTRY_NAME}/{who.REPOSITORY}:{tag}@{digest}"


@contextlib.contextmanager
def argo_controller(contest: Contest) -> Generator[None]:
    """Have the controller of Argo Rollouts run on this machine meanwhile, with its kinds of objects in the cluster.

    Raises:
        CommandError: It does not come up; the message has the end of its log.
    """
    folder = toolchain.build(toolchain.find("rollouts-controller"), contest.progress)
    cluster = contest.cluster
    definitions = [f"--filename={folder / name}" for name in ARGO_DEFINITIONS]
    log = contest.folder / "rollouts-controller.log"
    healthz, metrics = _free_ports(2)
    command = [
        str(folder / "rollouts-controller"),
        f"--kubeconfig={cluster.instance.kubeconfig}",
        _SCOPE,
        "--namespaced",
        "--leader-elect=false",
        f"--healthzPort={healthz}",
        f"--metricsPort={metrics}",
    ]
    try:
        with contest.progress.step("contest: the controller of Argo Rollouts starts"), log.open("wb") as output:
            cluster.kubectl("apply", "--server-side", "--force-conflicts", *definitions)
            cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *definitions)
            process = subprocess.Popen(
                command, env=dict(contest.variables), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            _wait_until_healthy(process, healthz, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        with contextlib.suppress(Exception):
            cluster.kubectl("delete", "rollouts.argoproj.io", "--all", _SCOPE, "--timeout=60s", check=False)
            cluster.kubectl("delete", "--ignore-not-found", "--timeout=60s", *definitions, check=False)


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx2.TransportError):
            url = f"http://127.0.0.1:{port}/healthz"
            if httpx2.Client(trust_env=False, timeout=REQUEST_SECONDS).get(url).is_success:
                return
        time.sleep(0.2)
    said = log.read_text(errors="replace")[-_SAID_CHARACTERS:]
    raise CommandError(f"the controller of Argo Rollouts did not come up within {START_SECONDS:.0f} s: {said}")


def _free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [int(each.getsockname()[1]) for each in sockets]
