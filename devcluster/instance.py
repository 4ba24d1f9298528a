"""What one embedded cluster is called and where it lives: names, addresses and paths. Pure.

An instance is numbered 0 to 9 and everything it takes on the machine follows from that number, so several
run side by side: the network `10.89.<id>.0/24` on the bridge `ppbr<id>` (host .1, hub .5, nodes .11 to .13,
.100 to .119 kept free for virtual addresses), pods in `10.<244+id>.0.0/16`, services in `10.<96+id>.0.0/16`.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

MAXIMUM_ID = 9
NODE_COUNT = 3
CONTEXT = "package-vms"
KUBERNETES_VERSION = "1.37.2"
REGISTRY_NAME = "harbor.package.test"
"""The registry's name in image references; the hub stands where a Harbor would."""
REGISTRY_PORT = 5000
API_PORT = 6443
VIRTUAL_ADDRESS = 100
"""The last part of the address that the committed stack `test` moves between the nodes."""


class UnknownMachineError(ValueError):
    """There is no node of that name."""


@dataclass(frozen=True)
class Machine:
    """One "VM": a set of namespaces that is cut off by killing its first process.

    Args:
        name: its host name, `n1` to `n3` or `hub`.
        address: its address on the instance's network.
        index: 1 to 3 for nodes, 0 for the hub.
        link: the host's end of its network cable.
        cgroup: the control group that its pods run under, relative to each hierarchy's root.
        directory: its disk, kept over power cuts and over `down`.
    """

    name: str
    address: IPv4Address
    index: int
    link: str
    cgroup: str
    directory: Path

    @property
    def is_node(self) -> bool:
        """Tell a Kubernetes node from the hub."""
        return self.index > 0

    @property
    def is_control_plane(self) -> bool:
        """Tell whether etcd and the control plane run here."""
        return self.index == 1


@dataclass(frozen=True)
class Instance:
    """One embedded cluster.

    Args:
        id: 0 to 9.
        root: the repository's root.
    """

    id: int
    root: Path
    state: Path = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.id <= MAXIMUM_ID:
            raise ValueError(f"instance id {self.id} is not allowed: choose 0 to {MAXIMUM_ID}")
        object.__setattr__(self, "state", self.root / ".dev" / "instances" / str(self.id))

    def neighbour(self, distance: int) -> "Instance":
        """Return the instance that is so many numbers further on; after 9 comes 0."""
        return Instance((self.id + distance) % (MAXIMUM_ID + 1), self.root)

    @property
    def binaries(self) -> Path:
        """Where the toolchain links its programs by their plain names."""
        return self.root / ".dev" / "bin"

    @property
    def logs(self) -> Path:
        """One file per component, `<machine>-<component>.log`."""
        return self.state / "log"

    @property
    def pki(self) -> Path:
        """Certificates and keys of the cluster."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's self-contained kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def services(self) -> tuple[Path, Path]:
        """Folders of what the demo runs on the host, Gitea and the job runner; their processes are marked with them."""
        return self.state / "gitea", self.state / "jobs"

    @property
    def network(self) -> IPv4Network:
        """The network of the machines."""
        return IPv4Network(f"10.89.{self.id}.0/24")

    @property
    def bridge(self) -> str:
        """The host's bridge that the machines are plugged into."""
        return f"ppbr{self.id}"

    @property
    def host_address(self) -> IPv4Address:
        """The host's address on the bridge."""
        return self.network[1]

    @property
    def pod_network(self) -> IPv4Network:
        """The network of all pods; every node has a /24 of it."""
        return IPv4Network(f"10.{244 + self.id}.0.0/16")

    @property
    def service_network(self) -> IPv4Network:
        """The network of cluster addresses of Services."""
        return IPv4Network(f"10.{96 + self.id}.0.0/16")

    @property
    def dns_address(self) -> IPv4Address:
        """The cluster address of the DNS Service."""
        return self.service_network[10]

    @property
    def hub(self) -> Machine:
        """The machine of the registry: apart from the nodes, so that no power cut takes the images away."""
        return self._machine("hub", 5, 0)

    @property
    def nodes(self) -> tuple[Machine, ...]:
        """The Kubernetes nodes; the first carries the control plane."""
        return tuple(self._machine(f"n{index}", 10 + index, index) for index in range(1, NODE_COUNT + 1))

    @property
    def machines(self) -> tuple[Machine, ...]:
        """The hub and the nodes, in the order in which they boot."""
        return (self.hub, *self.nodes)

    @property
    def registry_endpoint(self) -> str:
        """Where the host and the nodes reach the registry."""
        return f"http://{self.hub.address}:{REGISTRY_PORT}"

    @property
    def api_server(self) -> str:
        """The Kubernetes API."""
        return f"https://{self.nodes[0].address}:{API_PORT}"

    @property
    def ingress_addresses(self) -> tuple[str, ...]:
        """Where HTTP requests enter once the stack `test` is up: `ip:port` of its virtual addresses."""
        return (f"{self.network[VIRTUAL_ADDRESS]}:80",)

    def node(self, name: str) -> Machine:
        """Return the node called `name`.

        Raises:
            UnknownMachineError: there is none; the message lists those that there are.
        """
        for machine in self.nodes:
            if machine.name == name:
                return machine
        names = " ".join(machine.name for machine in self.nodes)
        raise UnknownMachineError(f"there is no node {name!r}: choose one of {names}")

    def pod_range(self, machine: Machine) -> IPv4Network:
        """Return the addresses of the pods of one node."""
        return IPv4Network(f"10.{244 + self.id}.{machine.index}.0/24")

    def _machine(self, name: str, host_part: int, index: int) -> Machine:
        return Machine(
            name=name,
            address=self.network[host_part],
            index=index,
            link=f"pp{self.id}{name}",
            cgroup=f"package-platform-{self.id}-{name}",
            directory=self.state / name,
        )
