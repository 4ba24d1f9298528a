"""Waiting for a StatefulSet: what counts as rolled out, and what ends the wait."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

import rollout
from model.names import SlotName
from model.project import BackendProject, Rollout, Shutdown
from model.rollout import missing_pods
from model.stack import Application
from model.storage import Volume
from tests.unit.test_smoke import ENVIRONMENT

DONE: dict[str, Any] = {
    "observedGeneration": 2,
    "updatedReplicas": 2,
    "availableReplicas": 2,
    "currentRevision": "b",
    "updateRevision": "b",
}


def stateful_set(**status: Any) -> dict[str, Any]:
    return {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {**DONE, **status}}


def deployment(**status: int) -> dict[str, Any]:
    done = {"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 3}
    return {**stateful_set(), "status": {**done, **status}}


def run(
    *answers: tuple[int, str] | OSError,
    stateful: bool = True,
    replicas: int = 2,
    seconds: int = 300,
    revision: str = "",
) -> list[str]:
    """Return what was asked until the wait ended."""
    asked: list[str] = []
    left = list(answers)

    def ask(path: str) -> tuple[int, str]:
        asked.append(path)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    # Not checked, as no project file may say 0 seconds.
    pace = Rollout.model_construct(progress_deadline_seconds=seconds)
    storage = (Volume(name="data", mount="/data", size="1Gi", per_pod=True),) if stateful else ()
    changed = {"rollout": pace, "storage": storage, "shutdown": Shutdown(pre_stop_seconds=0, drain_seconds=0)}
    project = BackendProject(kind="backend", replicas=replicas).model_copy(update=changed)
    application = Application.model_construct(gitea_name="Some.Api", project=project)
    # A loop of its own: `asyncio.run` would leave the thread without the one that Pulumi uses in other tests.
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop):
        loop.run_until_complete(wait(ask, application, "main" if stateful else "green", revision))
    return asked


async def wait(ask: Any, application: Application, slot: SlotName, revision: str = "") -> None:
    await rollout.slot_rollout(ENVIRONMENT, ask)(application, slot, revision)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "_PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, ""),
        ({"observedGeneration": 1}, "the cluster has not begun with its pods"),
        ({"updateRevision": "c", "updatedReplicas": 1}, "1 of 2 pods are ready"),
        ({"availableReplicas": 1}, "1 of 2 pods are ready"),
    ],
)
def test_all_pods_must_be_new_and_ready(status: dict[str, Any], said: str) -> None:
    assert missing_pods(stateful_set(**status)) == said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, ""),
        ({"observedGeneration": 1}, "the cluster has not begun with its pods"),
        ({"updatedReplicas": 1}, "1 of 2 pods are ready"),
        ({"availableReplicas": 0}, "0 of 2 pods are ready"),
    ],
)
def test_all_pods_of_a_deployment_must_be_there(status: dict[str, int], said: str) -> None:
    assert missing_pods(deployment(**status)) == said


def test_a_colour_that_was_scaled_to_nothing_is_not_there() -> None:
    scaled = {**deployment(updatedReplicas=0, availableReplicas=0), "spec": {"replicas": 0}}
    assert missing_pods(scaled) == ""
    assert missing_pods(scaled, least=1) == "0 of 1 pods are ready"


def test_a_colour_is_asked_for_by_its_own_name() -> None:
    gone, there = (200, json.dumps(deployment(availableReplicas=1))), (200, json.dumps(deployment()))
    assert run(gone, there, stateful=False) == ["/apis/apps/v1/namespaces/n/deployments/some-api-green"] * 2


def test_a_stateful_set_that_was_just_made_has_not_begun() -> None:
    made = {"metadata": {"generation": 1}, "spec": {"replicas": 2}}
    assert missing_pods(made) == "the cluster has not begun with its pods"


def test_it_is_asked_until_the_pods_are_ready() -> None:
    path = "/apis/apps/v1/namespaces/n/statefulsets/some-api"
    old = (200, json.dumps(stateful_set(observedGeneration=1)))
    new = (200, json.dumps(stateful_set()))
    assert run(old, (503, "busy"), OSError("no route"), (200, "no JSON"), new) == [path] * 5
    assert run(new) == [path]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, json.dumps(stateful_set(availableReplicas=1))), "1 of 2 pods are ready"),
        ((404, ""), "the API server answers 404"),
        (OSError("no route"), "the API server gives no answer: no route"),
    ],
)
def test_the_wait_ends_with_a_reason(answer: tuple[int, str] | OSError, said: str) -> None:
    with pytest.raises(rollout.RolloutError, match=rf"Some\.Api: {said} after 0 s; nothing is recorded"):
        run(answer, seconds=0)


def test_pods_that_are_gone_back_to_must_be_those() -> None:
    """Another release may have taken the colour, and ended before the record told so."""
    labels = {"metadata": {"labels": {"release": "r1"}}}
    there = {**deployment(), "spec": {"replicas": 2, "template": labels}}
    assert len(run((200, json.dumps(there)), stateful=False, revision="r1")) == 1
    with pytest.raises(rollout.RolloutError, match="other pods than those that are gone back to are in slot green"):
        run((200, json.dumps(there)), stateful=False, revision="r2")
