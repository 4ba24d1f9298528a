"""What the command asks of the Kubernetes API: records, pods, their events and logs; all as plain dicts.

lightkube finds the cluster as kubectl does (``KUBECONFIG``); of its objects nothing is used: a release looks at a few
fields, and at the log of a container's previous run, which it can't ask for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import httpx2
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError

from api_server import UNUSABLE, ApiServer
from model.fields import plain_mapping
from model.release import RECORD_ANNOTATION, Record, parse_record
from release.errors import RefusedError, ReleaseError
from release.objects import Object, first, inner, items, name_of

_NO_CLUSTER = "no cluster is named: set KUBECONFIG, or kubernetes:context in the stack file"
_TIMEOUT_SECONDS = 5.0
_TRIES = 3
_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0
_NAME_LABEL = "app.kubernetes.io/name"
_OURS = "app.kubernetes.io/managed-by=pulumi"
_EVENTS = 20
_PROXIES = f"{_NAME_LABEL}=traefik,app.kubernetes.io/component=ingress,{_OURS}"
_CLASS_ARGUMENT = "ingressclass="
_METRICS_PORT = "metrics"


KINDS = {
    "ConfigMap": ("api/v1", "configmaps"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "Ingress": ("apis/networking.k8s.io/v1", "ingresses"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "Service": ("api/v1", "services"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
}
"""What a project consists of: kind → where the API has it. No Secrets: they are not read to be compared."""


class ClusterError(ReleaseError):
    """The cluster did not answer, or refused."""


class Asks(Protocol):
    """What speaks to the API server."""

    @property
    def base_url(self) -> httpx2.URL:
        """Its address."""
        ...

    def get(self, path: str, /, *, params: Mapping[str, str]) -> httpx2.Response:
        """Return its answer."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True)
class Cluster:
    """A namespace of a cluster.

    Args:
        client: Speaks to the API server.
        namespace: Of the stack's projects.
    """

    client: Asks
    namespace: str

    @classmethod
    def connect(cls, config: Mapping[str, Any], namespace: str) -> Cluster:
        """Prepare to ask the cluster that Pulumi's default provider would choose; only a credential is asked for yet.

        Args:
            config: The stack's config; ``kubernetes:context`` and ``kubernetes:kubeconfig`` (a path) are followed.
            namespace: Of the stack's projects.

        Raises:
            RefusedError: If no cluster is named, or its kubeconfig is unusable.
        """
        context, own = config.get("kubernetes:context"), config.get("kubernetes:kubeconfig")
        if own is not None and (not isinstance(own, str) or "\n" in own):
            raise RefusedError("kubernetes:kubeconfig holds a whole file: set KUBECONFIG to the path of one instead")
        # Of several files in KUBECONFIG the first is taken, as the others only add contexts.
        path = own or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        try:
            chosen = _kubeconfig(path).get(str(context) if context else None)
            if chosen is None:
                raise RefusedError(_NO_CLUSTER)
            server = ApiServer(chosen, _TIMEOUT_SECONDS)
        except UNUSABLE as error:
            raise RefusedError(f"the kubeconfig is not usable: {error}") from None
        return cls(server, namespace)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def records(self) -> dict[str, Record]:
        """Return what every project's Service records: Kubernetes name → record; unreadable ones are left out.

        Raises:
            ClusterError: If the API server does not answer.
        """
        found: dict[str, Record] = {}
        for service in self._list("api/v1", "services", {"labelSelector": _OURS}):
            record = record_of(service)
            if record:
                found[service["metadata"]["name"]] = record
        return found

    def record(self, name: str) -> Record | None:
        """Return what one project's Service records; None when there is none, or it is not readable.

        Args:
            name: The project's name in Kubernetes.

        Raises:
            ClusterError: If the API server does not answer.
        """
        service = self.service(name)
        return record_of(service) if service else None

    def service(self, name: str) -> Object | None:
        """Return a project's Service, None when there is none."""
        answer = self._get(f"{self._path('api/v1', 'services')}/{name}", {})
        return None if answer.status_code == HTTPStatus.NOT_FOUND else self._content(answer)

    def config_map(self, name: str) -> Object | None:
        """Return a ConfigMap, None when there is none.

        Args:
            name: Its name in Kubernetes.
        """
        answer = self._get(f"{self._path('api/v1', 'configmaps')}/{name}", {})
        return None if answer.status_code == HTTPStatus.NOT_FOUND else self._content(answer)

    def exists(self, path: str) -> bool:
        """Tell whether there is an object.

        Args:
            path: In the API, without the first ``/``: ``api/v1/namespaces/x/services/y``.
        """
        return self._get(path, {}).status_code != HTTPStatus.NOT_FOUND

    def deployments(self, name: str = "", *, stateful: bool = False) -> list[Object]:
        """Return the Deployments of one project, or of all.

        Args:
            name: The project's name in Kubernetes; empty for all.
            stateful: Whether to return StatefulSets as well.
        """
        query = {"labelSelector": _selector(name)}
        found = self._list("apis/apps/v1", "deployments", query)
        return [*found, *self._list("apis/apps/v1", "statefulsets", query)] if stateful else found

    def names(self, kind: str, name: str) -> tuple[str, ...]:
        """Return the names of a project's objects of a kind; those of autoscalers are of what they scale.

        Args:
            kind: One of ``KINDS``.
            name: The project's name in Kubernetes.
        """
        found = self._list(*KINDS[kind], {"labelSelector": _selector(name)})
        return tuple(sorted(map(name_of, found)))

    def pods(self, name: str) -> list[Object]:
        """Return the pods of one project, of all its slots and releases."""
        return self._list("api/v1", "pods", {"labelSelector": _selector(name)})

    def objects(self) -> dict[tuple[str, str], Object]:
        """Return all objects of the namespace that are of a kind a project consists of: kind and name → object.

        All, and not by label: the label may be what somebody has changed.
        """
        found: dict[tuple[str, str], Object] = {}
        for kind, (group, plural) in KINDS.items():
            found |= {(kind, name_of(each)): each for each in self._list(group, plural, {})}
        return found

    def jobs(self, name: str) -> list[Object]:
        """Return the Jobs of one project."""
        return self._list("apis/batch/v1", "jobs", {"labelSelector": _selector(name)})

    def events(self, uid: str) -> list[Object]:
        """Return the latest events about an object, the oldest first."""
        found = self._list("api/v1", "events", {"fieldSelector": f"involvedObject.uid={uid}"})
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))[
            -_EVENTS:
        ]

    def log(self, pod: str, container: str, lines: int | None, *, previous: bool) -> list[str]:
        """Return the last lines that a container wrote; none when it never ran.

        Args:
            pod: Name of the pod.
            container: Its container.
            lines: At most so many; None for all.
            previous: The run before the current one.
        """
        query = {"container": container, "previous": "true" if previous else "false"}
        if lines is not None:
            query["tailLines"] = str(lines)
        try:
            answer = self._get(f"{self._path('api/v1', 'pods')}/{pod}/log", query, tries=1)
        except ClusterError:
            return []
        return [] if answer.status_code == HTTPStatus.NOT_FOUND else answer.text.splitlines()

    def proxies(self, class_name: str, namespace: str = "") -> list[Object]:
        """Return the pods of our own ingress proxies that serve an IngressClass.

        Args:
            class_name: The IngressClass.
            namespace: Where they are; empty to look everywhere, which needs the right to list all pods.

        Raises:
            ClusterError: If the API server does not answer, or refuses.
        """
        path = f"api/v1/namespaces/{namespace}/pods" if namespace else "api/v1/pods"
        return [pod for pod in self._listed(path, {"labelSelector": _PROXIES}) if _serves(pod, class_name)]

    def metrics(self, pod: Object) -> str:
        """Return the Prometheus metrics of a proxy, asked by way of the API server.

        Args:
            pod: As ``proxies`` returns it.

        Raises:
            ClusterError: If it does not answer.
        """
        ports = [port for container in items(inner(pod, "spec"), "containers") for port in items(container, "ports")]
        port = first(ports, "name", _METRICS_PORT).get("containerPort", "")
        namespace = inner(pod, "metadata").get("namespace", "")
        answer = self._get(f"api/v1/namespaces/{namespace}/pods/{name_of(pod)}:{port}/proxy/metrics", {}, tries=1)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise ClusterError(f"the proxy {name_of(pod)} answers {answer.status_code} when asked for its metrics")
        return answer.text

    def _list(self, group: str, kind: str, query: Mapping[str, str]) -> list[Object]:
        return self._listed(self._path(group, kind), query)

    def _listed(self, path: str, query: Mapping[str, str]) -> list[Object]:
        answer = self._get(path, query)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            # A kind of which there is nothing, also in a namespace that is not there, is an empty list.
            raise ClusterError(f"{self._asked} has no {path} (404): does KUBECONFIG name an API server of Kubernetes?")
        return list(items(self._content(answer), "items"))

    def _content(self, answer: httpx2.Response) -> Object:
        content = _parsed(answer)
        if content is None:
            raise ClusterError(f"{self._asked} answers no JSON object: does KUBECONFIG name the API server itself?")
        return content

    def _path(self, group: str, kind: str) -> str:
        return f"{group}/namespaces/{self.namespace}/{kind}"

    @property
    def _asked(self) -> str:
        return f"the cluster at {self.client.base_url}"

    def _get(self, path: str, query: Mapping[str, str], tries: int = _TRIES) -> httpx2.Response:
        """Return an answer that is one: that something is there (2xx), or that it is not (404).

        Everything else must not be taken for either: a record that can't be read just now is not a project that was
        never deployed.

        Args:
            path: In the API.
            query: Its parameters.
            tries: How often a server that is busy, starting or not reached is asked; each time after a moment.
        """
        while True:
            tries -= 1
            try:
                answer = self.client.get(path, params=dict(query))
            except httpx2.TransportError as error:
                # One of several that goes away, as when the control plane is upgraded, breaks connections.
                if not tries:
                    raise ClusterError(f"{self._asked} does not answer: {error}") from None
                time.sleep(_PAUSE_SECONDS)
                continue
            except (httpx2.HTTPError, *UNUSABLE) as error:
                raise ClusterError(f"{self._asked} can't be asked: {error}") from None
            if not tries or not _may_mend(answer):
                break
            time.sleep(_pause(answer))
        if answer.is_success or answer.status_code == HTTPStatus.NOT_FOUND:
            return answer
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ClusterError(f"the cluster refuses ({answer.status_code}): {_message(answer)}")
        raise ClusterError(f"the cluster answers {answer.status_code}: {_message(answer)}")


def _kubeconfig(path: str) -> KubeConfig:
    """Return what names the cluster, as Pulumi's provider: a file, the usual file, the pod's own account."""
    usual = Path.home() / ".kube" / "config"
    if path or usual.exists():
        return KubeConfig.from_file(path or usual)
    try:
        return KubeConfig.from_service_account()
    except ConfigError:
        raise RefusedError(_NO_CLUSTER) from None


def record_of(service: Object) -> Record | None:
    """Return the record that a Service holds. Pure."""
    return parse_record(str(inner(service, "metadata", "annotations").get(RECORD_ANNOTATION, "")))


def _serves(pod: Object, class_name: str) -> bool:
    """Tell whether a proxy's pod runs, and serves an IngressClass."""
    arguments = [
        str(each) for container in items(inner(pod, "spec"), "containers") for each in container.get("args", ())
    ]
    running = inner(pod, "status").get("phase") == "Running"
    return running and any(each.endswith(f".{_CLASS_ARGUMENT}{class_name}") for each in arguments)


def _selector(name: str) -> str:
    return f"{_NAME_LABEL}={name},{_OURS}" if name else _OURS


def _may_mend(answer: httpx2.Response) -> bool:
    return answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or answer.is_server_error


def _pause(answer: httpx2.Response) -> float:
    """Return for how long to wait before the next try: as the server says, but never for long."""
    told = answer.headers.get("Retry-After", "")
    return min(float(told), _LONGEST_PAUSE_SECONDS) if told.isascii() and told.isdigit() else _PAUSE_SECONDS


def _parsed(answer: httpx2.Response) -> Object | None:
    """Return the JSON object that an answer holds; None where it holds something else."""
    try:
        return plain_mapping(answer.json())
    except ValueError:
        return None


def _message(answer: httpx2.Response) -> str:
    told = (_parsed(answer) or {}).get("message")
    return str(told) if told else answer.text.strip()[:200]
