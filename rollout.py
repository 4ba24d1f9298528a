"""Waiting for pods where Pulumi's own wait does not do.

For a StatefulSet it can end at once. Neither provider 2.0.0 nor 4.x looks at ``status.observedGeneration``: what
Kubernetes told of the release before counts as the new one's success (``provider/pkg/await/statefulset.go`` of
pulumi-kubernetes). A colour that is gone back to is as it was declared, so there is nothing to wait for: whether its
pods are still there, nobody has looked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import pulumi

from model.environment import Environment
from model.names import SlotName, slot_name
from model.release import REVISION_LABEL
from model.rollout import missing_pods
from model.stack import Application
from smoke import Ask, connect

_PAUSE_SECONDS = 0.5
_OTHER = "other pods than those that are gone back to are"


class RolloutError(pulumi.RunError):
    """Pods did not become ready, so they get no traffic and nothing is recorded."""


def slot_rollout(
    environment: Environment, ask: Ask | None = None
) -> Callable[[Application, SlotName, str], Awaitable[None]]:
    """Return what waits until all pods of a project's slot are ready; if a revision is named, they have to be of it.

    Args:
        environment: Where the pods are.
        ask: Speaks to the API server; by default as the cluster's default provider would.
    """

    async def wait(application: Application, slot: SlotName, revision: str = "") -> None:
        asking = ask or connect()
        project = application.project
        plural, name = "statefulsets" if project.stateful else "deployments", slot_name(application.name, slot)
        path = f"/apis/apps/v1/namespaces/{environment.namespace}/{plural}/{name}"
        seconds = project.turn_seconds * project.turns
        deadline = time.monotonic() + seconds
        least = min(1, project.replicas)
        while missing := await asyncio.to_thread(_missing, asking, path, least, revision):
            if missing == _OTHER:
                raise RolloutError(f"{application.gitea_name}: {missing} in slot {slot}; nothing is recorded")
            if time.monotonic() > deadline:
                raise RolloutError(f"{application.gitea_name}: {missing} after {seconds} s; nothing is recorded")
            await asyncio.sleep(_PAUSE_SECONDS)

    return wait


def _missing(ask: Ask, path: str, least: int, revision: str) -> str:
    """Return what is not as it is to be, empty when all is."""
    try:
        status, text = ask(path)
        if status != HTTPStatus.OK:
            return f"the API server answers {status}"
        there = json.loads(text)
        if revision and there["spec"]["template"]["metadata"].get("labels", {}).get(REVISION_LABEL) != revision:
            return _OTHER
        return missing_pods(there, least)
    except (OSError, ValueError) as error:
        return f"the API server gives no answer: {error}"
