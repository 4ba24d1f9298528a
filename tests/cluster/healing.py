"""What can go wrong with pods and their nodes on a running cluster, and how long it takes until all is well again."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from devcluster import kubectl, machine
from devcluster.instance import Machine
from tests.cluster.embedded import Cluster

POLL_SECONDS = 0.2
KUBELET = "/run/bin/hyperkube kubelet "
CONTAINERD = "/*containerd --config "
CONTROL_PLANE = ("kube-controller-manager", "kube-scheduler", "kube-apiserver", "etcd")
"""In this order they are stopped, and in the other one they go on: nobody sees a silence that is only its own."""
FIND = """
for process in /proc/[0-9]*; do
  words=$(tr '\\0' ' ' < $process/cmdline 2>/dev/null)
  case "$words" in $1*) echo ${process#/proc/} ;; esac
done
true
"""


@dataclass(frozen=True)
class App:
    """Pods that belong together.

    Args:
        name: the value of their label app.kubernetes.io/name.
        namespace: where they are.
        count: how many there should be.
    """

    name: str
    namespace: str
    count: int


class Healing:
    """A running cluster whose parts are broken on purpose."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def pods(self, app: App) -> list[dict[str, Any]]:
        """Return the pods that are there to stay, in the order of their names.

        Raises:
            ConnectionError: The API does not answer.
        """
        said = self._asked("get", "pods", f"--namespace={app.namespace}", f"-lapp.kubernetes.io/name={app.name}")
        # One that was evicted stays as "Failed", for people to read.
        found = [
            pod
            for pod in said["items"]
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") in ("Pending", "Running")
        ]
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    def ready(self, app: App) -> list[dict[str, Any]]:
        """Return those that are ready on a node that is."""
        well = self.well_nodes()
        return [pod for pod in self.pods(app) if _is_ready(pod) and pod["spec"].get("nodeName") in well]

    def well_nodes(self) -> set[str]:
        """Return the names of the nodes that Kubernetes takes for ready."""
        nodes = self._asked("get", "nodes")["items"]
        return {node["metadata"]["name"] for node in nodes if _is_ready(node)}

    def _asked(self, *words: str) -> dict[str, Any]:
        command = kubectl.command(self.cluster.instance, *words, "--output=json", "--request-timeout=5s")
        finished = subprocess.run(command, env=self.cluster.env, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise ConnectionError(finished.stderr)
        return json.loads(finished.stdout)

    def healed(self, app: App, lost: set[tuple[str, int]], limit: float) -> float | None:
        """Wait until an app has all its pods without those that were lost; return the seconds.

        Args:
            app: that is looked at.
            lost: incarnations that don't count.
            limit: after so many seconds it is given up, and None is returned.
        """
        return self.until(lambda: len({incarnation(pod) for pod in self.ready(app)} - lost) >= app.count, limit)

    @staticmethod
    def until(well: Callable[[], bool], limit: float) -> float | None:
        """Wait until something is so; return the seconds, None when it did not become so in time."""
        started = time.monotonic()
        while time.monotonic() - started < limit:
            try:
                if well():
                    return time.monotonic() - started
            except ConnectionError:
                pass
            time.sleep(POLL_SECONDS)
        return None

    # What goes wrong.

    def steer(self, pod: dict[str, Any], action: str) -> None:
        """Tell a sample back end how to behave: exit, hang, fill."""
        port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/control/{action}"
        self.cluster.kubectl("create", f"--raw={path}", "--filename=/dev/null")

    def delete(self, pod: dict[str, Any]) -> None:
        """Delete a pod."""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        self.cluster.kubectl("delete", "pod", name, f"--namespace={namespace}", "--wait=false")

    def kill(self, node: Machine, program: str) -> None:
        """End a program of a node at once, and wait until another process of it runs."""
        before = self.processes(node, program)
        assert before, f"no {program} runs on {node.name}"
        self._signal(node, "KILL", before)
        seconds = self.until(lambda: bool(set(self.processes(node, program)) - set(before)), 30)
        assert seconds is not None, f"{program} did not come back on {node.name}"

    def without_control_plane(self, node: Machine, seconds: float) -> None:
        """Let no part of the control plane run for a while."""
        found = [self.processes(node, f"/run/bin/hyperkube {part} ") for part in CONTROL_PLANE]
        assert all(found), "a part of the control plane is missing"
        try:
            for processes in found:
                self._signal(node, "STOP", processes)
            time.sleep(seconds)
        finally:
            for processes in reversed(found):
                self._signal(node, "CONT", processes)

    def drain(self, node: Machine, seconds: float) -> None:
        """Empty a node as the operator does."""
        self.cluster.kubectl(
            "drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={seconds:.0f}s"
        )

    def uncordon(self, node: Machine) -> None:
        """Let a node have pods again."""
        self.cluster.kubectl("uncordon", node.name)

    def processes(self, node: Machine, command: str) -> list[str]:
        """Return the processes of a node whose command line begins so; a pattern of the shell."""
        return self._on(node, "sh", "-c", FIND, "sh", command).split()

    def _signal(self, node: Machine, name: str, processes: list[str]) -> None:
        self._on(node, "kill", f"-{name}", *processes)

    @staticmethod
    def _on(node: Machine, *command: str) -> str:
        entered = machine.enter_command(node, list(command))
        return subprocess.run(entered, capture_output=True, text=True, check=True, timeout=60).stdout


def incarnation(pod: dict[str, Any]) -> tuple[str, int]:
    """Return what changes when a pod is replaced, or its container restarted."""
    restarts = [each["restartCount"] for each in pod["status"].get("containerStatuses", [])]
    return pod["metadata"]["uid"], sum(restarts)


def _is_ready(item: dict[str, Any]) -> bool:
    conditions = item["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
