"""``HaIngress``: a cluster's way in as one Pulumi component."""

from dataclasses import dataclass, field
from typing import assert_never

import pulumi

from components._apply import apply
from manifests import Manifest
from manifests.ha_ingress import ha_ingress
from model.environment import Environment
from model.ingress import AlbIngress, HaIngressSettings, NlbIngress, VipIngress
from model.secrets import ClusterSecrets

_START_SECONDS = 120
"""How long a new pod of the ingress may take until it is ready, with the pull of its image."""
_CLOUD_SECONDS = 360
"""How long the cloud may take where it is the proxy."""
_NAMED = {"AlbConfig", "IngressClass"}
"""What an Ingress refers to."""


@dataclass(frozen=True)
class HaIngressArgs:
    """What ``HaIngress`` is told.

    Attributes:
        environment: The one that owns the cluster's ingress; its registry has the images.
        ingress: How clients come in.
        secrets: Credentials of the registry and a certificate, which become Secrets in its namespace.
        load_balancer: Id of an ALB that is there already; None has its controller make one.
    """

    environment: Environment
    ingress: HaIngressSettings
    secrets: ClusterSecrets = field(default=ClusterSecrets(), repr=False)
    load_balancer: pulumi.Input[str] | None = None


class HaIngress(pulumi.ComponentResource):
    """A cluster's way in: proxies and moving addresses on VMs, or the cloud's load balancer."""

    class_name: pulumi.Output[str]
    """The IngressClass that it serves."""
    addresses: pulumi.Output[list[str]]
    """The VIPs; empty where the cloud chooses the addresses."""
    named: list[pulumi.Resource]
    """What has to be there before a project's Ingress: the IngressClass, and the AlbConfig that it leads to. Not the
    proxies: provider 4.x waits until all pods of a changed DaemonSet are there, which fails while one ingress node is
    down, and would stop every project."""

    def __init__(self, name: str, args: HaIngressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the ingress.

        Args:
            name: The component's name in the stack.
            args: How clients come in.
            opts: Pulumi's options; a provider given here is inherited by all children.
        """
        super().__init__("package-platform:index:HaIngress", name, {}, opts)
        self._name = name
        self._seconds = _seconds(args.ingress)
        manifests = ha_ingress(args.environment, args.ingress, args.secrets)
        before: list[pulumi.Resource] = []
        if manifests.namespace:
            before = [self._declare(manifests.namespace, before)]
        given = [_reusing(manifest, args.load_balancer) for manifest in manifests.first]
        first = [(manifest["kind"], self._declare(manifest, before)) for manifest in given]
        self.named = [resource for kind, resource in first if kind in _NAMED]
        before = [resource for _, resource in first] or before
        for manifest in (*manifests.workloads, *manifests.last):
            # One after another: the proxies are rolled before the addresses. Only provider 4.x waits for a DaemonSet;
            # with 2.0.0, which has no such wait (provider/pkg/await/awaiters.go), both roll at a time.
            before = [self._declare(manifest, before)]
        vips = [vip.address for vip in args.ingress.vips] if isinstance(args.ingress, VipIngress) else []
        self.addresses = pulumi.Output.from_input(vips)
        self.class_name = pulumi.Output.from_input(args.environment.ingress.class_name)
        self.register_outputs({"className": self.class_name, "addresses": self.addresses})

    def _declare(self, manifest: Manifest, depends_on: list[pulumi.Resource]) -> pulumi.CustomResource:
        name = f"{self._name}-{manifest['kind'].lower()}-{manifest['metadata']['name']}"
        return apply(
            name,
            manifest,
            pulumi.ResourceOptions(
                parent=self,
                depends_on=depends_on,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{self._seconds}s", update=f"{self._seconds}s"),
            ),
        )


def _reusing(manifest: Manifest, load_balancer: pulumi.Input[str] | None) -> Manifest:
    """Return an AlbConfig for an ALB that is there: its listeners are the controller's, all else is its maker's."""
    if load_balancer is None or manifest["kind"] != "AlbConfig":
        return manifest
    reused = {"id": load_balancer, "forceOverride": False, "listenerForceOverride": True}
    spec = manifest["spec"]
    return {**manifest, "spec": {**spec, "config": {**spec["config"], **reused}}}


def _seconds(ingress: HaIngressSettings) -> int:
    """Return how long a rolling update may take: one pod after another ends, and the next one starts."""
    match ingress:
        case VipIngress():
            proxy, pods, moves = ingress.proxy, len(ingress.nodes), ingress.hand_over_seconds
        case NlbIngress():
            proxy, pods, moves = ingress.proxy, ingress.replicas, 0
        case AlbIngress():
            return _CLOUD_SECONDS
        case _:
            assert_never(ingress)
    return pods * (proxy.accept_seconds + proxy.drain_seconds + moves + _START_SECONDS)
