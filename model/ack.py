"""A cluster on Alibaba Cloud (ACK): what a stack asks for, and what is refused before money is spent.

It is the part ``package-platform:cluster`` of a stack file. Form is checked field by field by the models; what a
cluster must be to carry production is checked by ``policy_problems``, all at once. Facts about the cloud are those of
pulumi-alicloud 4.0's own documentation unless another source stands beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import combinations
from math import ceil
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from model.fields import Count, DnsLabel, Frozen
from model.ingress import Network
from model.problems import nearest

MINIMUM_ZONES = 3
"""With three, the loss of one leaves two thirds of the nodes and a majority of whatever votes."""
RESERVED_PER_VSWITCH = 4
"""The first and the last three addresses of every vSwitch are the cloud's own.
https://www.alibabacloud.com/help/en/vpc/user-guide/create-and-manage-a-vswitch"""
BALANCER_ADDRESSES = 8
"""Free addresses that an ALB wants in each of its vSwitches, to grow.
https://www.alibabacloud.com/help/en/slb/application-load-balancer/user-guide/create-and-manage-alb-instances"""
CONTROL_PLANE_ADDRESSES = 4
"""Network interfaces of the control plane, and the balancer of its API, in one vSwitch."""
MINIMUM_SERVICES = 256
"""Addresses for Services; the range can't be changed later."""
NODE_SECONDS = 60
"""No node that is added on demand is there sooner: the autoscaler looks every 30 s, and a machine has to start."""
SURGE_NODES = 1
"""Nodes that a pool has more during an upgrade, so that none is missed."""
_VPC_PREFIXES = range(8, 29)
_VSWITCH_PREFIXES = range(16, 30)
_FORBIDDEN = tuple(map(IPv4Network, ("100.64.0.0/10", "224.0.0.0/4", "127.0.0.0/8", "169.254.0.0/16")))
"""Ranges that a VPC can't have."""
# https://www.alibabacloud.com/help/en/ack/product-overview/supported-regions
REGIONS = (
    "cn-beijing", "cn-chengdu", "cn-fuzhou", "cn-guangzhou", "cn-hangzhou", "cn-heyuan", "cn-hongkong",
    "cn-huhehaote", "cn-nanjing", "cn-qingdao", "cn-shanghai", "cn-shenzhen", "cn-wuhan-lr", "cn-wulanchabu",
    "cn-zhangjiakou", "cn-beijing-finance-1", "cn-shanghai-finance-1", "cn-shenzhen-finance-1", "cn-north-2-gov-1",
    "ap-northeast-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-3", "ap-southeast-5", "ap-southeast-6",
    "ap-southeast-7", "eu-central-1", "eu-west-1", "me-central-1", "me-east-1", "na-south-1", "us-east-1", "us-west-1",
)  # fmt: skip
"""Regions in which ACK Pro is offered."""
_CLUSTER_ID = re.compile(r"c[0-9a-z]{32}\Z")
_LOG_PROJECT = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\Z")
_INSTANCE_TYPE = re.compile(r"ecs\.[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+\Z")
_START = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]\Z")
_OFFSET = re.compile(r"[+-](0[0-9]|1[0-4]):[0-5][0-9]\Z")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
ALB_ADD_ON = "alb-ingress-controller"
"""The add-on without which nothing serves an AlbConfig."""

Day = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
Policy = Literal["zones", "publicApi", "deletionProtection", "spread", "logs"]
POLICIES: tuple[str, ...] = get_args(Policy)
"""What may be departed from, in writing. Overlapping or too small networks can't work, and have no exception."""


def _pattern(expression: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not expression.match(value):
            raise ValueError(f"{value!r} is no {what}")
        return value

    return AfterValidator(check)


ClusterId = Annotated[str, _pattern(_CLUSTER_ID, "id of an ACK cluster: c and 32 letters or digits")]
LogProjectName = Annotated[
    str,
    _pattern(
        _LOG_PROJECT, "name of a log project: 3 to 63 lower-case letters, digits and '-', none of these at an end"
    ),
]
InstanceType = Annotated[str, _pattern(_INSTANCE_TYPE, "instance type, such as ecs.g8i.xlarge")]
LabelKey = Annotated[str, _pattern(_LABEL_KEY, "key of a Kubernetes label")]
LabelValue = Annotated[
    str,
    _pattern(
        _LABEL_VALUE,
        "value of a Kubernetes label: at most 63 letters, digits, '-', '_' and '.', the last three not at an end",
    ),
]
Start = Annotated[str, _pattern(_START, "time of day, such as 02:00")]
Offset = Annotated[str, _pattern(_OFFSET, "offset from UTC, such as +08:00")]


class Zone(Frozen):
    """A zone with its two networks."""

    id: str = Field(min_length=1)
    """``cn-hangzhou-h``; outside China the letter follows the number, ``ap-southeast-1a``."""
    nodes: Network
    """vSwitch of the nodes, the control plane's interfaces and the load balancer."""
    pods: Network
    """vSwitch of the pods: with Terway each has an address of the VPC."""


class CloudNetwork(Frozen):
    """The cluster's own VPC."""

    cidr: Network
    """Of the VPC."""
    zones: tuple[Zone, ...] = Field(min_length=1)
    """Three or more. A later one is appended, and its pods' vSwitch given to Terway by hand (docs/how-to/prod.md); the
    order of those that are there stays."""
    services: Network
    """Of the Services: outside of the VPC, and never changed."""
    on_premise: tuple[Network, ...] = ()
    """Networks that are reached from here by VPN, CEN or peering."""
    egress_mbits: Annotated[int, Field(ge=1, le=200)] = 100
    """Greatest bandwidth of the one address by which nodes and pods reach the Internet, in Mbit/s; paid by traffic."""


class Taint(Frozen):
    """Keeps pods away that do not tolerate it."""

    key: LabelKey
    """The taint's name, as a pod's toleration has it."""
    value: LabelValue = ""
    """Its value; empty for a taint that is told by its name alone."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"
    """``NoSchedule``: no new pod comes without a toleration; ``PreferNoSchedule``: only where no other node has room;
    ``NoExecute``: pods that are there leave, too."""


class NodePool(Frozen):
    """Nodes of one kind, spread over the zones."""

    instance_types: tuple[InstanceType, ...] = Field(min_length=1)
    """By preference; several, so that one that is sold out in a zone stops nothing."""
    minimum: Count
    """Nodes that are always there."""
    maximum: Annotated[int, Field(ge=1, le=1000)]
    """Nodes to which it grows; the same as ``minimum`` for a pool that does not scale."""
    pods_per_node: Annotated[int, Field(ge=1, le=256)]
    """Pods that one node may carry; with Terway a matter of the instance type's network interfaces. It decides how
    large the pods' vSwitches must be."""
    disk_gib: Annotated[int, Field(ge=40, le=500)] = 120
    """System disk, an ESSD."""
    disk_performance: Literal["PL0", "PL1", "PL2", "PL3"] = "PL1"
    """Its performance level: 10,000, 50,000, 100,000 or 1,000,000 random operations a second at most."""
    image_type: Literal["AliyunLinux3ContainerOptimized", "AliyunLinux3", "ContainerOS"] = (
        "AliyunLinux3ContainerOptimized"
    )
    """Operating system."""
    labels: Mapping[LabelKey, LabelValue] = Field(default_factory=dict)
    """Of its nodes. Our own proxies ask for none: on ACK they are of ``kind: nlb`` and run on any node."""
    taints: tuple[Taint, ...] = ()
    """Of its nodes."""


class Maintenance(Frozen):
    """When the cloud may upgrade and patch."""

    days: tuple[Day, ...] = Field(default=("Tuesday", "Wednesday", "Thursday"), min_length=1)
    """Days of the week."""
    start: Start = "02:00"
    """Time of day at which it begins."""
    offset: Offset = "+08:00"
    """The time's distance from UTC."""
    hours: Annotated[int, Field(ge=1, le=24)] = 4
    """How long it is."""


class Logs(Frozen):
    """Where the control plane and the audit write."""

    project: LogProjectName
    """Project of the Simple Log Service; its name is unique in all of Alibaba Cloud."""
    days: Annotated[int, Field(ge=1, le=3650)] = 180
    """How long they are kept. China's Cybersecurity Law, article 21, asks for six months of network logs."""


class AddOn(Frozen):
    """An add-on of ACK besides those that are always there, or what differs of one of those.

    A field that is left out stays as it is built in; null takes it away.
    """

    version: str | None = None
    """None for the one that ACK offers at creation; later upgrades are then made in the console."""
    config: str | None = None
    """JSON, as its schema in ACK has it."""


class SharedFiles(Frozen):
    """A NAS file system, for volumes that several pods write to."""

    storage_type: Literal["Performance", "Capacity", "Premium"] = "Performance"
    """General-purpose NAS by speed and price."""


class LoadBalancer(Frozen):
    """The ALB, made beside the cluster so that its address outlives it."""

    address_type: Literal["Internet", "Intranet"] = "Internet"
    """Whether it has addresses in the Internet."""


class AckSettings(Frozen):
    """A cluster that the stack makes, or, with ``existing``, one that is there."""

    kind: Literal["ack"]
    """A managed cluster of Alibaba Cloud."""
    name: DnsLabel
    """Name of the cluster and beginning of all names in the cloud. It also identifies the cluster for the objects in
    it: a new credential or endpoint replaces none of them, another name would replace all."""
    region: str = Field(min_length=1)
    """``cn-hangzhou``."""
    existing: ClusterId | None = None
    """A cluster that is there. Nothing in the cloud is made then, and the fields below have no place."""
    credential: Literal["temporary", "plugin"] = "temporary"
    """How the cluster is entered. ``temporary``: with a credential that soon expires, kept encrypted in the state; a
    release of one project can't renew it. ``plugin``: the program ``ack-ram-tool`` gives one whenever it is needed, and
    none is in the state; it has to be installed wherever ``pulumi`` and ``release`` run."""
    credential_minutes: Annotated[int, Field(ge=30, le=4320)] = 120
    """How long a credential lives. It is renewed by the first run that finds less than half of this left, so a half has
    to be longer than a run, and not below the 15 minutes that a release of one project wants left."""
    version: str | None = Field(default=None, pattern=r"^1\.[0-9]+\.[0-9]+-aliyun\.[0-9]+$")
    """Kubernetes, as ACK names it: ``1.34.1-aliyun.1``. Raising it upgrades the control plane at once, and the nodes
    within ``maintenance``; None takes the newest and lets ACK upgrade within ``maintenance``, patch versions only."""
    network: CloudNetwork | None = None
    """The VPC."""
    node_pools: Mapping[DnsLabel, NodePool] = Field(default_factory=dict)
    """Name → nodes."""
    key_pair: str | None = Field(default=None, min_length=1)
    """Name of an SSH key pair that is there, for the nodes."""
    maintenance: Maintenance = Maintenance()
    """When the cloud may upgrade and patch."""
    logs: Logs | None = None
    """Where the control plane and the audit write."""
    add_ons: Mapping[DnsLabel, AddOn] = Field(default_factory=dict)
    """More add-ons, or another version or configuration of those that are always there."""
    shared_files: SharedFiles | None = SharedFiles()
    """The NAS file system; null for none."""
    load_balancer: LoadBalancer | None = LoadBalancer()
    """The ALB, and the add-on that serves it; null for none. An ``ingress.ha`` of ``kind: alb`` with ``vSwitches`` of
    its own then needs ``addOns: {alb-ingress-controller: {}}``."""
    encrypt_secrets: bool = True
    """Whether Kubernetes Secrets are encrypted with a KMS key of their own; false where KMS is not offered."""
    deletion_protection: bool = True
    """Whether cloud and Pulumi refuse to delete what must not be lost."""
    public_api: bool = False
    """Whether the API server can be reached from the Internet. ACK heeds it when it makes the cluster; its console
    decides later, and this, as with ``existing``, is whether it is reached that way."""
    exceptions: Mapping[Policy, str] = Field(default_factory=dict[Policy, str])
    """Policy that is departed from → why."""

    @property
    def makes_load_balancer(self) -> bool:
        """Whether the stack makes an ALB beside the cluster."""
        return self.existing is None and self.load_balancer is not None

    @property
    def adds_nodes(self) -> bool:
        """Whether nodes are added to a cluster that the stack makes when pods find no room."""
        return any(pool.maximum > pool.minimum for pool in self.node_pools.values())

    @property
    def has_alb_controller(self) -> bool:
        """Whether a cluster that the stack makes has what serves an AlbConfig."""
        return self.load_balancer is not None or ALB_ADD_ON in self.add_ons


class Connection(Frozen):
    """What an earlier run knew of the cluster, from the stack's outputs."""

    id: str
    """Of the cluster."""
    endpoint: str
    """URL of its API."""
    kubeconfig: str
    """The credential that was in use."""
    expires: str
    """When that expires, RFC 3339; empty for one without a credential in it."""


@dataclass(frozen=True)
class Finding:
    """What a policy objects to.

    Args:
        field: Path below ``package-platform:cluster``.
        message: What is wrong and what is allowed, in one line.
    """

    field: str
    message: str


def policy_problems(settings: AckSettings) -> list[Finding]:
    """Return all that is wrong with a cluster; empty when it may be made."""
    found = _region(settings)
    if settings.existing:
        return found + _superfluous(settings)
    found += _missing(settings)
    if settings.network:
        found += [*_zones(settings, settings.network), *_networks(settings.network)]
        found += [*_capacity(settings, settings.network)]
    found += _pools(settings)
    for policy, finding in _departures(settings):
        if policy not in settings.exceptions:
            found.append(Finding(finding.field, f"{finding.message}, or write why under exceptions.{policy}"))
    reasons = settings.exceptions.items()
    return found + [Finding(f"exceptions.{name}", "say why, in words") for name, why in reasons if not why.strip()]


def _region(settings: AckSettings) -> list[Finding]:
    if settings.region in REGIONS:
        return []
    return [Finding("region", f"{settings.region!r} is no region with ACK Pro{nearest(settings.region, REGIONS)}")]


_BESIDE_EXISTING = {"kind", "name", "region", "existing", "credential", "credential_minutes", "public_api"}


def _superfluous(settings: AckSettings) -> list[Finding]:
    written = settings.model_fields_set - _BESIDE_EXISTING
    names = sorted(AckSettings.model_fields[name].alias or name for name in written)
    return [Finding(name, "has no place beside existing: that cluster is there already") for name in names]


def _missing(settings: AckSettings) -> list[Finding]:
    needed = {"network": settings.network, "nodePools": settings.node_pools, "keyPair": settings.key_pair}
    return [Finding(name, "is required without existing") for name, value in needed.items() if not value]


def _zones(settings: AckSettings, network: CloudNetwork) -> list[Finding]:
    # After a region that ends with a number the letter follows at once: ap-southeast-1a, but cn-hangzhou-h.
    stem = settings.region if settings.region[-1].isdigit() else f"{settings.region}-"
    found = [
        Finding(f"network.zones.{index}.id", f"{zone.id!r} is no zone of {settings.region}: {stem} and a letter")
        for index, zone in enumerate(network.zones)
        if not re.fullmatch(rf"{re.escape(stem)}[a-z]", zone.id)
    ]
    ids = [zone.id for zone in network.zones]
    return found + [
        Finding(f"network.zones.{index}.id", f"{zone!r} is there twice")
        for index, zone in enumerate(ids)
        if zone in ids[:index]
    ]


def _networks(network: CloudNetwork) -> list[Finding]:
    vpc = IPv4Network(network.cidr)
    switches = dict(_switches(network))
    found: list[Finding] = []
    if vpc.prefixlen not in _VPC_PREFIXES:
        found.append(Finding("network.cidr", f"{vpc} is no VPC: /{_VPC_PREFIXES[0]} to /{_VPC_PREFIXES[-1]}"))
    for field, part in switches.items():
        if not part.subnet_of(vpc):
            found.append(Finding(field, f"{part} is not in the VPC's {vpc}"))
        if part.prefixlen not in _VSWITCH_PREFIXES:
            allowed = f"/{_VSWITCH_PREFIXES[0]} to /{_VSWITCH_PREFIXES[-1]}"
            found.append(Finding(field, f"{part} is no vSwitch: {allowed}"))
    services = IPv4Network(network.services)
    if services.num_addresses < MINIMUM_SERVICES:
        message = f"{services} has {services.num_addresses} addresses and can't be changed later: at least"
        found.append(Finding("network.services", f"{message} {MINIMUM_SERVICES}"))
    found += [
        Finding(field, f"{part} is in {taken}, which Alibaba Cloud uses itself")
        for field, part in (("network.cidr", vpc), ("network.services", services))
        for taken in _FORBIDDEN
        if part.overlaps(taken)
    ]
    elsewhere = {f"network.onPremise.{index}": IPv4Network(each) for index, each in enumerate(network.on_premise)}
    return found + _overlaps(switches) + _overlaps({"network.cidr": vpc, "network.services": services, **elsewhere})


def _switches(network: CloudNetwork) -> Iterable[tuple[str, IPv4Network]]:
    for index, zone in enumerate(network.zones):
        yield f"network.zones.{index}.nodes", IPv4Network(zone.nodes)
        yield f"network.zones.{index}.pods", IPv4Network(zone.pods)


def _overlaps(networks: Mapping[str, IPv4Network]) -> list[Finding]:
    return [
        Finding(second, f"{networks[second]} overlaps {networks[first]} of {first}")
        for first, second in combinations(networks, 2)
        if networks[first].overlaps(networks[second])
    ]


def nodes_in_one_zone(pool: NodePool, zones: int) -> int:
    """Return the nodes of a pool that one zone needs room for: grown, one zone lost, one more during an upgrade."""
    return ceil(pool.maximum / max(zones - 1, 1)) + SURGE_NODES


def _capacity(settings: AckSettings, network: CloudNetwork) -> list[Finding]:
    pools = settings.node_pools.values()
    in_zone = [nodes_in_one_zone(pool, len(network.zones)) for pool in pools]
    nodes, pods = sum(in_zone), sum(n * pool.pods_per_node for n, pool in zip(in_zone, pools, strict=True))
    beside = CONTROL_PLANE_ADDRESSES + (BALANCER_ADDRESSES if settings.load_balancer else 0)
    asked = {"nodes": (nodes + beside, f"{nodes} nodes and {beside} interfaces"), "pods": (pods, f"{pods} pods")}
    return [
        Finding(field, f"{part} has {part.num_addresses - RESERVED_PER_VSWITCH} addresses of use, too few for {what} "
                f"when a zone is lost: /{_prefix_for(needed)} or larger")
        for field, part in _switches(network)
        for needed, what in (asked[field.rsplit(".", 1)[1]],)
        if part.num_addresses - RESERVED_PER_VSWITCH < needed
    ]  # fmt: skip


def _prefix_for(addresses: int) -> int:
    return 32 - (addresses + RESERVED_PER_VSWITCH - 1).bit_length()


def _pools(settings: AckSettings) -> list[Finding]:
    return [
        Finding(f"nodePools.{name}.maximum", f"{pool.maximum} is less than its minimum, {pool.minimum}")
        for name, pool in settings.node_pools.items()
        if pool.maximum < pool.minimum
    ]


def _departures(settings: AckSettings) -> Sequence[tuple[Policy, Finding]]:
    """Return what may be departed from, in writing."""
    found: list[tuple[Policy, Finding]] = []
    zones = len(settings.network.zones) if settings.network else MINIMUM_ZONES
    if zones < MINIMUM_ZONES:
        message = f"{zones} of {MINIMUM_ZONES} zones: name {MINIMUM_ZONES} or more"
        found.append(("zones", Finding("network.zones", message)))
    if settings.public_api:
        message = "would put the API server into the Internet: reach it through the VPC"
        found.append(("publicApi", Finding("publicApi", message)))
    if not settings.deletion_protection:
        message = "one command could delete the cluster with its data: leave it true"
        found.append(("deletionProtection", Finding("deletionProtection", message)))
    if settings.logs is None:
        message = "without a log project nobody can tell who did what: name one"
        found.append(("logs", Finding("logs", message)))
    for name, pool in settings.node_pools.items():
        if pool.minimum < zones:
            message = f"{pool.minimum} nodes can't be spread over {zones} zones: {zones} or more"
            found.append(("spread", Finding(f"nodePools.{name}.minimum", message)))
    return found
