"""`python -m bench.ingress`: what clients lose while parts of the ingress fail or are replaced.

Beside it stands what they lose with a single proxy on one node's own address.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
import yaml

from bench.__main__ import DOCUMENT, InstanceId, running_cluster
from bench.command_line import execute
from bench.ingress_figures import BEGIN, END, Circumstances, Lost, Outcome, render
from bench.report import MarkersMissingError, replace_section
from devcluster import commands, kubectl, machine
from devcluster.failure import SetupError
from devcluster.instance import KUBERNETES_VERSION, Machine
from devcluster.keepalived import VERSION as KEEPALIVED
from devcluster.progress import Progress
from devcluster.tooltable import TRAEFIK
from tests.cluster.embedded import Cluster
from tests.cluster.ingress import HEAD_START_SECONDS, NAMESPACE, PROJECT, RATE, Ingress
from tests.cluster.load import Load, Request, Results
from tests.cluster.program import Program, purge

SINGLE_PORT = 8081
"""The single proxy's: 80 is taken on every node."""
SINGLE = "single-proxy"
SETTLED_SECONDS = 120.0
ANSWER_SECONDS = 30.0
OFF_SECONDS = 15
OURS_ALONE = ("middlewares=", "lifecycle", "publishstatusaddress", "providers.file", "nextupstream", "connecttimeout")
"""What of our settings a single proxy that somebody just installs has not."""
HELP = """Measure what clients lose while parts of the ingress fail or are replaced.

It brings up an embedded cluster of its own (root on Linux) and removes it at the end. One that is there already is
used, and left on or off as it was; but all that Pulumi manages there, of every stack, is removed, and a copy of the
stack test stays in its place.
"""


@dataclass(frozen=True)
class Event:
    """Something that happens under load.

    Args:
        name: For people.
        ours: What is done to the node that holds the VIP; it returns when it is over.
        single: What is done to the single proxy; None when it has no such part.
        after: Seconds for which the load goes on.
        holder: Number of the node that has the VIP before; whichever has it when it is None.
    """

    name: str
    ours: Callable[[Machine], object]
    single: Callable[[], object] | None
    after: float = 5.0
    holder: int | None = None


class Comparison:
    """Our ingress, and on one of its nodes a single proxy that serves the same."""

    def __init__(self, ingress: Ingress, folder: Path) -> None:
        self.ingress = ingress
        self.folder = folder
        self.node = ingress.nodes[-1]
        url, self.host = ingress.program.url(PROJECT)
        self.ours = url
        self.single = url.replace(f"{ingress.address}:80", f"{self.node.address}:{SINGLE_PORT}")

    def start_single(self) -> None:
        """Start the single proxy, with the image and the routes of ours."""
        text = yaml.safe_dump(single_proxy(self.ingress.cluster.get("daemonset", NAMESPACE, "traefik"), self.node))
        commands.run(kubectl.command(self.ingress.cluster.instance, "apply", "--filename=-"), text=text)
        self.wait_for_single()
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self._single_answers():
            if time.monotonic() > deadline:
                raise SetupError(f"{SINGLE} does not serve {self.single} after {ANSWER_SECONDS:.0f} s: see its log")
            time.sleep(0.2)

    @contextlib.contextmanager
    def beside_single(self) -> Generator[None]:
        """Have the single proxy run meanwhile."""
        try:
            self.start_single()
            yield
        finally:
            away = ("--ignore-not-found", "--wait=false")
            self.ingress.cluster.kubectl("delete", NAMESPACE, f"deployment/{SINGLE}", *away, check=False)

    def _single_answers(self) -> bool:
        try:
            return httpx2.get(self.single, headers={"Host": self.host}, timeout=2, trust_env=False).is_success
        except httpx2.TransportError:
            return False

    def wait_for_single(self) -> None:
        """Wait until the single proxy is ready again."""
        self.ingress.cluster.kubectl("rollout", "status", NAMESPACE, f"deployment/{SINGLE}", "--timeout=180s")

    def replace_single(self) -> None:
        """Replace the single proxy's pod, as a change of its settings does."""
        self.ingress.cluster.kubectl("rollout", "restart", NAMESPACE, f"deployment/{SINGLE}")
        self.wait_for_single()

    def kill_single(self) -> None:
        """End the single proxy's program at once."""
        script = f"kill -9 $(ps -eo pid,args | grep '[a]ddress=:{SINGLE_PORT}' | awk '{{print $1}}')"
        self.ingress.on(self.node, "sh", "-c", script)

    def power_cycle(self, node: Machine) -> None:
        """Cut a node's power, and switch it on again after a while."""
        self.ingress.power("node-down", node)
        time.sleep(OFF_SECONDS)
        self.ingress.power("node-up", node)

    def events(self) -> list[Event]:
        """Return all that is measured, in this order."""
        ingress = self.ingress
        cycle = f"power cut for {OFF_SECONDS} s"
        return [
            # Not on the single proxy's node, where it would be killed as well.
            Event("the proxy crashes", lambda node: ingress.kill(node, "traefik"), self.kill_single, 15, 0),
            Event("keepalived crashes", lambda node: ingress.kill(node, "keepalived"), None),
            Event("the proxies are rolled", lambda _: ingress.roll("traefik"), self.replace_single),
            Event("keepalived is rolled", lambda _: ingress.roll("keepalived"), None),
            Event("the holder leaves for maintenance", ingress.leave, None),
            Event(f"{cycle}: the holder, a worker", self.power_cycle, lambda: self.power_cycle(self.node), 40, 1),
            Event(f"{cycle}: the holder, the only control plane", self.power_cycle, None, 40, 0),
        ]

    def measure(self, event: Event, number: int) -> Outcome:
        """Let an event happen to ours, and then to the single proxy."""
        ingress = self.ingress
        ingress.settle()
        if event.holder is not None:
            ingress.move_to(ingress.nodes[event.holder])
        node = ingress.holder()
        try:
            fresh, kept = self._load(f"{number}-ours", self.ours, lambda: event.ours(node), event.after)
        finally:
            self._repair(node)
        baseline = None
        if event.single:
            self.wait_for_single()
            try:
                both = self._load(f"{number}-single", self.single, event.single, event.after)
            finally:
                self._repair(self.node)
            baseline = lost(both[0] + both[1])
        return Outcome(event.name, lost(fresh), lost(kept), lost(fresh + kept), baseline)

    def _load(self, name: str, url: str, event: Callable[[], object], after: float) -> tuple[Results, Results]:
        # A client repeats a GET by itself when its kept connection has ended, and the proxy repeats it on other pods.
        requests = [Request(url, self.host, method) for method in ("GET", "POST")]
        with Load(self.ingress.cluster, self.folder / name, requests, RATE) as load:
            time.sleep(HEAD_START_SECONDS)
            event()
            time.sleep(after)
        return load.fresh(), load.kept()

    def _repair(self, node: Machine) -> None:
        if not machine.is_on(node):
            self.ingress.power("node-up", node)
        self.ingress.cluster.devcluster("up")
        self.ingress.join(node)
        self.ingress.settle()
        self.ingress.program.wait_until_settled()


def single_proxy(ours: dict[str, Any], node: Machine) -> dict[str, Any]:
    """Return a Deployment of one proxy on one node's own address, with Traefik's own ways of ending. Pure.

    Args:
        ours: The DaemonSet of our proxies, for its image, account and provider.
        node: Where it runs.
    """
    pod = ours["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    kept = [each for each in container["args"] if not any(word in each for word in OURS_ALONE)]
    moved = [each.replace("web.address=:8000", f"web.address=:{SINGLE_PORT}") for each in kept]
    probe = {"tcpSocket": {"port": SINGLE_PORT}, "periodSeconds": 1}
    labels = {"app.kubernetes.io/name": SINGLE}
    ports = [{"containerPort": SINGLE_PORT, "hostPort": SINGLE_PORT, "protocol": "TCP"}]
    spec = {
        "serviceAccountName": pod["serviceAccountName"],
        # The account itself hands out no token.
        "automountServiceAccountToken": True,
        "nodeSelector": {"kubernetes.io/hostname": node.name},
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {"name": SINGLE, "image": container["image"], "args": moved, "ports": ports, "readinessProbe": probe}
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": SINGLE, "namespace": ours["metadata"]["namespace"]},
        "spec": {
            "replicas": 1,
            # Two can't share the port.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def lost(results: Results) -> Lost:
    """Count what was lost."""
    return Lost(len(results.failed), len(results.hits), results.error_seconds, results.silent_seconds)


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
    with running_cluster(instance_id, progress, keep=keep) as instance:
        folder = instance.state / "bench-ingress"
        shutil.rmtree(folder, ignore_errors=True)
        cluster = Cluster(instance)
        with progress.step("pulumi up"):
            purge(cluster)
            program = Program.create(cluster, folder / "program", "test")
            program.up()
        comparison = Comparison(Ingress(cluster, program), folder)
        comparison.ingress.settle()
        with comparison.beside_single():
            for number, event in enumerate(comparison.events()):
                with progress.step(event.name):
                    outcomes.append(comparison.measure(event, number))
        report = render(outcomes, _circumstances(load))
    if write:
        text = replace_section(DOCUMENT.read_text(encoding="utf-8"), report, (BEGIN, END))
        DOCUMENT.write_text(text, encoding="utf-8")
    print(report)


def _circumstances(load: float) -> Circumstances:
    versions = {"Kubernetes": KUBERNETES_VERSION, "Traefik": TRAEFIK.removeprefix("v"), "keepalived": KEEPALIVED}
    return Circumstances(
        date=datetime.now(UTC).date().isoformat(),
        cores=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3,
        load=(load, os.getloadavg()[0]),
        rate=RATE,
        versions=versions,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are lines on standard error and an exit code."""
    execute(run, HELP, (SetupError, MarkersMissingError, AssertionError), arguments)


if __name__ == "__main__":
    main()
