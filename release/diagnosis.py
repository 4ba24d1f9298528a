"""Is a release still on its way, or is it hopeless? From pods and Deployments as the API tells them. Pure.

Only the pods of the release that is being made count; what the old ones do is no sign of it. A state that may mend by
itself becomes hopeless only after it has lasted for a while, measured by this process' own clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf

from model.release import REVISION_LABEL
from release.objects import Object, condition, first, inner, items, name_of, uid_of

_NEVER = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"})
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"})
_LATE = "ProgressDeadlineExceeded"
_ASKED_TO_END = (0, 143, 137)
"""What a process ends with that heeded SIGTERM, knew nothing of it, or got SIGKILL."""
_UNBOUND = "unbound immediate PersistentVolumeClaims"
_DENIED = ("not found", "manifest unknown", "denied", "unauthorized", "forbidden", "invalid reference", "no match for")


@dataclass(frozen=True)
class Limits:
    """How long a state that may mend by itself is waited for, in seconds, and how often a container may start.

    Args:
        pull: An image that can't be pulled for a reason that may pass (the registry does not answer).
        unschedulable: No node has room.
        unbound: No volume is there yet: a network file system may take its time to make one.
        unready: A container that has started says no to its readiness probe.
        gate: All containers are ready, and what else the pod waits for (a load balancer) has not come.
        refused: The API server refuses to create pods (a quota, an admission policy).
        restarts: A container that was started again so often crashes.
    """

    pull: float = 15.0
    unschedulable: float = 10.0
    unbound: float = 60.0
    unready: float = 20.0
    gate: float = 120.0
    refused: float = 5.0
    restarts: int = 2


@dataclass(frozen=True)
class PodLine:
    """One new pod as a person follows it.

    Args:
        name: Of the pod.
        node: Where it runs, empty while it has none.
        state: In a few words.
        ready: Whether it takes traffic.
    """

    name: str
    node: str
    state: str
    ready: bool


@dataclass(frozen=True)
class Hopeless:
    """Why a release can't succeed.

    Args:
        reason: The field's word for it: ``ImagePullBackOff``, ``CrashLoopBackOff``.
        message: What is known more.
        pod: Name of the pod, empty when there is none.
        uid: Of the pod, or of the Deployment.
        container: The container, empty when it is about the whole pod.
        previous: Whether the telling log is that of the container's previous run.
    """

    reason: str
    message: str
    pod: str = ""
    uid: str = ""
    container: str = ""
    previous: bool = False


@dataclass(frozen=True)
class Look:
    """What was seen at one moment.

    Args:
        pods: The new pods.
        hopeless: Why it can't succeed; None while it can.
    """

    pods: tuple[PodLine, ...]
    hopeless: Hopeless | None


@dataclass(frozen=True)
class Found:
    """What was there before a run, which is no sign of how the run goes, however bad it is.

    The image and the revision do not tell it from what the run makes: an earlier try of the same tag may have failed by
    its configuration and have been left, and until pulumi has come to the Deployment (a migration runs before that) it
    wants those pods. Nor does the first look at a run: it comes after a question to the API server that may take
    seconds, or is repeated, and pulumi makes pods meanwhile. So it is asked for before pulumi is started.

    Args:
        pods: Unique ids of the pods.
        bad: Those of them that were not ready. They count once ``patience`` is over, for then the run is the same as
            the one that failed, and has not replaced them.
        failed: Unique id → pod template of the Deployments that said that they had failed. What they say counts once
            the template is another.
        patience: In seconds from the first look; for ever by default.
    """

    pods: frozenset[str] = frozenset()
    bad: frozenset[str] = frozenset()
    failed: Mapping[str, Object] = field(default_factory=dict[str, Object])
    patience: float = inf

    @classmethod
    def of(cls, deployments: Sequence[Object], pods: Sequence[Object], patience: float = inf) -> Found:
        """Return what is there, from all Deployments and pods of the project."""
        return cls(
            frozenset(map(uid_of, pods)),
            frozenset(uid_of(pod) for pod in pods if not _is_ready(pod)),
            {uid_of(each): _template(each) for each in deployments if _has_failed(each)},
            patience,
        )


@dataclass
class Diagnosis:
    """Looks at one release again and again.

    Args:
        image: The reference that its pods run: ``repository:tag@digest``.
        limits: How long what may mend is waited for.
        found: What was there before.
    """

    image: str
    limits: Limits = field(default_factory=Limits)
    found: Found = field(default_factory=Found)
    _since: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float], init=False)
    _was_ready: set[str] = field(default_factory=set[str], init=False)
    _has_started: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]], init=False)
    _earlier: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int], init=False)
    _looked: bool = field(default=False, init=False)

    def look(self, deployments: Sequence[Object], pods: Sequence[Object], now: float) -> Look:
        """Judge what the API tells.

        Args:
            deployments: All of the project.
            pods: All of the project.
            now: Seconds of a clock that never goes back.
        """
        ours = [each for each in deployments if self._runs_image(each["spec"]["template"]["spec"])]
        revisions = {_revision(each["spec"]["template"]) for each in ours}
        new = [pod for pod in pods if self._is_new(pod, revisions)]
        if not self._looked:
            # Pods that this release finds may have a past, which is no sign of how they are.
            self._earlier = {
                (uid_of(pod), str(status["name"])): int(status.get("restartCount", 0))
                for pod in new
                for status in (*_init_statuses(pod), *_statuses(pod))
            }
            self._looked = True
        self._was_ready |= {uid_of(pod) for pod in new if _is_ready(pod)}
        late = self._is_late(now)
        judged = [pod for pod in new if late or uid_of(pod) not in self.found.bad]
        reasons = [*(self._of_pod(pod, now) for pod in judged), *(self._of_deployment(each, now) for each in ours)]
        return Look(tuple(map(_line, new)), next((reason for reason in reasons if reason), None))

    def of_job(self, pods: Sequence[Object], now: float) -> Hopeless | None:
        """Judge the pods of the release's Job, which never become ready and need not: can they start?

        Args:
            pods: Of the Job.
            now: As for ``look``.
        """
        return next((reason for pod in pods if (reason := self._of_pod(pod, now))), None)

    def _is_new(self, pod: Object, revisions: set[str]) -> bool:
        leaving = "deletionTimestamp" in pod["metadata"]
        return not leaving and _revision(pod) in revisions and self._runs_image(pod["spec"])

    def _runs_image(self, spec: Object) -> bool:
        return any(container.get("image") == self.image for container in spec["containers"])

    def _is_late(self, now: float) -> bool:
        """Tell whether what was there before has had its time to be replaced."""
        return self._lasts("", "patience", now, self.found.patience, holds=True)

    def _lasts(self, uid: str, what: str, now: float, limit: float, *, holds: bool) -> bool:
        """Tell whether something has held for so long without a break."""
        if not holds:
            self._since.pop((uid, what), None)
            return False
        return now - self._since.setdefault((uid, what), now) >= limit

    def _of_pod(self, pod: Object, now: float) -> Hopeless | None:
        uid = uid_of(pod)
        scheduled = condition(pod, "PodScheduled")
        unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
        unbound = _UNBOUND in str(scheduled.get("message", ""))
        limit = self.limits.unbound if unbound else self.limits.unschedulable
        if self._lasts(uid, "Unschedulable", now, limit, holds=unschedulable):
            return Hopeless("Unschedulable", str(scheduled.get("message", "")), name_of(pod), uid)
        for status in (*_init_statuses(pod), *_statuses(pod)):
            found = self._of_container(pod, status, now)
            if found:
                return found
        for status in _statuses(pod):
            found = self._of_readiness(pod, status, now)
            if found:
                return found
        return self._of_gates(pod, now)

    def _of_gates(self, pod: Object, now: float) -> Hopeless | None:
        """Judge what a pod waits for beside its containers: conditions that others set, such as a load balancer."""
        uid, ready = uid_of(pod), condition(pod, "Ready")
        waits = ready.get("reason") == "ReadinessGatesNotReady" and uid not in self._was_ready
        if self._lasts(uid, "gate", now, self.limits.gate, holds=waits):
            gates = [str(gate.get("conditionType", "")) for gate in items(inner(pod, "spec"), "readinessGates")]
            missing = [gate for gate in gates if condition(pod, gate).get("status") != "True"]
            message = (
                f"its containers are ready, and nobody has set {', '.join(missing)} within {self.limits.gate:.0f} s: "
                "does the load balancer's controller run, and does the Ingress say an error (kubectl describe ingress)?"
            )
            return Hopeless("ReadinessGatesNotReady", message, name_of(pod), uid)
        return None

    def _of_container(self, pod: Object, status: Object, now: float) -> Hopeless | None:
        uid, container = uid_of(pod), str(status["name"])
        waiting = inner(status, "state", "waiting")
        # A pod that was there counts by its restarts alone: what it waits for may be what this run mends.
        telling: Object = {} if uid in self.found.pods and not self._is_late(now) else waiting
        reason, message = str(telling.get("reason", "")), str(telling.get("message", ""))
        pulling = self._lasts(uid, f"pull {container}", now, self.limits.pull, holds=reason in _PULL)
        denied = any(word in message.lower() for word in _DENIED)
        if reason in _NEVER or (reason in _PULL and (pulling or denied)):
            return Hopeless(reason, message, name_of(pod), uid, container)
        restarts = int(status.get("restartCount", 0))
        fresh = restarts - self._earlier.get((uid, container), 0)
        if status.get("started"):
            self._has_started.add((uid, container))
        late = fresh > 0 and (uid, container) not in self._has_started and _missed_startup(pod, status)
        if reason == "CrashLoopBackOff" or fresh >= self.limits.restarts or late:
            ended = inner(status, "lastState", "terminated") or inner(status, "state", "terminated")
            why = "StartupProbeFailed" if late else "CrashLoopBackOff"
            running = bool(inner(status, "state", "running"))
            previous = restarts > 0 and (running or bool(waiting))
            return Hopeless(why, _ended(ended, restarts), name_of(pod), uid, container, previous)
        return None

    def _of_readiness(self, pod: Object, status: Object, now: float) -> Hopeless | None:
        uid, container = uid_of(pod), str(status["name"])
        unready = bool(status.get("started")) and not status.get("ready") and uid not in self._was_ready
        if self._lasts(uid, f"unready {container}", now, self.limits.unready, holds=unready):
            message = f"started, and not ready within {self.limits.unready:.0f} s: {_readiness(pod, container)}"
            return Hopeless("NotReady", message, name_of(pod), uid, container)
        return None

    def _of_deployment(self, deployment: Object, now: float) -> Hopeless | None:
        uid, observed = uid_of(deployment), inner(deployment, "status").get("observedGeneration", 0)
        if int(observed) < int(deployment["metadata"].get("generation", 0)):
            return None  # what it says is about the release before
        if self.found.failed.get(uid) == _template(deployment):
            return None  # it said so before this run, which has not changed it yet
        failure, progress = condition(deployment, "ReplicaFailure"), condition(deployment, "Progressing")
        refused = failure.get("status") == "True"
        if self._lasts(uid, "refused", now, self.limits.refused, holds=refused):
            return Hopeless(str(failure.get("reason", "FailedCreate")), str(failure.get("message", "")), uid=uid)
        if progress.get("reason") == _LATE:
            return Hopeless(_LATE, str(progress.get("message", "")), uid=uid)
        return None


def event_lines(events: Iterable[Object]) -> list[str]:
    """Return events as lines: reason, how often, message."""
    lines: list[str] = []
    for event in events:
        count = int(event.get("count") or inner(event, "series").get("count") or 1)
        times = f" (x{count})" if count > 1 else ""
        lines.append(f"{event.get('reason', '')}{times}: {' '.join(str(event.get('message', '')).split())}")
    return lines


def ready_text(deployments: Iterable[Object]) -> str:
    """Return ``ready/wanted`` pods of Deployments together."""
    found = [
        (int(inner(each, "status").get("readyReplicas", 0)), int(each["spec"]["replicas"])) for each in deployments
    ]
    return f"{sum(ready for ready, _ in found)}/{sum(wanted for _, wanted in found)}"


def _line(pod: Object) -> PodLine:
    return PodLine(name_of(pod), str(pod["spec"].get("nodeName", "")), _state(pod), _is_ready(pod))


def _state(pod: Object) -> str:
    """Return a pod's state as ``kubectl get pods`` would put it."""
    for status in (*_init_statuses(pod), *_statuses(pod)):
        waiting, ended = inner(status, "state", "waiting"), inner(status, "state", "terminated")
        restarts = int(status.get("restartCount", 0))
        again = f", restarted {restarts}x" if restarts else ""
        if waiting:
            return f"{waiting.get('reason', 'waiting')}{again}"
        if ended:
            return f"{ended.get('reason', 'ended')}{again}"
        if not status.get("ready"):
            return ("started, not ready" if status.get("started") else "starting") + again
    if _is_ready(pod):
        return "ready"
    return str(inner(pod, "status").get("phase", "Pending"))


def _missed_startup(pod: Object, status: Object) -> bool:
    """Tell whether a container was stopped because it took longer than its startup probe allows.

    The kubelet says it in an event only; but a container that was asked to end, or ended by a signal, after as long as
    the probe allows, without ever having started, leaves no other reason.
    """
    probe = inner(_container(pod, str(status["name"])), "startupProbe")
    ended = inner(status, "lastState", "terminated")
    if not probe or ended.get("exitCode") not in _ASKED_TO_END or ended.get("reason") == "OOMKilled":
        return False
    allowed = int(probe.get("periodSeconds", 10)) * int(probe.get("failureThreshold", 3))
    return _seconds(str(ended.get("finishedAt", ""))) - _seconds(str(ended.get("startedAt", ""))) >= allowed


def _seconds(at: str) -> float:
    """Return RFC 3339 as seconds; 0 where it is missing. Whole seconds are what the API tells of a container."""
    return datetime.fromisoformat(at).timestamp() if at else 0.0


def _ended(ended: Object, restarts: int) -> str:
    reason, code = str(ended.get("reason", "")), ended.get("exitCode")
    what = f"exit code {code}" + (f", {reason}" if reason not in ("", "Error") else "")
    return (
        f"started {restarts + 1} times, last ended with {what}" if code is not None else f"started {restarts + 1} times"
    )


def _readiness(pod: Object, container: str) -> str:
    path = inner(_container(pod, container), "readinessProbe", "httpGet").get("path")
    return f"GET {path} says no" if path else "its readiness probe says no"


def _container(pod: Object, name: str) -> Object:
    return first(items(inner(pod, "spec"), "containers"), "name", name)


def _statuses(pod: Object) -> Sequence[Object]:
    return items(inner(pod, "status"), "containerStatuses")


def _init_statuses(pod: Object) -> Sequence[Object]:
    return items(inner(pod, "status"), "initContainerStatuses")


def _is_ready(pod: Object) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def _template(deployment: Object) -> Object:
    return inner(deployment, "spec", "template")


def _has_failed(deployment: Object) -> bool:
    """Tell whether a Deployment says that its pods may not be made, or are late."""
    refused = condition(deployment, "ReplicaFailure").get("status") == "True"
    return refused or condition(deployment, "Progressing").get("reason") == _LATE


def _revision(thing: Object) -> str:
    """Return the release that a pod, or a Deployment's template, belongs to; empty where there is no such label."""
    return str(inner(thing, "metadata", "labels").get(REVISION_LABEL, ""))
