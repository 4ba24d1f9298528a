"""Waiting for a StatefulSet: Pulumi's own wait can end at once.

Neither provider 2.0.0 nor 4.x looks at ``status.observedGeneration``: what Kubernetes told of the release before counts
as the new one's success (``provider/pkg/await/statefulset.go`` of pulumi-kubernetes).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import pulumi

from model.environment import Environment
from model.stack import Application
from model.storage import rollout_state
from smoke import Ask, connect

_PAUSE_SECONDS = 0.5


class RolloutError(pulumi.RunError):
    """The pods of a StatefulSet did not become ready, so nothing is recorded."""


def stateful_rollout(environment: Environment, ask: Ask | None = None) -> Callable[[Application], Awaitable[None]]:
    """Return what waits until all pods of a project's StatefulSet are of its release and ready.

    Args:
        environment: Where the pods are.
        ask: Speaks to the API server; by default as the cluster's default provider would.
    """

    async def wait(application: Application) -> None:
        asking = ask or connect()
        path = f"/apis/apps/v1/namespaces/{environment.namespace}/statefulsets/{application.name}"
        project = application.project
        seconds = project.rollout.progress_deadline_seconds * max(1, project.replicas)
        deadline = time.monotonic() + seconds
        while missing := await asyncio.to_thread(_missing, asking, path):
            if time.monotonic() > deadline:
                raise RolloutError(f"{application.gitea_name}: {missing} after {seconds} s; nothing is recorded")
            await asyncio.sleep(_PAUSE_SECONDS)

    return wait


def _missing(ask: Ask, path: str) -> str:
    """Return what is not as it is to be, empty when all is."""
    try:
        status, text = ask(path)
        return rollout_state(json.loads(text)) if status == HTTPStatus.OK else f"the API server answers {status}"
    except (OSError, ValueError) as error:
        return f"the API server gives no answer: {error}"
