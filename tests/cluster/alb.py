"""A stand-in of the ALB Ingress controller: what it does with pods, and nothing of a load balancer.

As the published source of the real one does, it reads the forward actions of the Ingresses, takes the pods of every
Service that they name whose containers are ready, and opens their gate. It remembers each look at weights and pods.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx2
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig

from manifests.alb import READINESS_GATE
from model.release import RECORD_ANNOTATION
from release.cluster import Cluster
from release.objects import Object, condition, inner, items, name_of

_ACTION = "alb.ingress.kubernetes.io/actions.by-weight"
_MERGE = {"Content-Type": "application/strategic-merge-patch+json"}
_PAUSE_SECONDS = 0.2
_SECONDS = 10.0


@dataclass(frozen=True)
class Look:
    """What was there of one project at one moment: Service → its weight, and → its ready pods."""

    weights: Mapping[str, int]
    ready: Mapping[str, tuple[str, ...]]
    recorded: bool
    """Whether the project had a release by then."""

    @property
    def emptied(self) -> list[str]:
        """The Services that got requests and had nobody to answer them."""
        return [name for name, weight in self.weights.items() if weight and not self.ready.get(name)]


def writing(kubeconfig: str) -> httpx2.Client:
    """Return what speaks to the API server of a cluster, and may write.

    Args:
        kubeconfig: Path of the file.
    """
    chosen = KubeConfig.from_file(kubeconfig).get()
    assert chosen is not None
    return Client(chosen, ConnectionParams(timeout=httpx2.Timeout(_SECONDS)))


@dataclass
class AlbStandIn:
    """Works in one namespace while it is entered.

    Args:
        cluster: The namespace.
        client: Speaks to its API server.
        looks: What was seen of each project, by its name in Kubernetes.
        failed: Looks that went wrong; the next one is made all the same.
    """

    cluster: Cluster
    client: httpx2.Client
    looks: dict[str, list[Look]] = field(default_factory=dict[str, list[Look]])
    failed: list[BaseException] = field(default_factory=list[BaseException])
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(_PAUSE_SECONDS):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - told by the test
                self.failed.append(error)

    def look(self) -> None:
        """Look once, and open the gates of pods that the load balancer would know now."""
        for ingress in items(self._get("apis/networking.k8s.io/v1", "ingresses"), "items"):
            action = inner(ingress, "metadata", "annotations").get(_ACTION)
            if action is not None:
                self._look(name_of(ingress), json.loads(action)[0]["ForwardConfig"]["ServerGroups"])

    def _look(self, name: str, groups: Sequence[Mapping[str, Any]]) -> None:
        # The record before the pods: what has a release by then must have them.
        service = self._get("api/v1", f"services/{name}")
        recorded = RECORD_ANNOTATION in inner(service, "metadata", "annotations")
        pods = self.cluster.pods(name)
        ready: dict[str, tuple[str, ...]] = {}
        for group in groups:
            selector = inner(self._get("api/v1", f"services/{group['ServiceName']}"), "spec", "selector")
            members = [pod for pod in pods if selector and selector.items() <= inner(pod, "metadata", "labels").items()]
            for pod in members:
                self._open(pod)
            ready[group["ServiceName"]] = tuple(
                name_of(pod) for pod in members if condition(pod, "Ready").get("status") == "True"
            )
        weights = {group["ServiceName"]: int(group["Weight"]) for group in groups}
        self.looks.setdefault(name, []).append(Look(weights, ready, recorded))

    def _open(self, pod: Object) -> None:
        gates = [gate.get("conditionType") for gate in items(inner(pod, "spec"), "readinessGates")]
        containers = condition(pod, "ContainersReady").get("status") == "True"
        if READINESS_GATE not in gates or not containers or condition(pod, READINESS_GATE):
            return
        body = {"status": {"conditions": [{"type": READINESS_GATE, "status": "True"}]}}
        path = f"api/v1/namespaces/{self.cluster.namespace}/pods/{name_of(pod)}/status"
        self.client.patch(path, content=json.dumps(body), headers=_MERGE)

    def _get(self, group: str, path: str) -> dict[str, Any]:
        answer = self.client.get(f"{group}/namespaces/{self.cluster.namespace}/{path}")
        return answer.json() if answer.is_success else {}
