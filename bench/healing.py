"""`python -m bench.healing`: how long it takes until all is well again after pods, nodes and their programs fail.

Beside it stands the same application as a plain Deployment with Kubernetes' defaults, which the same event hits.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bench.__main__ import DOCUMENT, InstanceId, running_cluster
from bench.command_line import execute
from bench.healing_figures import BEGIN, END, Healed, Outcome, render
from bench.ingress_figures import Circumstances
from bench.report import MarkersMissingError, replace_section
from devcluster import commands, kubectl, machine
from devcluster.failure import SetupError
from devcluster.instance import KUBERNETES_VERSION, Machine
from devcluster.progress import Progress
from devcluster.tooltable import TRAEFIK
from tests.cluster.embedded import Cluster
from tests.cluster.healing import CONTAINERD, KUBELET, App, Healing, incarnation
from tests.cluster.load import Load, Request
from tests.cluster.program import Program, purge

PROJECT = "SJZY.Package.Output.Api"
NAME = "sjzy-package-output-api"
PLAIN = "plain"
PODS = 3
"""Of each side: one on every node, so that what happens to a node happens to both."""
RATE = 40
SLOW_RATE = 8
"""Where requests hang: all of them are in flight at once."""
HEAD_START_SECONDS = 3.0
AFTER_SECONDS = 5.0
QUIET_SECONDS = 30.0
"""As long as it takes until a silent node is noticed and its pods have left."""
AWAY_SECONDS = 60.0
LIMIT_SECONDS = 90.0
KUBERNETES_SECONDS = 300
"""What a pod without tolerations of its own gets from the API server (`--default-not-ready-toleration-seconds`)."""
LOST_SECONDS = 360.0
DRAIN_SECONDS = 120.0
PROTECTED = f"""
replicas: {PODS}
env: {{CONTROL: "on"}}
"""
HELP = """Measure how long it takes until all is well again after something fails, beside a plain Deployment.

It brings up an embedded cluster of its own (root on Linux) and removes it at the end. One that is there already is
used, and left on or off as it was; but all that Pulumi manages there, of every stack, is removed, and a copy of the
stack test stays in its place.
"""


@dataclass(frozen=True)
class Side:
    """One of the two applications.

    Args:
        app: Its pods.
        request: How it is asked.
    """

    app: App
    request: Request


@dataclass(frozen=True)
class Event:
    """Something that happens under load.

    Args:
        name: For people.
        pod: What is done to one pod of each side; None when it happens to the node.
        node: What is done to the node.
        loses: Whether the pods of the node are lost by it.
        plain: Whether the plain Deployment has what is broken here.
        rate: Requests a second.
        limit: Seconds after which it is looked at no longer.
    """

    name: str
    pod: Callable[[dict[str, Any]], object] | None = None
    node: Callable[[Machine], object] | None = None
    loses: bool = True
    plain: bool = True
    rate: int = RATE
    limit: float = LIMIT_SECONDS


class Comparison:
    """A project, and beside it a plain Deployment of the same image."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.cluster = program.cluster
        self.healing = Healing(program.cluster)
        self.folder = folder
        url, host = program.url(PROJECT)
        self.ours = Side(App(NAME, program.namespace, PODS), Request(url, host))
        self.plain = Side(App(PLAIN, PLAIN, PODS), Request(url, f"{PLAIN}.{host.partition('.')[2]}"))
        self.node = program.cluster.instance.nodes[-1]
        self.struck: list[tuple[Side, dict[str, Any]]] = []

    def start_plain(self) -> None:
        """Start the plain Deployment with the image of ours, behind the same ingress."""
        (ours,) = [each for each in self.program.get("deployments") if each["metadata"]["name"] == NAME]
        image = ours["spec"]["template"]["spec"]["containers"][0]["image"]
        text = yaml.safe_dump_all(plain_objects(image, self.plain.request.host))
        commands.run(kubectl.command(self.cluster.instance, "apply", "--filename=-"), text=text)
        self.settle()

    def settle(self) -> None:
        """Bring all nodes and pods back, one pod of each side on every node."""
        self.repair_node()
        # One that hangs and has no probes is ready for ever, and would still hang in the next event.
        while self.struck:
            side, pod = self.struck.pop()
            if incarnation(pod) in {incarnation(each) for each in self.healing.ready(side.app)}:
                self._replace(side, pod)
        for side in (self.ours, self.plain):
            while twice := self._crowded(side):
                self._replace(side, twice)
        self.program.wait_until_settled()

    def repair_node(self) -> None:
        """Have all nodes on, and let them have pods."""
        if not machine.is_on(self.node):
            self.cluster.devcluster("node-up", self.node.name)
        self.cluster.devcluster("up")
        self.healing.uncordon(self.node)

    def _replace(self, side: Side, pod: dict[str, Any]) -> None:
        self.healing.delete(pod)
        self.healing.healed(side.app, {incarnation(pod)}, LIMIT_SECONDS)

    def _crowded(self, side: Side) -> dict[str, Any] | None:
        """Return a pod that shares its node with another one of the same side."""
        seen: set[str] = set()
        for pod in self.healing.ready(side.app):
            if pod["spec"]["nodeName"] in seen:
                return pod
            seen.add(pod["spec"]["nodeName"])
        return None

    def events(self) -> list[Event]:
        """Return all that is measured, in this order: what takes longest comes last."""
        healing = self.healing
        control_plane = self.cluster.instance.nodes[0]
        return [
            Event("a process crashes", lambda pod: healing.steer(pod, "exit")),
            Event("a process hangs", lambda pod: healing.steer(pod, "hang"), rate=SLOW_RATE),
            Event("a pod is deleted", healing.delete),
            Event("a pod fills /tmp", lambda pod: healing.steer(pod, "fill"), plain=False, limit=2 * LIMIT_SECONDS),
            Event("a node's kubelet is killed", node=lambda node: healing.kill(node, KUBELET), loses=False),
            Event("a node's containerd is killed", node=lambda node: healing.kill(node, CONTAINERD), loses=False),
            Event(
                f"the control plane is away for {AWAY_SECONDS:.0f} s",
                node=lambda _: healing.without_control_plane(control_plane, AWAY_SECONDS),
                loses=False,
            ),
            Event("a node is drained", node=lambda node: healing.drain(node, DRAIN_SECONDS)),
            Event("a node's power is cut", node=self._cut, limit=LOST_SECONDS),
        ]

    def _cut(self, node: Machine) -> None:
        self.cluster.devcluster("node-down", node.name)

    def measure(self, event: Event, number: int) -> Outcome:
        """Let an event happen to both."""
        self.settle()
        sides = [self.ours, self.plain] if event.plain else [self.ours]
        loads = [
            # The proxy repeats a GET on other pods, and never a POST that may have arrived: only both tell of losses.
            Load(
                self.cluster,
                self.folder / f"{number}-{side.app.name}",
                [side.request, replace(side.request, method="POST")],
                event.rate,
            )
            for side in sides
        ]
        with ExitStack() as running:
            for load in loads:
                running.enter_context(load)
            seconds = self._happens(event, sides)
            time.sleep(AFTER_SECONDS)
        found = [
            Healed(each, event.limit, len(results.failed), len(results.hits))
            for each, results in zip(seconds, [load.results() for load in loads], strict=True)
        ]
        return Outcome(event.name, found[0], found[1] if event.plain else None)

    def _happens(self, event: Event, sides: Sequence[Side]) -> list[float | None]:
        """Let it happen, and return how long each side took to be well again."""
        time.sleep(HEAD_START_SECONDS)
        hit = [[pod for pod in self.healing.ready(side.app) if self._is_hit(pod)] for side in sides]
        before = [{incarnation(pod) for pod in self.healing.ready(side.app)} for side in sides]
        if not event.loses:
            if event.node:
                event.node(self.node)
            time.sleep(QUIET_SECONDS)
            return [self._undisturbed(side, ready) for side, ready in zip(sides, before, strict=True)]

        def healed(side: Side, pods: Sequence[dict[str, Any]]) -> float | None:
            # Each is hit and looked at by itself, or it would be charged with the time that the other one's hit takes.
            began = time.monotonic()
            if event.pod:
                self.struck.append((side, pods[0]))
                event.pod(pods[0])
            seconds = self.healing.healed(side.app, {incarnation(pod) for pod in pods}, event.limit)
            return None if seconds is None else time.monotonic() - began

        with ThreadPoolExecutor(len(sides) + 1) as pool:
            # It may take long itself, as a drain that waits for the last pod to end, when one side is well already.
            happens = pool.submit(event.node, self.node) if event.node else None
            seconds = list(pool.map(healed, sides, hit))
            if happens:
                happens.result()
        return seconds

    def _undisturbed(self, side: Side, before: set[tuple[str, int]]) -> float | None:
        return 0.0 if {incarnation(pod) for pod in self.healing.ready(side.app)} == before else None

    def _is_hit(self, pod: dict[str, Any]) -> bool:
        return pod["spec"]["nodeName"] == self.node.name


def plain_objects(image: str, host: str) -> list[dict[str, Any]]:
    """Return what somebody writes who just wants the application to run. Pure.

    Args:
        image: Of the application.
        host: By which the ingress offers it.
    """
    labels = {"app.kubernetes.io/name": PLAIN}
    metadata = {"name": PLAIN, "namespace": PLAIN}
    container = {
        "name": PLAIN,
        "image": image,
        "ports": [{"containerPort": 8080}],
        "env": [
            {"name": "CONTROL", "value": "on"},
            {"name": "PROJECT", "value": PLAIN},
        ],
    }
    # Written out, whatever the API server of this cluster would put in.
    lost = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": KUBERNETES_SECONDS,
        }
        for taint in ("not-ready", "unreachable")
    ]
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container], "tolerations": lost}}
    backend = {"service": {"name": PLAIN, "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLAIN}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": PODS, "selector": {"matchLabels": labels}, "template": pod},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": metadata,
            "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]},
        },
    ]


def run(
    instance_id: InstanceId = None,
    *,
    write: Annotated[bool, typer.Option("--write", help="Put the table into docs/benchmarks.md.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster up.")] = False,
) -> None:
    """Measure and print."""
    progress = Progress()
    load = os.getloadavg()[0]
    outcomes: list[Outcome] = []
    report = ""
    with running_cluster(instance_id, progress, keep=keep) as instance:
        folder = instance.state / "bench-healing"
        shutil.rmtree(folder, ignore_errors=True)
        cluster = Cluster(instance)
        with progress.step("pulumi up"):
            purge(cluster)
            program = Program.create(cluster, folder / "program", "test")
            program.append(PROJECT, PROTECTED)
            program.up()
        comparison = Comparison(program, folder)
        try:
            comparison.start_plain()
            for number, event in enumerate(comparison.events()):
                with progress.step(event.name):
                    outcomes.append(comparison.measure(event, number))
                report = render(outcomes, _circumstances(load))
                print(report, flush=True)
        finally:
            try:
                # The last event leaves a node without power.
                comparison.repair_node()
            finally:
                cluster.kubectl("delete", "namespace", PLAIN, "--ignore-not-found", "--wait=false", check=False)
    if write:
        text = replace_section(DOCUMENT.read_text(encoding="utf-8"), report, (BEGIN, END))
        DOCUMENT.write_text(text, encoding="utf-8")


def _circumstances(load: float) -> Circumstances:
    return Circumstances(
        date=datetime.now(UTC).date().isoformat(),
        cores=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3,
        load=(load, os.getloadavg()[0]),
        rate=RATE,
        versions={"Kubernetes": KUBERNETES_VERSION, "Traefik": TRAEFIK.removeprefix("v")},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are lines on standard error and an exit code."""
    execute(run, HELP, (SetupError, MarkersMissingError, AssertionError), arguments)


if __name__ == "__main__":
    main()
