"""The Pulumi program as tests use it: a copy of its own, with stacks and state of its own, on a real cluster."""

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml

from devcluster import deploy, process_tree
from devcluster.images import TAGS
from model.rollout import missing_pods
from settings import read_stack_file
from tests.cluster.embedded import Cluster

COMMAND_SECONDS = 600.0
ANSWER_SECONDS = 30.0
SETTLE_SECONDS = 90.0
KINDS = "deployments,replicasets,pods,services,ingresses,poddisruptionbudgets,serviceaccounts,configmaps,secrets"
"""What may be in a namespace of ours, and what would be seen when it changed."""
CHANGING = ("up", "refresh", "destroy")
ONLY_OBSERVED = ("resourceVersion", "managedFields")
"""Metadata that changes with an object's status, which is the cluster's own business."""


@dataclass
class Program:
    """One stack of a copy of the program; several stacks may share the copy.

    Args:
        cluster: where it deploys to.
        folder: of the copy.
        stack: its name, which decides the stack file too.
        variables: laid over the environment of every command.
    """

    cluster: Cluster
    folder: Path
    stack: str
    variables: dict[str, str] = field(default_factory=dict[str, str])
    _applied: dict[str, str] = field(default_factory=dict[str, str])
    _outputs: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def create(
        cls, cluster: Cluster, folder: Path, stack: str, variables: Mapping[str, str] | None = None
    ) -> "Program":
        """Copy what the program consists of, unless the folder has it already, and make an empty stack."""
        root = cluster.instance.root
        if not folder.exists():
            (folder / "state").mkdir(parents=True)
            deploy.copy_program(root, folder, "projects")
            for file in root.glob("Pulumi.*.yaml"):
                own = str(cluster.instance.network.network_address).removesuffix("0")
                (folder / file.name).write_text(file.read_text().replace(deploy.COMMITTED_NETWORK, own))
        program = cls(cluster, folder, stack, dict(variables or {}))
        # Tests go back and forth between two tags; what that needs otherwise is a test of its own.
        older = ", ".join(sorted(path.stem for path in (folder / "projects").iterdir()))
        config = f"config:\n  package-platform:allowOlder: [{older}]"
        program.stack_file.write_text(program.stack_file.read_text().replace("config:", config, 1))
        program.pulumi("stack", "init", stack)
        return program

    # What it is made of.

    @property
    def stack_file(self) -> Path:
        """The file with the stack's config."""
        return self.folder / f"Pulumi.{self.stack}.yaml"

    @property
    def namespace(self) -> str:
        """The namespace of all the stack's projects."""
        return str(read_stack_file(self.folder, self.stack)["environment"]["namespace"])

    @property
    def tags(self) -> dict[str, str]:
        """What the stack file wants: Gitea project → tag."""
        return dict(read_stack_file(self.folder, self.stack)["tags"])

    def other_tag(self, project: str) -> str:
        """Return a tag that the registry has and that the project does not run."""
        return next(tag for tag in reversed(TAGS) if tag != self.tags[project])

    def project_file(self, project: str) -> Path:
        """Return the file of a Gitea project."""
        return self.folder / "projects" / f"{project}.yaml"

    def append(self, project: str, text: str) -> None:
        """Write more fields at the end of a project's file."""
        file = self.project_file(project)
        file.write_text(file.read_text().rstrip("\n") + "\n" + text)

    def add_route(self, project: str, host: str, path: str) -> None:
        """Let a project answer at one more place; its first route stays the first, which is its URL."""
        file = self.project_file(project)
        fields = yaml.safe_load(file.read_text())
        fields["routes"].append({"host": host, "path": path})
        file.write_text(yaml.safe_dump(fields, allow_unicode=True, sort_keys=False))

    def projects(self) -> dict[str, str]:
        """Return all project files with their content."""
        return {path.name: path.read_text() for path in sorted((self.folder / "projects").iterdir())}

    def restore_projects(self, files: Mapping[str, str]) -> None:
        """Make the project files be these and no others; the stack file among them is left alone."""
        files = {name: text for name, text in files.items() if name != self.stack_file.name}
        for name in self.projects().keys() - files.keys():
            (self.folder / "projects" / name).unlink()
        for name, text in files.items():
            (self.folder / "projects" / name).write_text(text)

    # Pulumi's commands.

    def up(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `pulumi up`; with `--expect-no-changes` it tells what changes after all."""
        words = ("--yes", "--skip-preview", "--suppress-outputs", "--color=never", *arguments)
        shown = ("--diff",) if "--expect-no-changes" in arguments else ()
        finished = self.pulumi("up", *words, *shown, check=check)
        if finished.returncode == 0:
            self._applied = self.files()
        return finished

    def settle(self, files: Mapping[str, str]) -> None:
        """Bring the stack to these files (see `files`), whatever a test before has made of them.

        Its tags stay as they are, unless a test that failed has left one of an image that cannot run.
        """
        stack_file = yaml.safe_load(files[self.stack_file.name])
        tags = stack_file["config"]["package-platform:tags"]
        tags.update({project: tag for project, tag in self.tags.items() if project in tags and tag in TAGS})
        text = yaml.safe_dump(stack_file, allow_unicode=True, sort_keys=False)
        if yaml.safe_load(self.stack_file.read_text()) != stack_file:
            self.stack_file.write_text(text)
        self.restore_projects(files)
        if not self.cluster.kubectl("get", "namespace", self.namespace, "--ignore-not-found"):
            self.up("--refresh")  # a test that needs the cluster for itself has purged it
        elif self._applied != self.files():
            self.up()
        self.wait_until_settled()

    def files(self) -> dict[str, str]:
        """Return all that an `up` depends on and that tests change: the project files and the stack file."""
        return {**self.projects(), self.stack_file.name: self.stack_file.read_text()}

    def config_set(self, path: str, value: str) -> None:
        """Run `pulumi config set --path`, as a person types it: `tags["SJZY.Package.Api"]`."""
        self.pulumi("config", "set", "--path", path, value)

    def config_set_secret(self, path: str, value: str) -> None:
        """Run `pulumi config set --secret --path` with the value on standard input, as in a pipe."""
        self.pulumi("config", "set", "--secret", "--path", path, stdin=value)

    def set_tag(self, project: str, tag: str) -> None:
        """Ask for a tag; nothing is deployed by this."""
        self.config_set(f'tags["{project}"]', tag)

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs, asked of pulumi once after each command that may change them."""
        if not self._outputs:
            self._outputs = json.loads(self.pulumi("stack", "output", "--json").stdout)
        return self._outputs

    def preview(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `pulumi preview --diff`."""
        return self.pulumi("preview", "--diff", "--color=never", *arguments, check=check)

    def refresh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `pulumi refresh`."""
        return self.pulumi("refresh", "--yes", "--skip-preview", "--color=never", *arguments)

    def destroy(self) -> subprocess.CompletedProcess[str]:
        """Run `pulumi destroy`."""
        return self.pulumi("destroy", "--yes", "--skip-preview", "--color=never")

    def resources(self) -> list[dict[str, Any]]:
        """Return all resources in the stack's state."""
        return json.loads(self.pulumi("stack", "export").stdout)["deployment"].get("resources", [])

    def pulumi(
        self, command: str, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of pulumi on the stack; with `check` its failure fails the test and shows all that it said."""
        line = [str(self.cluster.instance.binaries / "pulumi"), command, *arguments, "--non-interactive"]
        if not (command == "stack" and arguments[0] == "init"):
            line.append(f"--stack={self.stack}")
        if command in CHANGING:
            self._outputs = {}
        finished = self._run(line, stdin)
        if check and finished.returncode != 0:
            raise AssertionError(f"{' '.join(line[1:])}\n{finished.stdout[-6000:]}\n{finished.stderr[-3000:]}")
        return finished

    def _run(self, line: list[str], stdin: str) -> subprocess.CompletedProcess[str]:
        """Run it in a session of its own, so that its plugins end with it when it takes too long."""
        environment = {
            **self.cluster.env,
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_HOME": str(self.folder / "home"),
            **self.variables,
        }
        with subprocess.Popen(
            line,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            output, errors = process_tree.communicate(process, stdin, COMMAND_SECONDS)
        return subprocess.CompletedProcess(line, process.returncode, output, errors)

    # What is in the cluster.

    def get(self, kinds: str = KINDS) -> list[dict[str, Any]]:
        """Return the objects of the stack's namespace."""
        return self.cluster.get(kinds, f"--namespace={self.namespace}")["items"]

    def identities(self, kinds: str = KINDS) -> dict[str, dict[str, Any]]:
        """Return `Kind/name` → what changes when somebody changes the object: its uid, generation and content."""
        return {f"{item['kind']}/{item['metadata']['name']}": _identity(item) for item in self.get(kinds)}

    def wait_until_settled(self) -> None:
        """Wait until no pod is leaving or not ready, and every Deployment and StatefulSet has all its pods."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while names := moving(self.get("deployments,statefulsets,pods")):
            assert time.monotonic() < deadline, f"after {SETTLE_SECONDS} s still moving: {', '.join(names)}"
            time.sleep(0.5)

    def url(self, project: str, path: str = "") -> tuple[str, str]:
        """Return a URL by the ingress's address, and the host that the project answers to."""
        endpoint = self.outputs()["endpoints"][project]
        url = httpx2.URL(endpoint["url"])
        return f"http://{endpoint['address']}{path or url.path}", url.host

    def answer(self, project: str, path: str = "", headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """Ask a project through the ingress; a route or pod that has just appeared may take a moment."""
        url, host = self.url(project, path)
        deadline = time.monotonic() + ANSWER_SECONDS
        with httpx2.Client(trust_env=False, timeout=5, headers={"Host": host, **(headers or {})}) as client:
            while True:
                try:
                    response = client.get(url)
                    if response.is_success or time.monotonic() > deadline:
                        return response
                except httpx2.TransportError:
                    if time.monotonic() > deadline:
                        raise
                time.sleep(0.2)


def _identity(item: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in item["metadata"].items() if name not in ONLY_OBSERVED}
    content = {**item, "metadata": metadata, "status": None}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"uid": metadata["uid"], "generation": metadata.get("generation"), "content": digest}


def moving(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of those that leave, and of pods, Deployments and StatefulSets that are not done. Pure.

    A pod that has ended is done: that of a Job, or one that was evicted, which stays for people to read.
    """
    done: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        "Pod": _has_ended_or_is_ready,
        "Deployment": _is_done,
        "StatefulSet": lambda item: not missing_pods(item),
    }
    return [
        item["metadata"]["name"]
        for item in items
        if "deletionTimestamp" in item["metadata"] or not done[item["kind"]](item)
    ]


def _has_ended_or_is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready or pod["status"].get("phase") in ("Succeeded", "Failed")


def _is_done(deployment: Mapping[str, Any]) -> bool:
    return not missing_pods(deployment) and deployment["status"].get("replicas", 0) == deployment["spec"]["replicas"]


def purge(cluster: Cluster) -> None:
    """Remove all that Pulumi has made on a cluster; `Program.settle` makes its own again."""
    kinds = "namespaces,clusterroles,clusterrolebindings,ingressclasses"
    label = "--selector=app.kubernetes.io/managed-by=pulumi"
    cluster.kubectl("delete", kinds, label, "--ignore-not-found", "--wait", "--timeout=180s")


@contextmanager
def changed(file: Path, text: str) -> Generator[None]:
    """A file with another text, or without one (empty text removes it), for as long as the context lasts."""
    before = file.read_text() if file.exists() else None
    if text:
        file.write_text(text)
    else:
        file.unlink()
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)
