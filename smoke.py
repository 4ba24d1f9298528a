"""The smoke checks of a blue-green release: requests to the new pods before they get the traffic.

They go by way of the API server, which passes them on to the slot's own Service: so they work from wherever ``pulumi``
runs, and the new pods need no address that others could find.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi

from model.environment import Environment
from model.fields import plain_mapping
from model.names import ASSET_BRIDGE_HEADER, slot_service_name
from model.plan import SlotPlan
from model.problems import SettingsError
from model.project import SmokeCheck
from model.stack import Application
from model.yaml_text import parse_yaml

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import KubeConfig

PATIENCE_SECONDS = 15.0
"""How long a check is asked again: a Service knows its pods a moment after they are ready."""
_PAUSE_SECONDS = 0.5
_REQUEST_SECONDS = 10.0
_NO_CLUSTER = "no cluster is found to ask for its pods: set KUBECONFIG, or kubernetes:context in the stack file"

Ask = Callable[[str], tuple[int, str]]
"""Asks a path of the API server: status and text."""


class SmokeError(pulumi.RunError):
    """New pods gave a wrong answer, so they get no traffic."""


def check(environment: Environment, ask: Ask | None = None) -> Callable[[Application, SlotPlan], None]:
    """Return what asks a slot's pods all checks of its project.

    Args:
        environment: Where the pods are.
        ask: Speaks to the API server; by default as the cluster's default provider would.
    """

    def checked(application: Application, slot: SlotPlan) -> None:
        project = application.project
        # An environment may release the same project pod by pod: then nothing stands beside what serves.
        wanted = project.blue_green.smoke if project.strategy == "blueGreen" else ()
        if not wanted:
            return
        asking = ask or connect()
        service = slot_service_name(application.name, slot.name)
        path = f"/api/v1/namespaces/{environment.namespace}/services/{service}:http/proxy"
        for each in wanted:
            said = _until_right(each, lambda each=each: asking(f"{path}{each.path}"))
            if said:
                tag = slot.content.release.tag
                raise SmokeError(
                    f"{application.gitea_name}: the new pods ({tag}) get no traffic, as {each.path} {said}; "
                    "the release before serves"
                )
        pulumi.info(f"{application.gitea_name}: {len(wanted)} smoke checks of {slot.content.release.tag} are right")

    return checked


def _until_right(wanted: SmokeCheck, ask: Callable[[], tuple[int, str]]) -> str:
    """Return what was wrong to the end, nothing when an answer was right."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        wrong = _wrong(wanted, ask)
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(_PAUSE_SECONDS)


def _wrong(wanted: SmokeCheck, ask: Callable[[], tuple[int, str]]) -> str:
    try:
        status, text = ask()
    except OSError as error:
        return f"got no answer: {error}"
    if status != wanted.status:
        return f"answered {status} and not {wanted.status}"
    if wanted.contains is not None and wanted.contains not in text:
        return f"answered without {wanted.contains!r}"
    return ""


def asks_cluster(kubeconfig: pulumi.Input[str]) -> Ask:
    """Return what asks the API server of the stack's own cluster; it connects at the first question.

    Args:
        kubeconfig: Of the cluster. It is known before anything is made in it, and so before anything is asked.
    """
    known: list[str] = []
    pulumi.Output.from_input(kubeconfig).apply(known.append)

    @functools.cache
    def connected() -> Ask:
        if not known:
            raise SmokeError("the stack's own cluster has no kubeconfig yet")
        return connect(known[0])

    def ask(path: str) -> tuple[int, str]:
        return connected()(path)

    return ask


def connect(kubeconfig: str = "") -> Ask:
    """Return what asks the API server of a cluster.

    Args:
        kubeconfig: Its text; by default the cluster is the one that Pulumi's default provider would choose.

    Raises:
        SmokeError: If there is none.
    """
    # Only a release with checks pays for this import.
    import httpx2  # noqa: PLC0415
    from lightkube.config.kubeconfig import KubeConfig  # noqa: PLC0415
    from lightkube.core.exceptions import ConfigError  # noqa: PLC0415

    from api_server import UNUSABLE, ApiServer  # noqa: PLC0415

    own = pulumi.Config("kubernetes")
    told = kubeconfig or own.get("kubeconfig") or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    try:
        if "\n" in told or told.startswith("{"):  # Pulumi takes a file's name or its content
            config = KubeConfig.from_dict(  # pyright: ignore[reportUnknownMemberType] - a dict of anything
                plain_mapping(parse_yaml("kubeconfig", told)) or {}
            )
        else:
            config = _of_file_or_pod(told)
        chosen = config.get(None if kubeconfig else own.get("context"))
        if chosen is None:
            raise SmokeError(_NO_CLUSTER)
        server = ApiServer(chosen, _REQUEST_SECONDS)
    except (SettingsError, *UNUSABLE) as error:
        raise SmokeError(f"{_NO_CLUSTER}: {error}") from None

    def ask(path: str) -> tuple[int, str]:
        try:
            # Of a front end the new pods' own answer counts, not what they would fetch from the old ones.
            answer = server.get(path, headers={ASSET_BRIDGE_HEADER: "1"})
        except (httpx2.HTTPError, ConfigError, OSError) as error:
            return HTTPStatus.BAD_GATEWAY, str(error)
        return answer.status_code, answer.text

    return ask


def _of_file_or_pod(path: str) -> KubeConfig:
    """Return what names the cluster, as Pulumi's provider: a file, the usual file, the pod's own account.

    lightkube's own order has the account first: a job in a pod would change one cluster and ask another.
    """
    from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, KubeConfig  # noqa: PLC0415

    if path or Path(DEFAULT_KUBECONFIG).expanduser().exists():
        return KubeConfig.from_file(path or DEFAULT_KUBECONFIG)
    return KubeConfig.from_service_account()
