"""What waits for the cluster's ingress, and how long the ingress itself is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from pulumi.runtime.mocks import MockMonitor

from settings import PROGRAM, read_stack_file
from tests.program.conftest import Run

HA: Mapping[str, Any] = read_stack_file(PROGRAM, "test")["environment"]["ingress"]["ha"]


@dataclass
class Told:
    """What the engine is told, by the names of types and Pulumi's own: ``Ingress X``."""

    waits: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    seconds: dict[str, str] = field(default_factory=dict[str, str])

    def before(self, later: str) -> set[str]:
        """Return all that must be done before a resource is touched."""
        seen: set[str] = set()
        left = [later]
        while left:
            seen |= (fresh := self.waits.get(left.pop(), set()) - seen)
            left += fresh
        return seen


def short(urn: str) -> str:
    kind, name = urn.split("::")[-2:]
    return f"{kind.rsplit(':', 1)[-1]} {name}"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    given, really = Told(), MockMonitor.RegisterResource  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]

    def register(monitor: MockMonitor, request: Any) -> Any:
        resource = short(monitor.make_urn(request.parent, request.type, request.name))
        given.waits[resource] = {short(each) for each in request.dependencies}
        given.seconds[resource] = request.customTimeouts.update
        return really(monitor, request)  # pyright: ignore[reportUnknownVariableType]

    monkeypatch.setattr(MockMonitor, "RegisterResource", register)
    return given


@pytest.mark.parametrize(
    ("stack", "named"),
    [
        ("test", {"IngressClass ingress-ingressclass-nginx"}),
        ("prod", {"IngressClass ingress-ingressclass-alb", "AlbConfig ingress-albconfig-package-platform"}),
    ],
)
def test_a_project_waits_for_the_class_of_its_ingress_and_for_no_proxy(
    run: Run, told: Told, stack: str, named: set[str]
) -> None:
    """With one ingress node down a wait for all proxies fails, and would stop every project."""
    run(stack)
    for kind in ("Deployment", "Ingress"):
        (first, *_) = sorted(each for each in told.waits if each.startswith(f"{kind} SJZY"))
        earlier = told.before(first)
        assert named <= earlier
        assert {each for each in earlier if each.startswith(("DaemonSet", "ConfigMap ingress", "HaIngress"))} == set()


def test_a_slow_proxy_is_waited_for_on_every_node(run: Run, told: Told) -> None:
    environment = read_stack_file(PROGRAM, "test")["environment"]
    environment["ingress"]["ha"] = {**HA, "proxy": {"acceptSeconds": 200, "drainSeconds": 3000}}
    run("test", environment=environment)
    for name in ("traefik", "keepalived"):
        seconds = int(told.seconds[f"DaemonSet ingress-daemonset-{name}"].removesuffix("s"))
        assert seconds > len(HA["nodes"]) * (200 + 3000)
