"""A recording engine: run the real program under mocks, drain, then assert on plain lists."""

import json
import runpy
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pulumi
import pytest
from pulumi.runtime.config import set_all_config
from pulumi.runtime.mocks import MockMonitor

import rollout
from registry import Registry
from settings import PROGRAM, read_stack_file
from tests.conftest import digest_of

CREDENTIAL = "alicloud:cs/getClusterCredential:getClusterCredential"
TOLD: Mapping[str, dict[str, Any]] = {
    "alicloud:cs/managedKubernetes:ManagedKubernetes": {
        "connections": [{"apiServerIntranet": "https://10.20.0.9:6443", "apiServerInternet": ""}],
        "vpcId": "cluster-vpc-id",
    },
    "alicloud:ecs/eipAddress:EipAddress": {"ipAddress": "203.0.113.10"},
    "alicloud:alb/loadBalancer:LoadBalancer": {"dnsName": "alb.example.com"},
    "alicloud:nas/mountTarget:MountTarget": {"mountTargetDomain": "files.example.com"},
    "alicloud:vpc/natGateway:NatGateway": {"snatTableIds": "stb-1"},
}
"""Type → what only the cloud knows of a resource."""
KUBECONFIG: Mapping[str, Any] = {
    "clusters": [{"name": "k", "cluster": {"server": "https://203.0.113.9:6443"}}],
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "current-context": "c",
}


@dataclass(frozen=True)
class Declared:
    """One resource as the program declared it."""

    type: str
    name: str
    inputs: dict[str, Any]


@dataclass
class Recording(pulumi.runtime.Mocks):
    """Remembers what is declared; answers calls with what the stack recorded before."""

    earlier: Mapping[str, Any] = field(default_factory=dict[str, Any])
    earlier_outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    declared: list[Declared] = field(default_factory=list[Declared])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    secrets: set[str] = field(default_factory=set[str])
    """Names of the outputs that are secret."""
    credentials: int = 0
    """How often the cloud was asked for one."""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        inputs = cast("dict[str, Any]", args.inputs)  # pyright: ignore[reportUnknownMemberType]
        self.declared.append(Declared(args.typ, args.name, inputs))
        told = TOLD.get(args.typ, {})
        return args.resource_id or f"{args.name}-id", {**inputs, **told}

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        asked = cast("dict[str, Any]", args.args)  # pyright: ignore[reportUnknownMemberType]
        if args.token.endswith(":readStackOutputs"):
            assert asked["name"].startswith("organization/package-platform/")
            return {"outputs": dict(self.earlier_outputs), "secretOutputNames": ["kubeconfig"]}
        if args.token == CREDENTIAL:
            self.credentials += 1
            expires = datetime.now(UTC) + timedelta(minutes=asked["temporaryDurationMinutes"])
            kubeconfig = json.dumps({**KUBECONFIG, "users": [{"name": f"user-{expires.isoformat()}", "user": {}}]})
            return {"kubeConfig": kubeconfig, "expiration": expires.isoformat(), "clusterId": asked["clusterId"]}
        assert (args.token, list(asked)) == ("pulumi:pulumi:readStackResourceOutputs", ["stackName"])
        assert asked["stackName"].startswith("organization/package-platform/")
        return {"outputs": dict(self.earlier)}

    def of(self, kind: str) -> list[Declared]:
        return [each for each in self.declared if each.type.endswith(f":{kind}")]


Run = Callable[..., Recording]


@dataclass
class Order:
    """What waits for what, as the engine is told: URN → URNs; names are the types' and Pulumi's own."""

    waits: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def urn(self, name: str) -> str:
        kind, resource = name.split(" ")
        (found,) = [urn for urn in self.waits if urn.endswith(f":{kind}::{resource}")]
        return found

    def after(self, later: str, earlier: str) -> bool:
        """Tell whether one resource, ``Ingress X``, is touched only when another is done."""
        seen: set[str] = set()
        left = [self.urn(later)]
        while left:
            seen |= (fresh := self.waits.get(left.pop(), set()) - seen)
            left += fresh
        return self.urn(earlier) in seen


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Order:
    """What the engine is told of dependencies."""
    given, really = Order(), MockMonitor.RegisterResource  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]

    def register(monitor: MockMonitor, request: Any) -> Any:
        urn = monitor.make_urn(request.parent, request.type, request.name)
        given.waits[urn] = set(request.dependencies)
        return really(monitor, request)  # pyright: ignore[reportUnknownVariableType]

    monkeypatch.setattr(MockMonitor, "RegisterResource", register)
    return given


def waited_by(monkeypatch: pytest.MonkeyPatch, wait: Callable[..., Awaitable[None]]) -> None:
    """Have the program wait for pods by this."""

    def slot_rollout(*_: object) -> Callable[..., Awaitable[None]]:
        return wait

    monkeypatch.setattr(rollout, "slot_rollout", slot_rollout)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run the program for a stack: ``run("test", tags={...})`` replaces parts of the committed config."""

    def digests(_: Registry, images: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return {image: digest_of(*image) for image in images}

    monkeypatch.setattr(Registry, "digests", digests)
    monkeypatch.chdir(PROGRAM)

    async def there(*_: object) -> None:
        """All pods are ready."""

    waited_by(monkeypatch, there)

    def run_program(
        stack: str,
        *,
        earlier: Mapping[str, Any] | None = None,
        earlier_outputs: Mapping[str, Any] | None = None,
        preview: bool = False,
        **config: Any,
    ) -> Recording:
        recording = Recording(earlier=earlier or {}, earlier_outputs=earlier_outputs or {})
        pulumi.runtime.set_mocks(
            recording, project="package-platform", stack=stack, preview=preview, organization="organization"
        )
        merged = {**read_stack_file(PROGRAM, stack), **config}
        set_all_config({f"package-platform:{key}": json.dumps(value) for key, value in merged.items()})

        def export(name: str, value: Any) -> None:
            output = pulumi.Output.from_input(value)
            output.apply(lambda resolved: recording.outputs.update({name: resolved}))
            secret = pulumi.Output.from_input(cast("Any", output).is_secret())
            secret.apply(lambda given: recording.secrets.add(name) if given else None)

        monkeypatch.setattr(pulumi, "export", export)
        drained = cast("Callable[[Callable[[], object]], Callable[[], None]]", pulumi.runtime.test)  # pyright: ignore[reportUnknownMemberType]
        drained(lambda: runpy.run_path(str(PROGRAM / "__main__.py")))()
        return recording

    yield run_program
    set_all_config({})
