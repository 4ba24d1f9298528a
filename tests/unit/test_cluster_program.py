"""When the cluster tests take a stack to be at rest."""

from typing import Any

import pytest

from tests.cluster.program import moving


def item(kind: str, spec: dict[str, Any], status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "it", "generation": 2, **metadata}, "spec": spec, "status": status}


def pod(phase: str, *, ready: bool, **metadata: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return item("Pod", {}, {"phase": phase, "conditions": conditions}, **metadata)


def deployment(**status: int) -> dict[str, Any]:
    done = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    return item("Deployment", {"replicas": 2}, {**done, **status})


def stateful_set(**status: int | str) -> dict[str, Any]:
    done = {"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2}
    revisions = {"currentRevision": "b", "updateRevision": "b"}
    return item("StatefulSet", {"replicas": 2}, {**done, **revisions, **status})


@pytest.mark.parametrize(
    "resting",
    [
        pod("Running", ready=True),
        pod("Succeeded", ready=False),
        pod("Failed", ready=False),
        deployment(),
        stateful_set(),
        item("StatefulSet", {"replicas": 0}, {"observedGeneration": 2, "currentRevision": "b", "updateRevision": "b"}),
    ],
)
def test_what_is_done_is_not_waited_for(resting: dict[str, Any]) -> None:
    assert moving([resting]) == []


@pytest.mark.parametrize(
    "busy",
    [
        pod("Running", ready=False),
        item("Pod", {}, {"phase": "Pending"}),
        pod("Running", ready=True, deletionTimestamp="2026-01-01T00:00:00Z"),
        pod("Failed", ready=False, deletionTimestamp="2026-01-01T00:00:00Z"),
        deployment(availableReplicas=1),
        deployment(replicas=3),
        deployment(observedGeneration=1),
        stateful_set(availableReplicas=1),
        stateful_set(currentRevision="a"),
        stateful_set(observedGeneration=1),
    ],
)
def test_what_is_not_done_is_waited_for(busy: dict[str, Any]) -> None:
    assert moving([busy]) == ["it"]
