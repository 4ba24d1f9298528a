"""``HaIngress``: a cluster's way in as one Pulumi component."""

from dataclasses import dataclass, field

import pulumi

from components._apply import apply_any
from manifests import Manifest
from manifests.ha_ingress import ha_ingress
from model.environment import Environment
from model.ingress import HaIngressSettings, VipIngress
from model.secrets import ClusterSecrets

_NODE_SECONDS = 120
"""How long one node's pods may take to be replaced, from the stop signal to ready."""


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

    def __init__(self, name: str, args: HaIngressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the ingress.

        Args:
            name: The component's name in the stack.
            args: How clients come in.
            opts: Pulumi's options; a provider given here is inherited by all children.
        """
        super().__init__("package-platform:index:HaIngress", name, {}, opts)
        self._name = name
        self._seconds = _NODE_SECONDS * _places(args.ingress)
        manifests = ha_ingress(args.environment, args.ingress, args.secrets)
        before: list[pulumi.Resource] = []
        if manifests.namespace:
            before = [self._declare(manifests.namespace, before)]
        given = [_reusing(manifest, args.load_balancer) for manifest in manifests.first]
        before = [self._declare(manifest, before) for manifest in given] or before
        for manifest in (*manifests.workloads, *manifests.last):
            # One after another: the proxies are rolled before the addresses, never both at once.
            before = [self._declare(manifest, before)]
        vips = [vip.address for vip in args.ingress.vips] if isinstance(args.ingress, VipIngress) else []
        self.addresses = pulumi.Output.from_input(vips)
        self.class_name = pulumi.Output.from_input(args.environment.ingress.class_name)
        self.register_outputs({"className": self.class_name, "addresses": self.addresses})

    def _declare(self, manifest: Manifest, depends_on: list[pulumi.Resource]) -> pulumi.CustomResource:
        name = f"{self._name}-{manifest['kind'].lower()}-{manifest['metadata']['name']}"
        return apply_any(
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


def _places(ingress: HaIngressSettings) -> int:
    return len(ingress.nodes) if isinstance(ingress, VipIngress) else 3
