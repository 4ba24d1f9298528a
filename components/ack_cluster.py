"""``AckCluster``: a managed cluster on Alibaba Cloud as one Pulumi component, and the way into it.

The only module that imports pulumi-alicloud; it is imported only by a stack that has a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import pulumi
import pulumi_alicloud as alicloud
from pulumi_alicloud import alb, cs, ecs, kms, log, nas, vpc

from components.cluster_access import left
from manifests.ack_cluster import CloudResource, Ref, ack_cluster, switch_names
from manifests.kubeconfig import plugin_command, pointed_at, with_plugin
from model.ack import AckSettings, Connection

_KINDS: Mapping[str, type[pulumi.CustomResource]] = {
    "alb.LoadBalancer": alb.LoadBalancer,
    "cs.AutoscalingConfig": cs.AutoscalingConfig,
    "cs.KubernetesAddon": cs.KubernetesAddon,
    "cs.ManagedKubernetes": cs.ManagedKubernetes,
    "cs.NodePool": cs.NodePool,
    "ecs.EipAddress": ecs.EipAddress,
    "ecs.EipAssociation": ecs.EipAssociation,
    "ecs.SecurityGroup": ecs.SecurityGroup,
    "ecs.SecurityGroupRule": ecs.SecurityGroupRule,
    "kms.Key": kms.Key,
    "log.Project": log.Project,
    "nas.AccessGroup": nas.AccessGroup,
    "nas.AccessRule": nas.AccessRule,
    "nas.FileSystem": nas.FileSystem,
    "nas.MountTarget": nas.MountTarget,
    "vpc.NatGateway": vpc.NatGateway,
    "vpc.Network": vpc.Network,
    "vpc.SnatEntry": vpc.SnatEntry,
    "vpc.Switch": vpc.Switch,
}


@dataclass(frozen=True)
class AckClusterArgs:
    """What ``AckCluster`` is told.

    Attributes:
        settings: The cluster, checked by ``model.ack.policy_problems``.
    """

    settings: AckSettings


class AckCluster(pulumi.ComponentResource):
    """A cluster over three zones with its network, storage, logs and load balancer, or one that is there already."""

    cluster_id: pulumi.Output[str]
    """The cloud's id of it."""
    endpoint: pulumi.Output[str]
    """URL of its API: within the VPC, unless ``publicApi``."""
    vpc_id: pulumi.Output[str]
    """Its VPC."""
    vswitch_ids: pulumi.Output[list[str]]
    """The nodes' vSwitches, one for each zone; empty for a cluster that is there."""
    load_balancer_id: pulumi.Output[str] | None
    """The ALB, for ``spec.config.id`` of an AlbConfig; None where the stack makes none."""
    address: pulumi.Output[str | None]
    """Host name of the ALB, to which the domain's CNAME points."""
    file_server: pulumi.Output[str | None]
    """Host name of the NAS file system's first mount target."""

    def __init__(self, name: str, args: AckClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the cluster.

        Args:
            name: The component's name in the stack.
            args: What cluster.
            opts: Pulumi's options, with the cloud's provider.
        """
        super().__init__("package-platform:index:AckCluster", name, {}, opts)
        self._name = name
        self._made: dict[str, Any] = {}
        settings = args.settings
        if settings.existing:
            options = pulumi.ResourceOptions(parent=self)
            control_plane = cs.ManagedKubernetes.get(f"{name}-control-plane", settings.existing, opts=options)
        else:
            for resource in ack_cluster(settings):
                self._made[resource.name] = self._declare(resource)
            control_plane = cast("cs.ManagedKubernetes", self._made["control-plane"])
        self.cluster_id = control_plane.id
        self.endpoint = control_plane.connections.apply(lambda found: _endpoint(found, public=settings.public_api))
        self.vpc_id = control_plane.vpc_id
        names = switch_names(settings.network) if settings.network else []
        self.vswitch_ids = pulumi.Output.all(*(self._made[each].id for each in names))
        balancer = self._made.get("load-balancer")
        self.load_balancer_id = balancer.id if balancer else None
        self.address = self._attribute("load-balancer", "dns_name")
        first_target = next((each for each in self._made if each.startswith("files-in-")), "")
        self.file_server = self._attribute(first_target, "mount_target_domain")
        self.register_outputs(self.outputs())

    def outputs(self) -> dict[str, pulumi.Output[Any]]:
        """Return what may be shown to everybody."""
        return {
            "id": self.cluster_id,
            "endpoint": self.endpoint,
            "vpcId": self.vpc_id,
            "vSwitchIds": self.vswitch_ids,
            "loadBalancerId": pulumi.Output.from_input(self.load_balancer_id),
            "address": self.address,
            "fileServer": self.file_server,
        }

    def _declare(self, resource: CloudResource) -> pulumi.CustomResource:
        minutes = f"{resource.minutes}m"
        options = pulumi.ResourceOptions(
            parent=self,
            protect=resource.protect or None,
            depends_on=[self._made[each] for each in resource.after],
            ignore_changes=list(resource.ignore) or None,
            custom_timeouts=pulumi.CustomTimeouts(create=minutes, update=minutes, delete=minutes),
        )
        constructor = cast("Callable[..., pulumi.CustomResource]", _KINDS[resource.kind])
        return constructor(f"{self._name}-{resource.name}", **self._resolved(resource.inputs), opts=options)

    def _resolved(self, value: Any) -> Any:
        """Return inputs with the values that references stand for."""
        match value:
            case Ref():
                return getattr(self._made[value.resource], value.attribute)
            case Mapping():
                entries = cast("Mapping[str, Any]", value)
                return {key: self._resolved(each) for key, each in entries.items()}
            case list():
                return [self._resolved(each) for each in cast("list[Any]", value)]
            case _:
                return value

    def _attribute(self, resource: str, attribute: str) -> pulumi.Output[Any]:
        made = self._made.get(resource)
        return pulumi.Output.from_input(getattr(made, attribute) if made else None)


def _endpoint(connections: Any, *, public: bool) -> str:
    """Return the API's URL; until the 4.0 SDK this was one map, now it is a list of one."""
    found = connections[0] if connections else None
    return str((found.api_server_internet if public else found.api_server_intranet) or "") if found else ""


def cloud(settings: AckSettings) -> pulumi.ProviderResource:
    """Return the provider of the cloud.

    Whoever deploys is known by the environment (``ALICLOUD_ACCESS_KEY`` and the like, or the role of the machine), so
    that neither stack file nor state holds a key.
    """
    return alicloud.Provider("alicloud", region=settings.region)


@dataclass(frozen=True)
class Access:
    """The way into a cluster.

    Attributes:
        kubeconfig: A secret.
        expires: When it does, RFC 3339; empty for one without a credential in it.
    """

    kubeconfig: pulumi.Output[str]
    expires: pulumi.Output[str]


def connect(
    settings: AckSettings,
    cluster: AckCluster,
    earlier: Connection | None,
    now: datetime,
    options: pulumi.InvokeOptions,
) -> Access:
    """Return the kubeconfig of a cluster.

    A temporary credential that an earlier run got is used while it has half of its life, so that a run that changes
    nothing shows no change.

    Args:
        settings: The cluster.
        cluster: The same, declared.
        earlier: What the last run had, None when there was none.
        now: The time.
        options: With the cloud's provider.
    """
    half = timedelta(minutes=settings.credential_minutes) / 2

    def credential(known: list[str]) -> pulumi.Output[dict[str, str]]:
        cluster_id, endpoint = known
        temporary = settings.credential == "temporary"
        if temporary and earlier and earlier.id == cluster_id and left(earlier.expires, now) > half:
            return pulumi.Output.from_input({"kubeconfig": earlier.kubeconfig, "expires": earlier.expires})
        asked = cs.get_cluster_credential_output(
            cluster_id=cluster_id, temporary_duration_minutes=settings.credential_minutes, opts=options
        )
        if temporary:
            return asked.apply(
                lambda told: {"kubeconfig": pointed_at(told.kube_config, endpoint), "expires": told.expiration}
            )
        command = plugin_command(cluster_id, settings.region, settings.credential_minutes)
        return asked.apply(lambda told: {"kubeconfig": with_plugin(told.kube_config, endpoint, command), "expires": ""})

    told = pulumi.Output.secret(pulumi.Output.all(cluster.cluster_id, cluster.endpoint).apply(credential))
    # Pulumi would carry the secret's mark over to the time.
    expires = pulumi.Output.unsecret(told.apply(lambda each: each["expires"]))
    return Access(told.apply(lambda each: each["kubeconfig"]), expires)
