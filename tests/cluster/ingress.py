"""The ingress of a running cluster, and what can be done to it: failures, planned moves, changes."""

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from devcluster import machine
from devcluster.instance import VIRTUAL_ADDRESS, Machine
from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request, Results
from tests.cluster.program import Program

RATE = 200
HEAD_START_SECONDS = 2.0
SETTLE_SECONDS = 180.0
LONGEST_SILENCE_SECONDS = 5.0
"""In which no request at all is answered while an address moves. That takes 0.7 s; a first packet that got lost is sent
again after 1, 3 and 7 s, so that what is not over after three seconds is seen here as one of seven, or nearly so."""
NAMESPACE = "--namespace=package-ingress"
LABEL = "package-platform/ingress"
PROJECT = "SJZY.Package.Api"
PROCESSES = """
for process in /proc/[0-9]*; do
  [ "$(cat $process/comm 2>/dev/null)" = "$1" ] && echo ${process#/proc/}
done
true
"""


@dataclass(frozen=True)
class Loads:
    """What became of two streams of requests that ran at the same time.

    Args:
        kept: on connections that were used again and again.
        fresh: each on a connection of its own.
    """

    kept: Results
    fresh: Results

    @property
    def all(self) -> Results:
        """Both, in the order in which they were sent."""
        return self.kept + self.fresh

    def summary(self) -> str:
        """Return what a failed assertion should show."""
        return f"kept-alive: {self.kept.summary()}\nnew connections: {self.fresh.summary()}"


class Ingress:
    """The ingress of a running cluster, and what can be done to it."""

    def __init__(self, cluster: Cluster, program: Program) -> None:
        self.cluster = cluster
        self.program = program
        self.address = str(cluster.instance.network[VIRTUAL_ADDRESS])
        self.second = str(cluster.instance.network[VIRTUAL_ADDRESS + 1])

    @property
    def nodes(self) -> list[Machine]:
        """All nodes, on or off."""
        return list(self.cluster.instance.nodes)

    def on(self, node: Machine, *command: str) -> str:
        """Run a command inside a node."""
        entered = machine.enter_command(node, list(command))
        return subprocess.run(entered, capture_output=True, text=True, check=True, timeout=30).stdout

    def holders(self, address: str = "") -> list[Machine]:
        """Return the nodes that have an address on their interface, by default the first VIP."""
        running = [node for node in self.nodes if machine.is_on(node)]
        wanted = f" {address or self.address}/"
        return [node for node in running if wanted in self.on(node, "ip", "-brief", "address")]

    def holder(self, address: str = "") -> Machine:
        """Return the one node that holds an address."""
        (node,) = self.holders(address)
        return node

    def kill(self, node: Machine, program: str, signal: str = "KILL") -> None:
        """Send all processes of a program inside a node a signal at once: to end them, or to stop them."""
        numbers = self.on(node, "sh", "-c", PROCESSES, "sh", program).split()
        assert numbers, f"no {program} runs on {node.name}"
        self.on(node, "sh", "-c", f'kill -{signal} "$@" 2>/dev/null || true', "sh", *numbers)

    def pod(self, node: Machine, name: str) -> str:
        """Return the name of a part's pod on a node."""
        selector = f"--selector=app.kubernetes.io/name={name}"
        where = f"--field-selector=spec.nodeName={node.name}"
        (pod,) = self.cluster.kubectl("get", "pods", NAMESPACE, selector, where, "--output=name").split()
        return pod

    def tracked(self, node: Machine) -> list[str]:
        """Return the connections to the first VIP that a node's kernel knows of."""
        program = ("/usr/sbin/conntrack", "--dump", "--proto=tcp", f"--orig-dst={self.address}")
        pod = self.pod(node, "keepalived")
        return self.cluster.kubectl("exec", NAMESPACE, pod, "--container=keepalived", "--", *program).splitlines()

    def delete(self, node: Machine, name: str) -> None:
        """Delete a part's pod on a node, and wait until it has ended."""
        self.cluster.kubectl("delete", NAMESPACE, self.pod(node, name), "--wait", "--timeout=120s")

    def power(self, command: str, node: Machine) -> None:
        """Cut a node's power, or switch it on."""
        self.cluster.devcluster(command, node.name)

    def roll(self, name: str) -> None:
        """Replace a part's pods, node after node."""
        self.cluster.kubectl("rollout", "restart", NAMESPACE, f"daemonset/{name}")
        self.cluster.kubectl("rollout", "status", NAMESPACE, f"daemonset/{name}", "--timeout=400s")

    def leave(self, node: Machine) -> None:
        """Take a node out of the ingress, as the operator does for maintenance, and wait until its pods have ended."""
        self.cluster.kubectl("label", "node", node.name, f"{LABEL}-")
        selector = "--selector=app.kubernetes.io/name in (traefik,keepalived)"
        where = f"--field-selector=spec.nodeName={node.name}"
        self.cluster.kubectl("wait", "pods", NAMESPACE, selector, where, "--for=delete", "--timeout=120s")

    def join(self, node: Machine) -> None:
        """Let a node carry the ingress again."""
        self.cluster.kubectl("label", "node", node.name, f"{LABEL}=true", "--overwrite")

    def move_to(self, node: Machine) -> None:
        """Let the node with the highest priority of all have the first VIP, or one after it.

        Raises:
            AssertionError: It does not go there: only failures of those before it would bring it.
        """
        for _ in self.nodes:
            if self.holder() == node:
                return
            self.delete(self.holder(), "keepalived")
            self.settle()
        assert self.holder() == node, f"the address does not go to {node.name}"

    def change(self, **fields: Any) -> None:
        """Run `pulumi up` with other fields of the environment's `ingress.ha`."""
        file = self.program.stack_file
        content = cast("dict[str, Any]", yaml.safe_load(file.read_text()))
        content["config"]["package-platform:environment"]["ingress"]["ha"].update(fields)
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        self.program.up()

    def settle(self, addresses: int = 1) -> None:
        """Wait until every part is ready on every node and one node holds each address."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self._is_settled(addresses):
            assert time.monotonic() < deadline, self.cluster.kubectl("get", "pods", NAMESPACE, "--output=wide")
            time.sleep(0.5)

    def _is_settled(self, addresses: int) -> bool:
        sets = self.cluster.get("daemonsets", NAMESPACE)["items"]
        count = len(self.nodes)
        ready = all(
            item["status"].get("numberReady") == count
            and item["status"].get("updatedNumberScheduled") == count
            and item["status"].get("observedGeneration") == item["metadata"]["generation"]
            for item in sets
        )
        held = [len(self.holders(each)) for each in (self.address, self.second)]
        return ready and len(sets) == 2 and held == [1, addresses - 1]

    def under_load(
        self,
        folder: Path,
        event: Callable[[], object],
        after: float,
        *,
        url: tuple[str, str] | None = None,
        others: Mapping[str, str] | None = None,
    ) -> Loads:
        """Return what became of the requests before, during and for so many seconds after an event.

        Each URL is asked by GET and by POST in turn: a GET whose kept connection has ended is sent again by the client
        itself, and by the proxy when a pod fails, so that only a POST is lost where something is.

        Args:
            folder: for the results.
            event: what happens meanwhile; it returns when it is over.
            after: seconds for which the load goes on.
            url: URL and host that are asked; by default those of a back end.
            others: further URL → host, asked in turn with the first.
        """
        asked = [url or self.program.url(PROJECT), *(others or {}).items()]
        requests = [Request(*each, method) for method in ("GET", "POST") for each in asked]
        with Load(self.cluster, folder, requests, RATE) as load:
            time.sleep(HEAD_START_SECONDS)
            event()
            time.sleep(after)
        return Loads(load.kept(), load.fresh())
