"""Waiting until the parts of an instance work, and saying which one does not.

After a power cut the API first tells how things were before it: a node or pod counts only when it was seen
well since its node's latest boot.
"""

import datetime as dt
import http
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from devcluster import addons, kubectl, machine, node_init
from devcluster.failure import SetupError
from devcluster.instance import Instance
from devcluster.progress import Progress

REGISTRY_SECONDS = 30.0
API_SECONDS = 90.0
NODES_SECONDS = 120.0
ADDONS_SECONDS = 150.0
POLL_SECONDS = 0.2
HTTP_SECONDS = 2.0
RESTART_LIMIT = 6
"""A component that ended this often while it is waited for will not come up: the wait ends early."""


def wait_for_registry(instance: Instance) -> None:
    """Wait until images can be pushed.

    Raises:
        SetupError: the registry does not come up.
    """
    _wait("the registry", lambda: registry_answers(instance), REGISTRY_SECONDS, _logs(instance, "hub-registry"))


def wait_for_api(instance: Instance) -> None:
    """Wait until the Kubernetes API is ready.

    Raises:
        SetupError: it does not come up.
    """
    first = instance.nodes[0].name
    logs = _logs(instance, f"{first}-apiserver", f"{first}-etcd")
    _wait("the Kubernetes API", lambda: api_answers(instance), API_SECONDS, logs)


def wait_for_nodes(instance: Instance, progress: Progress) -> None:
    """Wait until all nodes are ready.

    Raises:
        SetupError: one is not in time.
    """

    def check() -> bool:
        ready = ready_nodes(kubectl.items(instance, "nodes") or [], machine.boot_times(instance))
        missing = [node.name for node in instance.nodes if node.name not in ready]
        progress.note(f"waiting for {' '.join(missing)}")
        return not missing

    parts = ("kubelet", "containerd", "kube-proxy")
    logs = _logs(instance, *(f"{node.name}-{part}" for node in instance.nodes for part in parts))
    _wait("all nodes", check, NODES_SECONDS, logs)


def wait_for_addons(instance: Instance, progress: Progress) -> None:
    """Wait until DNS works.

    Raises:
        SetupError: one does not in time; its pods are described in the details.
    """
    deadline = time.monotonic() + ADDONS_SECONDS
    for addon in addons.ALL:
        progress.note(f"waiting for {addon.name}")
        while not _is_rolled_out(instance, addon):
            if time.monotonic() > deadline:
                pods = kubectl.attempt(instance, f"--namespace={addon.namespace}", "describe", "pods")
                message = f"{addon.name} does not come up: look at the pods of the namespace {addon.namespace}"
                raise SetupError(message, pods.stdout[-2000:])
            time.sleep(POLL_SECONDS)


def ready_nodes(nodes: Iterable[dict[str, Any]], boot_times: Mapping[str, float]) -> set[str]:
    """Return the names of the nodes that are ready and were so since they booted. Pure.

    Args:
        nodes: as the API lists them.
        boot_times: node name → seconds since the epoch; a node without one is off.
    """
    found: set[str] = set()
    for node in nodes:
        name = node["metadata"]["name"]
        for condition in node["status"].get("conditions", []):
            is_ready = condition["type"] == "Ready" and condition["status"] == "True"
            if is_ready and _is_since(condition.get("lastHeartbeatTime"), boot_times.get(name)):
                found.add(name)
    return found


def ready_pods(pods: Iterable[dict[str, Any]], boot_times: Mapping[str, float]) -> int:
    """Count the pods that are ready and whose containers were started since their node booted. Pure."""
    count = 0
    for pod in pods:
        boot_time = boot_times.get(pod["spec"].get("nodeName", ""))
        containers = pod["status"].get("containerStatuses", [])
        started = [container["state"].get("running", {}).get("startedAt") for container in containers]
        ready = bool(containers) and all(container["ready"] for container in containers)
        count += ready and all(_is_since(moment, boot_time) for moment in started)
    return count


def registry_answers(instance: Instance) -> bool:
    """Tell whether the registry answers."""
    return _http_status(instance, f"{instance.registry_endpoint}/v2/") == http.HTTPStatus.OK


def api_answers(instance: Instance) -> bool:
    """Tell whether the Kubernetes API calls itself ready."""
    answer = kubectl.attempt(instance, "get", "--raw=/readyz", "--request-timeout=2s")
    return answer.returncode == 0 and answer.stdout.strip() == "ok"


def _is_rolled_out(instance: Instance, addon: addons.Addon) -> bool:
    selector = f"--selector={addon.selector}"
    pods = kubectl.items(instance, f"--namespace={addon.namespace}", "pods", selector)
    if ready_pods(pods or [], machine.boot_times(instance)) < addon.replicas:
        return False
    target = [f"--namespace={addon.namespace}", "rollout", "status", f"deployment/{addon.name}"]
    answer = kubectl.attempt(instance, *target, "--watch=false", f"--request-timeout={kubectl.REQUEST_SECONDS}s")
    return answer.returncode == 0 and "successfully rolled out" in answer.stdout


def _is_since(moment: str | None, boot_time: float | None) -> bool:
    """Tell whether a time of the API, which knows whole seconds only, is not before a boot."""
    if moment is None or boot_time is None:
        return False
    return dt.datetime.fromisoformat(moment).timestamp() >= int(boot_time)


def _http_status(instance: Instance, url: str) -> int | None:
    """Return the status with which an address of the instance answers, or nothing when it does not.

    Without the bridge the address would be looked for beyond the machine, so nothing is sent then; nor is
    anything sent by way of a proxy that the environment names.
    """
    if not machine.link_exists(instance.bridge):
        return None
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=HTTP_SECONDS) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def _logs(instance: Instance, *names: str) -> list[Path]:
    return [instance.logs / f"{name}.log" for name in names]


def _wait(what: str, check: Callable[[], bool], seconds: float, logs: list[Path]) -> None:
    """Poll until `check` holds.

    Raises:
        SetupError: it did not within `seconds`, or a component keeps ending; with the end of its log.
    """
    deadline = time.monotonic() + seconds
    ended_before = {log: _times_ended(log) for log in logs}
    while not check():
        for log in logs:
            if _times_ended(log) - ended_before[log] >= RESTART_LIMIT:
                raise SetupError(f"{log.stem} keeps ending: look at {log}", machine.tail(log))
        if time.monotonic() > deadline:
            tails = "\n".join(f"--- {log.name}\n{machine.tail(log, 6)}" for log in logs)
            raise SetupError(f"{what} did not come up within {seconds:.0f} s: look at {logs[0].parent}", tails)
        time.sleep(POLL_SECONDS)


def _times_ended(log: Path) -> int:
    try:
        return log.read_text(errors="replace").count(node_init.ENDED_MARK)
    except FileNotFoundError:
        return 0
