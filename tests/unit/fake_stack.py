"""A stack without a cluster: a `pulumi` that does as it is told and notes its calls, and a small Kubernetes API."""

import json
import os
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2

from model.release import RECORD_ANNOTATION, REVISION_LABEL, Record, Release, Slot
from model.stack import Application
from release.cluster import KINDS, Cluster
from release.inputs import Program

PROJECT = "SJZY.Package.Api"
NAME = "sjzy-package-api"
REPOSITORY = "harbor.package.test/back/sjzy.package.api"
NAMESPACE = "package-test"
STACK_FILE = f"""
config:
  # The comment stays.
  package-platform:environment:
    namespace: {NAMESPACE}
    domain: test.example.com
    registry: {{host: harbor.package.test}}
  package-platform:tags:
    {PROJECT}: "1"
    packet: "7"
"""
PULUMI = """#!{python} -IS
import json, os, signal, subprocess, sys, time
here = {folder!r}
words = sys.argv[1:]
options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
with open(here + "/orders") as file:
    orders = json.load(file)
number = len(open(here + "/calls").readlines()) if os.path.exists(here + "/calls") else 0
if "--event-log" in options and os.environ.get("PULUMI_DEBUG_COMMANDS") != "true":
    sys.exit("error: unknown flag: --event-log")
config = options.get("--config-file")
told = os.environ.get("PACKAGE_PLATFORM_RELEASE")
call = {{
    "words": words,
    "config": json.load(open(config)) if config and words[0] != "config" else None,
    "instruction": json.loads(told) if told else None,
}}
with open(here + "/calls", "a") as file:
    file.write(json.dumps(call) + "\\n")
order = orders[min(number, len(orders) - 1)]
stopped = []
signal.signal(signal.SIGINT, signal.SIG_IGN if order.get("deaf") else lambda *_: stopped.append(1))
if order.get("child"):
    child = subprocess.Popen([sys.executable, "-ISc", "import time; time.sleep(600)"], start_new_session=True)
    with open(here + "/child", "w") as file:
        file.write(str(child.pid))
print(order.get("output", ""), flush=True)
if "--event-log" in options:
    with open(options["--event-log"], "a") as file:
        for event in order.get("events", []):
            file.write(json.dumps(event) + "\\n")
if "wants" in order:
    with open(here + "/wants", "w") as file:
        file.write(order["wants"])
ends = time.monotonic() + order.get("seconds", 0)
while (order.get("hangs") or time.monotonic() < ends) and not stopped:
    time.sleep(0.01)
sys.exit(255 if stopped else order.get("code", 0))
"""
BEGUN: dict[str, Any] = {"preludeEvent": {"config": {}}}
CRASHING: dict[str, Any] = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 1}
"""State of a container that crashes, for ``pod``."""
STEP: dict[str, Any] = {
    "resourcePreEvent": {
        "metadata": {"op": "update", "urn": f"urn:pulumi:test::p::kubernetes:apps/v1:Deployment::{NAME}"}
    }
}


def record(tag: str, *before: str) -> Record:
    """Return the record of a rolling project that runs a tag, and ran others before."""
    releases = [Release(tag=each, digest=f"sha256:{each}") for each in (tag, *before)]
    return Record(
        live="main", slots={"main": Slot(release=releases[0], revision=f"r{tag}")}, history=tuple(releases), since="s"
    )


@dataclass
class FakeStack:
    """The stack ``test`` with one project that is deployed.

    Args:
        folder: Of everything.
    """

    folder: Path
    record: Record | None = field(default_factory=lambda: record("1"))
    moves: list[Record] = field(default_factory=list[Record])
    """What the record is when it is read again, one for each time; the last one stays."""
    pods: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    deployments: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    stateful_sets: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    jobs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """Data of ConfigMaps, by name."""
    proxies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    metrics: Callable[[str], str] | None = None
    """What a proxy tells when it is asked, by its name."""

    def __post_init__(self) -> None:
        (self.folder / "program" / "projects").mkdir(parents=True)
        (self.folder / "bin").mkdir()
        (self.folder / "program" / "Pulumi.yaml").write_text("name: p\nruntime: python\n")
        (self.folder / "program" / "Pulumi.test.yaml").write_text(STACK_FILE)
        for name, kind in ((PROJECT, "backend"), ("packet", "frontend")):
            (self.folder / "program" / "projects" / f"{name}.yaml").write_text(f"kind: {kind}\n")
        program = self.folder / "bin" / "pulumi"
        program.write_text(PULUMI.format(python=sys.executable, folder=str(self.folder)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.deployments = [deployment("1")]

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which the fake is found."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        return {"PATH": path, "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}"}

    @property
    def program(self) -> Program:
        """The program's files."""
        return Program(self.folder / "program", "test")

    @property
    def locks(self) -> Path:
        """Where the backend keeps the stack's locks."""
        return self.folder / "state" / ".pulumi" / "locks" / "organization" / "p" / "test"

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        client = httpx2.Client(transport=httpx2.MockTransport(self._answer), base_url="https://cluster.test")
        return Cluster(client, NAMESPACE)

    def connected(self, *_: object) -> Cluster:
        """Return the cluster as a session connects to it, each time anew; stands for the session's method."""
        return self.cluster

    def application(self, tag: str) -> Application:
        """Return the project with a tag that the registry has."""
        return self.program.application(PROJECT, tag).running(Release(tag=tag, digest=f"sha256:{tag}"))

    def order(self, *orders: Mapping[str, Any]) -> None:
        """Say what the calls of pulumi do, one after another; the last one goes for all that follow."""
        (self.folder / "orders").write_text(json.dumps(orders))

    def save(self, deployment: Mapping[str, Any]) -> None:
        """Make the stored state be this."""
        file = self.folder / "state" / ".pulumi" / "stacks" / "p" / "test.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"version": 3, "checkpoint": {"latest": deployment}}))

    def calls(self) -> list[dict[str, Any]]:
        """Return the calls of pulumi so far."""
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        kind = path.rsplit("/", 1)[-1]
        query = parse_qs(request.url.query.decode())
        if (kind == NAME and "/services/" in path) or "/configmaps/" in path:
            named = self._config_map(kind) if "/configmaps/" in path else self._read_service()
            return httpx2.Response(200, json=named) if named else httpx2.Response(404, json={})
        if kind == "metrics" and self.metrics:
            return httpx2.Response(200, text=self.metrics(path.split("/pods/")[1].partition(":")[0]))
        if path == "/api/v1/pods":
            return httpx2.Response(200, json={"items": self.proxies})
        if kind == "log":
            if "-migrate-" in path:
                return httpx2.Response(200, text="migrating\nduplicate column\n")
            return httpx2.Response(200, text="listening\nno database\n" if query["previous"] == ["true"] else "")
        found: dict[str, list[dict[str, Any]]] = {
            **{plural: [] for _, plural in KINDS.values()},
            "services": [self._service()] if self.record else [],
            "deployments": self._deployments(),
            "statefulsets": self.stateful_sets,
            "pods": self.pods,
            "jobs": self.jobs,
            "events": [{"reason": "BackOff", "message": "Back-off restarting", "count": 3}],
        }
        return httpx2.Response(200, json={"items": found[kind]}) if kind in found else httpx2.Response(404, json={})

    def _config_map(self, name: str) -> dict[str, Any] | None:
        data = self.config_maps.get(name)
        return {"metadata": {"name": name}, "data": data} if data else None

    def _read_service(self) -> dict[str, Any] | None:
        if self.moves:
            self.record = self.moves.pop(0)
        return self._service() if self.record else None

    def _deployments(self) -> list[dict[str, Any]]:
        """Return those that the last call of pulumi left, where it was told to leave some."""
        file = self.folder / "wants"
        return [deployment(file.read_text())] if file.exists() else self.deployments

    def _service(self) -> dict[str, Any]:
        text = self.record.to_annotation() if self.record else ""
        return {"metadata": {"name": NAME, "annotations": {RECORD_ANNOTATION: text}}}


def deployment(tag: str) -> dict[str, Any]:
    """Return the project's Deployment as it is when it wants a tag."""
    containers = [{"name": NAME, "image": f"{REPOSITORY}:{tag}@sha256:{tag}"}]
    template = {"metadata": {"labels": {REVISION_LABEL: f"r{tag}"}}, "spec": {"containers": containers}}
    return {
        "metadata": {"name": NAME, "uid": "d", "generation": 1},
        "spec": {"replicas": 1, "template": template},
        "status": {"observedGeneration": 1, "readyReplicas": 1},
    }


def pod(tag: str, **status: Any) -> dict[str, Any]:
    """Return a pod of the project with its container in a state."""
    template = deployment(tag)["spec"]["template"]
    return {
        "metadata": {"name": f"{NAME}-{tag}", "uid": f"uid-{tag}", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
        "status": {"containerStatuses": [{"name": NAME, "restartCount": 0, **status}]},
    }


def job(tag: str, outcome: str, name: str = "") -> dict[str, Any]:
    """Return the Job that migrated to a tag, with a condition."""
    spec = {"containers": [{"name": NAME, "image": f"{REPOSITORY}:{tag}@sha256:{tag}"}]}
    told = [{"type": outcome, "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]
    return {
        "metadata": {"name": name or f"{NAME}-migrate-{tag}", "uid": f"job-{tag}"},
        "spec": {"template": {"spec": spec}},
        "status": {"conditions": told if outcome else []},
    }


def job_pod(tag: str, **state: Any) -> dict[str, Any]:
    """Return the pod of that Job."""
    labels = {"batch.kubernetes.io/job-name": f"{NAME}-migrate-{tag}"}
    return {
        "metadata": {"name": f"{NAME}-migrate-{tag}-x", "uid": f"job-pod-{tag}", "labels": labels},
        "spec": job(tag, "")["spec"]["template"]["spec"],
        "status": {"containerStatuses": [{"name": NAME, "restartCount": 0, "state": state}]},
    }


def proxy(name: str, class_name: str = "nginx") -> dict[str, Any]:
    """Return a pod of the cluster's ingress."""
    container = {
        "args": ["--ping=true", f"--providers.kubernetesingressnginx.ingressclass={class_name}"],
        "ports": [{"name": "web", "containerPort": 8000}, {"name": "metrics", "containerPort": 9180}],
    }
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "package-ingress"},
        "spec": {"containers": [container]},
        "status": {"phase": "Running"},
    }
