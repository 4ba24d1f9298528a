"""A project behind Alibaba Cloud's ALB: its Ingress, and what makes its pods wait for the load balancer.

None of it can be tried without a real ALB. What it stands on is Alibaba's documentation and the published source of the
controller, each named where it is used; ``docs/how-to/alb.md`` lists what to look at first on a real one.

The Ingress lists all slots of the project at all times, each with its weight. Every slot is so a server group of the
ALB before it has a pod: only then can its pods become ready, for they wait until the ALB knows them.
"""

import json
from typing import Any

from manifests import Manifest
from model.environment import Environment
from model.ingress import HTTP_PORT, HTTPS_PORT
from model.names import SLOTS, slot_service_name
from model.plan import Plan
from model.project import Project, Route
from model.stack import Application

READINESS_GATE = "target-health.alb.k8s.alibabacloud"
"""Condition that the controller sets on a pod when it has put it into a server group; the same for all Ingresses.

https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/use-readinessgate-to-check-pod-readiness-before-associating-pods-with-alb-ingresses-during-rolling-updates
and ``BuildReadinessGatePodConditionType`` in https://github.com/alibaba/alibaba-load-balancer-controller. Without that
controller, or in no server group, a pod with it never becomes ready."""
CHECK_SECONDS = 2
"""The ALB asks each server so often, and waits so long for its answer."""
HEALTHY_ANSWERS = 2
UNHEALTHY_ANSWERS = 3
SETTLED_SECONDS = 10
"""A pod must have been ready for so long before another goes. The documentation has the gate wait for the ALB's own
health check, the published source (of September 2024) only until the server is registered: so this is longer than
``HEALTHY_ANSWERS`` checks take."""
SERVICE_PORT = 80
"""Port of a slot's Service; the controller finds a Service's port by its number only (``LookupServicePort``)."""

_PREFIX = "alb.ingress.kubernetes.io"
_USE_ANNOTATION = "use-annotation"
"""Name of a backend's port that says: go by the annotation. https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/use-alb-ingresses-to-configure-hybrid-backend-server-groups."""
_WEIGHTS = "by-weight"
_HEADER = "by-header"
"""Backends' names, to which annotations refer. They are no Services, or the controller would look for their ports."""
_ALWAYS = "always"
"""Value of the canary's header that asks for it."""


def readiness_gates(application: Application, environment: Environment) -> list[Manifest]:
    """Return what a project's pods wait for beside their own probes: nothing where they are not behind an ALB."""
    return [{"conditionType": READINESS_GATE}] if environment.weighs(application.project) else []


def annotations(application: Application, environment: Environment, target: Plan) -> dict[str, str]:
    """Return the annotations of the project's Ingress.

    https://www.alibabacloud.com/help/en/ack/serverless-kubernetes/user-guide/alb-ingress-configuration-dictionary

    Args:
        application: The project.
        environment: Where it runs.
        target: What each of its slots must be.
    """
    order = application.project.order
    wish = application.canary
    weights = target.weights(wish.weight if wish else 0)
    header = {f"{_PREFIX}/conditions.{_HEADER}": _json([_has_header(wish.header)])} if wish and wish.header else {}
    return {
        **_listeners(environment),
        **_health_check(application.project),
        **({f"{_PREFIX}/order": str(order)} if order else {}),
        f"{_PREFIX}/actions.{_WEIGHTS}": _forward(application.name, weights),
        **header,
        **({f"{_PREFIX}/actions.{_HEADER}": _forward(application.name, {"canary": 100})} if header else {}),
    }


def paths(application: Application, route: Route) -> list[Manifest]:
    """Return the entries of one route; the ALB goes by the first that fits, so the one that asks for more is first."""
    wish = application.canary
    backends = [_HEADER] if wish and wish.header else []
    return [
        {
            "path": route.path,
            "pathType": "Prefix",
            "backend": {"service": {"name": name, "port": {"name": _USE_ANNOTATION}}},
        }
        for name in (*backends, _WEIGHTS)
    ]


def _listeners(environment: Environment) -> dict[str, str]:
    """Return the ports to listen on, which the controller otherwise takes from the AlbConfig's order.

    With HTTPS, plain HTTP is answered with a redirect to it, as the proxy on the VMs does.
    """
    if environment.ingress.scheme == "http":
        return {f"{_PREFIX}/listen-ports": f'[{{"HTTP": {HTTP_PORT}}}]'}
    ports = f'[{{"HTTP": {HTTP_PORT}}}, {{"HTTPS": {HTTPS_PORT}}}]'
    return {f"{_PREFIX}/listen-ports": ports, f"{_PREFIX}/ssl-redirect": "true"}


def _health_check(project: Project) -> dict[str, str]:
    """Return how the ALB itself looks after the pods: one whose node is dead leaves within seconds.

    Off by default. https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/alb-ingress-configuration-dictionary
    """
    check = {
        "healthcheck-enabled": "true",
        "healthcheck-path": project.probes.readiness.path,
        "healthcheck-protocol": "HTTP",
        "healthcheck-method": "GET",
        "healthcheck-httpcode": "http_2xx,http_3xx",
        "healthcheck-interval-seconds": str(CHECK_SECONDS),
        "healthcheck-timeout-seconds": str(CHECK_SECONDS),
        "healthy-threshold-count": str(HEALTHY_ANSWERS),
        "unhealthy-threshold-count": str(UNHEALTHY_ANSWERS),
    }
    return {f"{_PREFIX}/{key}": value for key, value in check.items()}


def _forward(name: str, weights: dict[Any, int]) -> str:
    """Return an action that spreads requests over slots by weight; 0 to 100 each.

    https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/customize-the-routing-rules-of-an-alb-ingress-1
    """
    groups = [
        {"ServiceName": slot_service_name(name, slot), "Weight": weights[slot], "ServicePort": SERVICE_PORT}
        for slot in SLOTS
        if slot in weights
    ]
    return _json([{"type": "ForwardGroup", "ForwardConfig": {"ServerGroups": groups}}])


def _has_header(name: str) -> Manifest:
    return {"type": "Header", "headerConfig": {"key": name, "values": [_ALWAYS]}}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
