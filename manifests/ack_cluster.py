"""A cluster on ACK as plain data: every cloud resource with its inputs, in the order in which they need each other.

Nothing here knows Pulumi. What only the cloud can tell (an id, an address) is a ``Ref``, for which the component puts
the value in. The inputs are named as pulumi-alicloud 4.0 names them in Python; tests hold them to the SDK's own types.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from model.ack import ALB_ADD_ON, SURGE_NODES, AckSettings, AddOn, CloudNetwork, NodePool, Zone

Cost = Literal["free", "by use", "small", "medium", "large"]
"""A rough class of what it costs a month: nothing; what flows or is stored; below 50, below 500, above 500 US$."""
NAS_MOUNT_TARGETS = 2
"""A general-purpose NAS file system has at most so many; each answers in the whole VPC."""
LOG_COMPONENTS = ("apiserver", "kcm", "scheduler", "ccm", "controlplane-events")
"""Parts of the control plane whose logs are kept: all that ACK offers."""


@dataclass(frozen=True)
class Ref:
    """A value that another resource has once it is there.

    Args:
        resource: Its name.
        attribute: Of the resource, as Python names it.
    """

    resource: str
    attribute: str = "id"

    def __str__(self) -> str:
        return f"${{{self.resource}.{self.attribute}}}"


@dataclass(frozen=True)
class CloudResource:
    """One resource of the cloud.

    Args:
        name: Within the cluster.
        kind: Class of pulumi-alicloud, ``vpc.Network``.
        inputs: Its inputs, with ``Ref`` for what is not known yet.
        cost: What it costs, roughly.
        protect: Whether Pulumi refuses to delete or replace it.
        after: Names of resources that it needs although no input names them.
        ignore: Inputs that count at creation only.
        minutes: How long its creation or change may take.
    """

    name: str
    kind: str
    inputs: Mapping[str, Any]
    cost: Cost = "free"
    protect: bool = False
    after: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    minutes: int = 10


def ack_cluster(settings: AckSettings) -> list[CloudResource]:
    """Return every cloud resource of a cluster that the stack makes; each comes after those that it names.

    Args:
        settings: Without ``existing``, and without a policy problem.

    Raises:
        ValueError: If they are for a cluster that is there, or incomplete.
    """
    network = settings.network
    if settings.existing or network is None:
        raise ValueError(f"cluster {settings.name}: its network is not declared here")
    return [
        *_network(settings, network),
        *_way_out(settings, network),
        *_logs(settings),
        *_key(settings),
        *_load_balancer(settings, network),
        *_shared_files(settings, network),
        _cluster(settings, network),
        *_add_ons(settings),
        *_autoscaling(settings),
        *(_pool(settings, network, name, pool) for name, pool in settings.node_pools.items()),
    ]


def _tags(settings: AckSettings) -> dict[str, str]:
    return {"managed-by": "pulumi", "cluster": settings.name}


def zone_letter(zone: Zone) -> str:
    """Return the letter that tells a zone from the others of its region."""
    return zone.id[-1]


def switch_names(network: CloudNetwork, use: Literal["nodes", "pods"] = "nodes") -> list[str]:
    """Return the names of the vSwitches, in the order of the zones."""
    return [f"{use}-{zone_letter(zone)}" for zone in network.zones]


def _switch_refs(network: CloudNetwork, use: Literal["nodes", "pods"]) -> list[Ref]:
    return [Ref(name) for name in switch_names(network, use)]


def _network(settings: AckSettings, network: CloudNetwork) -> Iterable[CloudResource]:
    protect, tags = settings.deletion_protection, _tags(settings)
    vpc = {"vpc_name": settings.name, "cidr_block": network.cidr, "tags": tags}
    yield CloudResource("vpc", "vpc.Network", vpc, protect=protect)
    for zone in network.zones:
        for use, cidr in (("nodes", zone.nodes), ("pods", zone.pods)):
            name = f"{use}-{zone_letter(zone)}"
            inputs = {
                "vpc_id": Ref("vpc"),
                "vswitch_name": f"{settings.name}-{name}",
                "cidr_block": cidr,
                "zone_id": zone.id,
                "tags": tags,
            }
            yield CloudResource(name, "vpc.Switch", inputs, protect=protect)
    group = {
        "vpc_id": Ref("vpc"),
        "security_group_name": settings.name,
        # An enterprise group carries the 65,536 addresses that pods of a VPC may need; it has no rule for its members.
        "security_group_type": "enterprise",
        "tags": tags,
    }
    yield CloudResource("security-group", "ecs.SecurityGroup", group, protect=protect)
    for name, rule in _rules(network).items():
        inputs = {
            "security_group_id": Ref("security-group"),
            "ip_protocol": "all",
            "port_range": "-1/-1",
            "nic_type": "intranet",
            **rule,
        }
        yield CloudResource(name, "ecs.SecurityGroupRule", inputs)


def _rules(network: CloudNetwork) -> dict[str, dict[str, str]]:
    """Return the security group's rules by their names. An enterprise group refuses both ways what none allows.

    https://www.alibabacloud.com/help/en/ecs/user-guide/security-group-rules

    Each is named by its network: the cloud knows a rule by what it allows, so two that changed places would be made
    again without effect, and then deleted.
    """
    sources = {"vpc": network.cidr, **{f"on-premise-{_dashed(each)}": each for each in network.on_premise}}
    incoming = {
        f"from-{name}": {"type": "ingress", "cidr_ip": cidr, "description": f"from {name}"}
        for name, cidr in sources.items()
    }
    return {**incoming, "to-anywhere": {"type": "egress", "cidr_ip": "0.0.0.0/0", "description": "to anywhere"}}


def _dashed(network: str) -> str:
    return network.replace(".", "-").replace("/", "-")


_USES: tuple[Literal["nodes", "pods"], ...] = ("nodes", "pods")


def _way_out(settings: AckSettings, network: CloudNetwork) -> Iterable[CloudResource]:
    """The one address by which nodes and pods reach the Internet; nobody reaches them by it."""
    tags = _tags(settings)
    address = {
        "address_name": f"{settings.name}-egress",
        "payment_type": "PayAsYouGo",
        "internet_charge_type": "PayByTraffic",
        "bandwidth": str(network.egress_mbits),
        "tags": tags,
    }
    # Others have it in their lists of who may come.
    yield CloudResource("egress-address", "ecs.EipAddress", address, "by use", protect=settings.deletion_protection)
    gateway = {
        "vpc_id": Ref("vpc"),
        "vswitch_id": _switch_refs(network, "nodes")[0],
        "nat_gateway_name": settings.name,
        "nat_type": "Enhanced",
        "payment_type": "PayAsYouGo",
        "internet_charge_type": "PayByLcu",
        "network_type": "internet",
        "eip_bind_mode": "MULTI_BINDED",
        "availability_mode": "CrossAZ",
        "tags": tags,
    }
    yield CloudResource("nat", "vpc.NatGateway", gateway, "small", protect=settings.deletion_protection)
    bound = {"allocation_id": Ref("egress-address"), "instance_id": Ref("nat"), "instance_type": "Nat"}
    yield CloudResource("egress", "ecs.EipAssociation", bound, protect=settings.deletion_protection)
    for use in _USES:
        for zone, switch in zip(network.zones, _switch_refs(network, use), strict=True):
            name = f"snat-{use}-{zone_letter(zone)}"
            entry = {
                "snat_table_id": Ref("nat", "snat_table_ids"),
                "snat_ip": Ref("egress-address", "ip_address"),
                "source_vswitch_id": switch,
                "snat_entry_name": f"{settings.name}-{name}",
            }
            yield CloudResource(name, "vpc.SnatEntry", entry, after=("egress",))


def _logs(settings: AckSettings) -> Iterable[CloudResource]:
    if settings.logs:
        description = f"Control plane and audit of {settings.name}"
        inputs = {"project_name": settings.logs.project, "description": description, "tags": _tags(settings)}
        yield CloudResource("logs", "log.Project", inputs, "by use", protect=settings.deletion_protection)


def _key(settings: AckSettings) -> Iterable[CloudResource]:
    """The key of the Kubernetes Secrets. The disks use the service's own, which needs no grant and costs nothing."""
    if settings.encrypt_secrets:
        inputs = {
            "description": f"Kubernetes Secrets of {settings.name}",
            "key_spec": "Aliyun_AES_256",
            "deletion_protection": "Enabled" if settings.deletion_protection else "Disabled",
            "pending_window_in_days": 30,
            "tags": _tags(settings),
        }
        yield CloudResource("key", "kms.Key", inputs, "small", protect=settings.deletion_protection)


def _load_balancer(settings: AckSettings, network: CloudNetwork) -> Iterable[CloudResource]:
    """The ALB; its listeners and rules are the ingress controller's."""
    if settings.load_balancer:
        inputs = {
            "load_balancer_name": settings.name,
            "vpc_id": Ref("vpc"),
            "address_type": settings.load_balancer.address_type,
            "address_allocated_mode": "Fixed",
            "load_balancer_edition": "Standard",
            "load_balancer_billing_config": {"pay_type": "PayAsYouGo"},
            "zone_mappings": [
                {"zone_id": zone.id, "vswitch_id": switch}
                for zone, switch in zip(network.zones, _switch_refs(network, "nodes"), strict=True)
            ],
            "deletion_protection_config": {"enabled": settings.deletion_protection},
            "tags": _tags(settings),
        }
        protect = settings.deletion_protection
        yield CloudResource("load-balancer", "alb.LoadBalancer", inputs, "small", protect=protect)


def _shared_files(settings: AckSettings, network: CloudNetwork) -> Iterable[CloudResource]:
    files = settings.shared_files
    if files is None:
        return
    inputs = {
        "protocol_type": "NFS",
        "storage_type": files.storage_type,
        "file_system_type": "standard",
        # General-purpose NAS encrypts with a key that the service keeps; keys of one's own are the extreme type's.
        "encrypt_type": 1,
        "zone_id": network.zones[0].id,
        "description": settings.name,
        "tags": _tags(settings),
    }
    yield CloudResource("files", "nas.FileSystem", inputs, "by use", protect=settings.deletion_protection)
    group = {"access_group_name": settings.name, "access_group_type": "Vpc", "file_system_type": "standard"}
    yield CloudResource("files-access", "nas.AccessGroup", group)
    for zone in network.zones:
        for use, cidr in (("nodes", zone.nodes), ("pods", zone.pods)):
            rule = {
                "access_group_name": Ref("files-access", "access_group_name"),
                "source_cidr_ip": cidr,
                "rw_access_type": "RDWR",
                # Volumes are made, and given to their users, as root.
                "user_access_type": "no_squash",
                "priority": 1,
                "file_system_type": "standard",
            }
            yield CloudResource(f"files-from-{use}-{zone_letter(zone)}", "nas.AccessRule", rule)
    for zone, switch in list(zip(network.zones, _switch_refs(network, "nodes"), strict=True))[:NAS_MOUNT_TARGETS]:
        target = {
            "file_system_id": Ref("files"),
            "access_group_name": Ref("files-access", "access_group_name"),
            "network_type": "Vpc",
            "vpc_id": Ref("vpc"),
            "vswitch_id": switch,
        }
        name = f"files-in-{zone_letter(zone)}"
        yield CloudResource(name, "nas.MountTarget", target, protect=settings.deletion_protection)


_NETWORKING: Mapping[str, Any] = {"NetworkPolicy": "true"}
_AT_CREATION = {
    "terway-eniip": json.dumps(_NETWORKING),
    "csi-plugin": None,
    "csi-provisioner": None,
}
"""Add-ons without which the first node is of no use; ACK takes them at creation only."""


def _cluster(settings: AckSettings, network: CloudNetwork) -> CloudResource:
    window = settings.maintenance
    # Without a way out no node finds an image, or the cluster.
    after = ["egress", *(f"snat-{switch.resource}" for switch in _all_switches(network)), *_rules(network)]
    inputs: dict[str, Any] = {
        "name": settings.name,
        "cluster_spec": "ack.pro.small",
        "vswitch_ids": _switch_refs(network, "nodes"),
        "pod_vswitch_ids": _switch_refs(network, "pods"),
        "service_cidr": network.services,
        "security_group_id": Ref("security-group"),
        "proxy_mode": "ipvs",
        "new_nat_gateway": False,
        "slb_internet_enabled": settings.public_api,
        "enable_rrsa": True,
        "skip_set_certificate_authority": True,
        "deletion_protection": settings.deletion_protection,
        "addons": [{"name": name, **({"config": config} if config else {})} for name, config in _AT_CREATION.items()],
        "maintenance_window": {
            "enable": True,
            # Of the date only the time of day counts; it must not move from run to run.
            "maintenance_time": f"2026-01-01T{window.start}:00.000{window.offset}",
            "duration": f"{window.hours}h",
            "weekly_period": ",".join(window.days),
        },
        "operation_policy": {"cluster_auto_upgrade": {"enabled": settings.version is None, "channel": "patch"}},
        "tags": _tags(settings),
    }
    if settings.version:
        # The nodes follow within the window, each pool by its own limits.
        inputs |= {"version": settings.version, "upgrade_policy": {"control_plane_only": True}}
    if settings.encrypt_secrets:
        inputs |= {"disable_encryption": False, "encryption_provider_key": Ref("key")}
    if settings.logs:
        inputs |= {
            "control_plane_log_components": list(LOG_COMPONENTS),
            "control_plane_log_project": Ref("logs", "project_name"),
            "control_plane_log_ttl": str(settings.logs.days),
            "audit_log_config": {"enabled": True, "sls_project_name": Ref("logs", "project_name")},
        }
    return CloudResource(
        "control-plane",
        "cs.ManagedKubernetes",
        inputs,
        "medium",
        protect=settings.deletion_protection,
        after=tuple(after),
        # All three the cloud takes at creation only; a change would be told as done.
        ignore=("addons", "pod_vswitch_ids", "slb_internet_enabled"),
        minutes=90,
    )


def _all_switches(network: CloudNetwork) -> list[Ref]:
    return [*_switch_refs(network, "nodes"), *_switch_refs(network, "pods")]


def _add_ons(settings: AckSettings) -> Iterable[CloudResource]:
    logs = {"sls_project_name": settings.logs.project} if settings.logs else {}
    # The first of our Ingresses brings its AlbConfig; another one, made by default, would be a second balancer.
    balancer = {"albIngress": {"CreateDefaultALBConfig": False}}
    always: dict[str, AddOn] = {
        ALB_ADD_ON: AddOn(config=json.dumps(balancer)),
        "logtail-ds": AddOn(config=json.dumps({"IngressDashboardEnabled": "false", **logs})),
        # Both are what `autoRepair` of a node pool asks for.
        "ack-node-problem-detector": AddOn(config=json.dumps(logs)),
        "node-lifecycle-controller": AddOn(),
    }
    if not settings.has_alb_controller:
        del always[ALB_ADD_ON]
    if settings.logs is None:
        del always["logtail-ds"]
    for name, add_on in {**always, **_own(always, settings.add_ons)}.items():
        optional = {"version": add_on.version, "config": add_on.config}
        written = {key: value for key, value in optional.items() if value is not None}
        inputs = {"cluster_id": Ref("control-plane"), "name": name, **written}
        yield CloudResource(f"add-on-{name}", "cs.KubernetesAddon", inputs, minutes=20)


def _own(always: Mapping[str, AddOn], asked: Mapping[str, AddOn]) -> dict[str, AddOn]:
    """Return the add-ons that are asked for, each with what it does not say as it is built in."""
    return {
        name: always.get(name, AddOn()).model_copy(
            update={field: getattr(add_on, field) for field in add_on.model_fields_set}
        )
        for name, add_on in asked.items()
    }


def _autoscaling(settings: AckSettings) -> Iterable[CloudResource]:
    if settings.adds_nodes:
        inputs = {
            "cluster_id": Ref("control-plane"),
            "scaler_type": "cluster-autoscaler",
            "expander": "least-waste",
            "scale_down_enabled": True,
            "cool_down_duration": "10m",
            "unneeded_duration": "10m",
            "utilization_threshold": "0.5",
            "scan_interval": "30s",
            "skip_nodes_with_local_storage": False,
            "skip_nodes_with_system_pods": True,
        }
        yield CloudResource("autoscaling", "cs.AutoscalingConfig", inputs)


def _pool(settings: AckSettings, network: CloudNetwork, name: str, pool: NodePool) -> CloudResource:
    scales = pool.maximum > pool.minimum
    inputs: dict[str, Any] = {
        "cluster_id": Ref("control-plane"),
        "node_pool_name": name,
        "vswitch_ids": _switch_refs(network, "nodes"),
        "security_group_ids": [Ref("security-group")],
        "instance_types": list(pool.instance_types),
        "instance_charge_type": "PostPaid",
        "image_type": pool.image_type,
        "key_name": settings.key_pair,
        "system_disk_category": "cloud_essd",
        "system_disk_performance_level": pool.disk_performance,
        "system_disk_size": pool.disk_gib,
        "system_disk_encrypted": True,
        "multi_az_policy": "BALANCE",
        "install_cloud_monitor": True,
        # A pod that is taken over can't ask the machine for the credentials of its role.
        "instance_metadata_options": {"http_tokens": "required"},
        "management": {
            "enable": True,
            "auto_repair": True,
            "auto_repair_policy": {"restart_node": True},
            "auto_upgrade": True,
            "auto_upgrade_policy": {"auto_upgrade_kubelet": True},
            "auto_vul_fix": True,
            "auto_vul_fix_policy": {"vul_level": "asap", "restart_node": True},
            "max_unavailable": 1,
            "surge": SURGE_NODES,
        },
        "labels": [{"key": key, "value": value} for key, value in sorted(pool.labels.items())],
        "taints": [{"key": each.key, "value": each.value, "effect": each.effect} for each in pool.taints],
        "update_nodes": True,
        "tags": _tags(settings),
    }
    if scales:
        inputs["scaling_config"] = {"enable": True, "min_size": pool.minimum, "max_size": pool.maximum, "type": "cpu"}
    else:
        # Said, as what is left out stays as it was.
        inputs |= {"scaling_config": {"enable": False}, "desired_size": str(pool.minimum)}
    after = ("autoscaling",) if scales else ()
    return CloudResource(
        f"pool-{name}",
        "cs.NodePool",
        inputs,
        "large",
        protect=settings.deletion_protection,
        after=after,
        minutes=60,
    )
