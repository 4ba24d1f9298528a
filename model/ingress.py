"""The way into a cluster without a single point of failure: part ``ingress.ha`` of an environment.

There is one per cluster, for the host ports 80 and 443 exist once per node: the stack that declares it owns it, and
other environments on the same cluster name the same class and address.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from model.fields import Count, DnsLabel, Frozen, HostName, Percent, Port, Quantity, Seconds, quantity_value
from model.problems import several

MINIMUM_NODES = 2
MAXIMUM_VIPS = 16
HAND_OVER_MARGIN_SECONDS = 4
"""What a planned move takes besides: noticing that the proxy ends, holding new connections back, the move itself."""
# Linux: IFNAMSIZ is 16 with the final zero; dev_valid_name() refuses '/', ':' and white space.
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,14}\Z")
_CLOUD_ID = re.compile(r"[a-z]+-[a-z0-9]+\Z")
_IMAGE = re.compile(r"[a-z0-9]+([._/-][a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(@sha256:[0-9a-f]{64})?\Z")


def _ipv4(value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise ValueError(f"{value!r} is no IPv4 address, such as 10.0.0.10") from None


def _network(value: str) -> str:
    try:
        return str(IPv4Network(value))
    except ValueError:
        raise ValueError(f"{value!r} is no IPv4 network, such as 10.0.0.0/24 with no bits set behind it") from None


def _interface(value: str) -> str:
    if not _INTERFACE.match(value):
        raise ValueError(
            f"{value!r} is no network interface, such as eth0: at most 15 letters, digits, '.', '_', '-', '@'"
        )
    return value


def _image(value: str) -> str:
    if not _IMAGE.match(value):
        raise ValueError(f"{value!r} is no image below the registry: repository:tag, such as sys/traefik:3.7.10")
    return value


def _cloud_id(value: str) -> str:
    if not _CLOUD_ID.match(value):
        raise ValueError(f"{value!r} is no id of Alibaba Cloud, such as vsw-bp1abc")
    return value


Ipv4 = Annotated[str, AfterValidator(_ipv4)]
"""An IPv4 address."""
Network = Annotated[str, AfterValidator(_network)]
"""An IPv4 network in CIDR form."""
Interface = Annotated[str, AfterValidator(_interface)]
"""A network interface of a node."""
SystemImage = Annotated[str, AfterValidator(_image)]
"""An image below the environment's registry, with its tag."""
CloudId = Annotated[str, AfterValidator(_cloud_id)]
"""An id that Alibaba Cloud has given."""
RouterId = Annotated[int, Field(ge=1, le=255)]
"""A VRRP virtual router id (RFC 5798: 1 to 255), used once per network segment."""


class ProxyResources(Frozen):
    """What one proxy may use."""

    cpu: Quantity = "100m"
    """CPU that is set aside; there is no limit, so that load is answered with what is free."""
    memory: Quantity = "128Mi"
    """Memory that is set aside."""
    memory_limit: Quantity = "512Mi"
    """Memory at which it is ended."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if quantity_value(self.memory) > quantity_value(self.memory_limit):
            raise ValueError(f"memory {self.memory} is over memoryLimit {self.memory_limit}")
        return self


class ProxySettings(Frozen):
    """Traefik, with its provider for the nginx annotations."""

    image: SystemImage = "sys/traefik:3.7.10"
    """Its image below the environment's registry. The nginx provider is Traefik's since 3.6."""
    access_log: Literal["all", "problems", "off"] = "all"
    """``all`` requests, only ``problems`` (status 400 and more, slower than a second, or retried), or none; JSON on
    standard output. Health checks are never logged."""
    read_seconds: Seconds = 600
    """How long a client may take to send a whole request, its body included: a large upload too. nginx's
    ``client_body_timeout`` counts between two reads instead."""
    idle_seconds: Seconds = 180
    """How long an idle connection of a client is kept."""
    backend_read_seconds: Seconds = 60
    """How long an application may be silent before the proxy answers 504."""
    body_bytes: Annotated[int, Field(ge=0)] = 0
    """Largest body of a request that is let through; 0 for no limit but the application's own. Traefik can limit only
    what it buffers, and can then not repeat an idempotent request that failed after it was sent (it would allocate
    this much memory for every request): one or the other."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose ``X-Forwarded-*`` headers are believed: a load balancer in front. From anyone else they are
    replaced by what the proxy sees. With ``kind: nlb`` also those whose PROXY protocol is believed, and required: the
    networks of its vSwitches, from which the balancer speaks to the proxies."""
    tries: Annotated[int, Field(ge=1, le=64)] = 24
    """How often a request that could not be sent, or an idempotent one that failed, is tried. Each try takes the next
    pod in turn, whoever asks: of two pods with one dead, a try meets the dead one by a chance of a half, so three tries
    would lose an eighth of the requests and 24 lose one in 16 million."""
    tries_seconds: Seconds = 30
    """After this long no further try is begun; a try at a pod that does not answer takes a second at most."""
    tcp_retries: Annotated[int, Field(ge=3, le=15)] | None = None
    """``net.ipv4.tcp_retries2`` of the proxy's pod: how long it waits on a connection to a pod that no longer
    acknowledges anything. 3 is about 3 seconds; the kernel's 15 is a quarter of an hour, which the time-out of the
    application cuts to ``backendReadSeconds``. The kubelet must allow this sysctl (``allowedUnsafeSysctls``). Not with
    ``kind: nlb``, whose namespace admits no pod that has it."""
    accept_seconds: Annotated[int, Field(ge=2, le=300)] = 10
    """After the stop signal it goes on accepting for this long while its health answer is 503: the VIP moves first."""
    drain_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Then it accepts no more and finishes what it has begun, for at most this long."""
    resources: ProxyResources = ProxyResources()
    """What each may use."""


class Tls(Frozen):
    """HTTPS with one certificate for all hosts; an Ingress may still name its own."""

    secret: DnsLabel
    """A ``kubernetes.io/tls`` Secret in the ingress's namespace. A renewed one is taken up without a restart."""
    redirect: bool = True
    """Whether plain HTTP is answered with a redirect to HTTPS."""


class IngressNode(Frozen):
    """A node that carries the ingress."""

    name: HostName
    """Its name in Kubernetes."""
    address: Ipv4
    """Its own address on ``network``."""


class Vip(Frozen):
    """An address that moves between nodes."""

    address: Ipv4
    """The address; it belongs to no machine."""
    router_id: RouterId
    """Tells it from other VRRP groups on the same network segment: ask whoever runs that network for a free one."""


class Lvs(Frozen):
    """IPVS in front of the proxies: the holder of a VIP is to spread connections over all ingress nodes.

    Never run, and it may do nothing: see docs/how-to/ha-ingress.md.
    """

    mode: Literal["DR", "NAT"] = "DR"
    """``DR``: answers go to the client directly (the nodes must not answer ARP for the VIP). ``NAT``: they come back
    through the holder, which must be the other nodes' way out."""
    scheduler: Literal["rr", "wrr", "lc", "wlc", "sh", "mh"] = "wlc"
    """How a node is chosen."""
    persistence_seconds: Seconds = 0
    """How long a client stays with its node; 0 for not at all."""


class VipIngress(Frozen):
    """A proxy and keepalived on every ingress node of a cluster of VMs."""

    kind: Literal["keepalived"]
    """VIPs that move by VRRP."""
    namespace: DnsLabel = "package-ingress"
    """Namespace of all its objects."""
    network: Network
    """The network of the nodes and of the VIPs."""
    interface: Interface = "eth0"
    """The nodes' interface on it."""
    nodes: tuple[IngressNode, ...]
    """The ingress nodes; they also carry the label ``package-platform/ingress=true``."""
    vips: tuple[Vip, ...]
    """The addresses. VIP *i* prefers node *i*: with several, several nodes carry traffic."""
    preempt: bool = False
    """Whether a VIP goes back to the node that it prefers once that is well. Each move breaks its open connections,
    so it stays by default; turn it on where several VIPs shall spread over the nodes again by themselves."""
    hand_over_seconds: Annotated[int, Field(ge=1, le=290)] = 5
    """Before a VIP moves on purpose, its node's proxy ends every connection with the next answer for so long: clients
    that send something at least this often notice nothing. A VIP that moves because of a failure does not wait."""
    keepalived_image: SystemImage = "sys/keepalived:2.2.7-2"
    """keepalived's image below the environment's registry, with ``busybox``, ``nft`` and ``conntrack`` in it."""
    proxy: ProxySettings = ProxySettings()
    """The proxy."""
    tls: Tls | None = None
    """HTTPS; without it only plain HTTP is served."""
    lvs: Lvs | None = None
    """IPVS in front; refused at start on a node whose kernel lacks it. Never run, and it may do nothing, as the host
    ports of the proxies come before it: see docs/how-to/ha-ingress.md."""

    @model_validator(mode="after")
    def _checked(self) -> VipIngress:
        problems = {
            "nodes": self._node_problems(),
            "vips": self._vip_problems(),
            "handOverSeconds": self._hand_over_problems(),
        }
        if any(problems.values()):
            raise several(problems)
        return self

    def _node_problems(self) -> list[str]:
        problems: list[str] = []
        if len(self.nodes) < MINIMUM_NODES:
            problems.append(f"a single point of failure: name {MINIMUM_NODES} ingress nodes or more")
        for what, values in (("name", [n.name for n in self.nodes]), ("address", [n.address for n in self.nodes])):
            problems += [f"the {what} {value} is there twice" for value in _doubled(values)]
        problems += [
            f"{node.name} has {node.address}, which is no host of the network {self.network}"
            for node in self.nodes
            if not self._is_host(node.address)
        ]
        return problems

    def _vip_problems(self) -> list[str]:
        names = {node.address: node.name for node in self.nodes}
        if not 0 < len(self.vips) <= MAXIMUM_VIPS:
            return [f"name 1 to {MAXIMUM_VIPS} addresses"]
        problems = [f"{value} is there twice" for value in _doubled([vip.address for vip in self.vips])]
        problems += [
            f"routerId {value} is there twice: each VIP has its own"
            for value in _doubled([str(vip.router_id) for vip in self.vips])
        ]
        for vip in self.vips:
            if not self._is_host(vip.address):
                problems.append(f"{vip.address} is no host of the network {self.network}")
            if vip.address in names:
                problems.append(f"{vip.address} is the address of {names[vip.address]}: choose one of no machine")
        return problems

    def _hand_over_problems(self) -> list[str]:
        needed = self.hand_over_seconds + HAND_OVER_MARGIN_SECONDS
        accepts = self.proxy.accept_seconds
        if needed <= accepts:
            return []
        return [f"the VIP leaves within {needed} s, but the proxy accepts for {accepts} s: raise proxy.acceptSeconds"]

    def _is_host(self, address: str) -> bool:
        network = IPv4Network(self.network)
        return IPv4Address(address) in network and IPv4Address(address) not in {
            network.network_address,
            network.broadcast_address,
        }

    @property
    def entry(self) -> str:
        """The host name or address by which clients come in."""
        return self.vips[0].address


class AlbIngress(Frozen):
    """Alibaba Cloud's ALB on ACK: the cloud is the proxy, in several zones."""

    kind: Literal["alb"]
    """An Application Load Balancer, made by the ALB Ingress controller."""
    name: DnsLabel = "package-platform"
    """Name of its AlbConfig, which is not in a namespace."""
    v_switches: tuple[CloudId, ...] = ()
    """One vSwitch in each zone, in two zones or more. None where the stack makes the cluster: the ALB beside it is
    taken."""
    address_type: Literal["Internet", "Intranet"] = "Internet"
    """Whether it has addresses in the Internet."""
    edition: Literal["Basic", "Standard", "StandardWithWaf"] = "Standard"
    """Its edition."""
    certificate_ids: tuple[str, ...] = ()
    """Certificates of the HTTPS listener, by their id in the certificate service; without them there is only HTTP."""
    idle_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    """How long an idle connection is kept."""
    request_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    """How long an application may take to answer."""

    @model_validator(mode="after")
    def _checked(self) -> AlbIngress:
        doubled = _doubled(self.v_switches)
        if len(self.v_switches) == 1:
            raise ValueError("vSwitches: one is a single point of failure: name one in each of two zones or more")
        if doubled:
            raise ValueError(f"vSwitches: {doubled[0]} is there twice: one for each zone")
        return self


class NlbIngress(Frozen):
    """Alibaba Cloud's NLB on ACK in front of our own proxies."""

    kind: Literal["nlb"]
    """A Network Load Balancer, made by the cloud controller manager for a Service."""
    namespace: DnsLabel = "package-ingress"
    """Namespace of all its objects."""
    zones: tuple[str, ...] = Field(min_length=2)
    """``<zone>:<vSwitch>`` each, such as ``cn-hangzhou-h:vsw-bp1abc``, in two zones or more."""
    address_type: Literal["internet", "intranet"] = "internet"
    """Whether it has addresses in the Internet."""
    replicas: Annotated[Count, Field(ge=2)] = 3
    """Number of proxies, spread over the zones."""
    max_unavailable: Percent = 33
    """How many of the proxies may be away during an eviction, in percent; Kubernetes rounds up to whole ones."""
    proxy: ProxySettings = ProxySettings()
    """The proxy; its ``trustedProxies`` is required: else logs and ``X-Forwarded-For`` would show the balancer."""
    tls: Tls | None = None
    """HTTPS, ended by the proxy."""

    @model_validator(mode="after")
    def _checked(self) -> NlbIngress:
        bad = [zone for zone in self.zones if not re.match(r"[a-z]+(-[a-z0-9]+)+:vsw-[a-z0-9]+\Z", zone)]
        if bad:
            raise ValueError(f"zones: {bad[0]!r} is not zone:vSwitch, such as cn-hangzhou-h:vsw-bp1abc")
        doubled = _doubled([zone.split(":")[0] for zone in self.zones])
        if doubled:
            raise ValueError(f"zones: {doubled[0]} is there twice")
        if self.proxy.tcp_retries is not None:
            raise ValueError(
                'proxy.tcpRetries: has no place with kind: nlb, whose namespace is "restricted" and admits no pod with '
                "that sysctl: remove it"
            )
        if not self.proxy.trusted_proxies:
            raise ValueError(
                "proxy.trustedProxies: is required with kind: nlb, or the balancer is taken for every client: name the "
                "networks of the vSwitches in zones"
            )
        return self


HaIngressSettings = Annotated[VipIngress | AlbIngress | NlbIngress, Field(discriminator="kind")]
"""One of the ways in."""
KINDS = ("keepalived", "alb", "nlb")
"""Their tags; pydantic puts them into the paths of its findings."""


def _doubled(values: Sequence[str]) -> list[str]:
    return sorted({value for value in values if list(values).count(value) > 1})


HTTP_PORT: Port = 80
HTTPS_PORT: Port = 443
