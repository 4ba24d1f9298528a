"""What runs in a machine and with which settings: from an instance to files and command lines. Pure.

Inside its mount namespace a machine sees fixed paths, wherever the checkout lies: its disk as `/run/node`,
the certificates as `/run/pki`, the programs as `/run/bin`; `/run` and `/var` are fresh at every boot, as
after a real power cut, and nothing is ever written to the host's own.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from devcluster.instance import API_PORT, REGISTRY_NAME, REGISTRY_PORT, Instance, Machine

TEMPLATES = Path(__file__).resolve().parent / "templates"
HYPERKUBE = "/run/bin/hyperkube"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
NEIGHBOUR_SYSCTLS = {
    "net.ipv4.neigh.eth0.base_reachable_time_ms": "1000",
    "net.ipv4.neigh.eth0.delay_first_probe_time": "1",
    "net.ipv4.neigh.eth0.retrans_time_ms": "100",
    # For the bridge of the pods, which is made later.
    "net.ipv4.neigh.default.retrans_time_ms": "100",
}
"""A node that is gone is noticed within about 3 s; from then on a connection to its pods fails in 0.3 s, as one to a
pod that is gone does (docs/how-to/vm-cluster.md)."""
API_WATCH_ENVIRONMENT = {"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "3", "HTTP2_PING_TIMEOUT_SECONDS": "2"}
"""How soon a program notices that the API server it watches lost its power, and connects anew: client-go's own 30 s and
15 s leave kube-proxy on the nodes that stay with addresses of pods that are gone
(https://pkg.go.dev/k8s.io/apimachinery/pkg/util/net, `readIdleTimeoutSeconds`)."""
API_READY = {"https": f"https://{{address}}:{API_PORT}/readyz", "ca": "/run/pki/ca.crt"}


@dataclass(frozen=True)
class HostPrograms:
    """Where the host keeps the programs that the operating system supplies.

    Args:
        containerd: its daemon.
        runc: the runtime below it.
        cni_plugins: the directory of bridge, host-local and portmap.
    """

    containerd: str
    runc: str
    cni_plugins: str


@dataclass(frozen=True)
class Component:
    """One supervised program of a machine.

    Args:
        name: for its log file and for messages.
        command: its argument list; a secret is never part of one.
        wait: what must be there before it starts: `{"socket": path}` or `{"https": url, "ca": file}`.
        environment: added to the machine's.
    """

    name: str
    command: list[str]
    wait: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    environment: dict[str, str] = field(default_factory=dict[str, str])


def boot_plan(instance: Instance, machine: Machine, programs: HostPrograms) -> dict[str, Any]:
    """Return what the machine's first process does, as plain JSON values (read by `node_init.py`)."""
    binds = {"/run/node": str(machine.directory), "/run/log": str(instance.logs)}
    binaries = ["registry"]
    sysctls: dict[str, str] = {}
    if machine.is_node:
        binds["/run/pki"] = str(instance.pki)
        binaries = ["hyperkube"]
        # Bridged pod traffic must pass the Service rules, also between two pods of one node.
        sysctls = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1", **NEIGHBOUR_SYSCTLS}
    for name in binaries:
        binds[f"/run/bin/{name}"] = str((instance.binaries / name).resolve())
    return {
        "hostname": machine.name,
        "binds": binds,
        "sysctls": sysctls,
        "components": [asdict(component) for component in components(instance, machine, programs)],
    }


def components(instance: Instance, machine: Machine, programs: HostPrograms) -> list[Component]:
    """Return the machine's programs in the order in which they start."""
    if not machine.is_node:
        command = ["/run/bin/registry", "serve", "/run/node/registry.yaml"]
        return [Component("registry", command, environment={"OTEL_TRACES_EXPORTER": "none"})]
    ready = {key: value.format(address=instance.nodes[0].address) for key, value in API_READY.items()}
    watch = API_WATCH_ENVIRONMENT
    agents = [
        Component("containerd", [programs.containerd, "--config", "/run/node/containerd.toml"]),
        Component("kube-proxy", _hyperkube("kube-proxy", config="/run/node/kube-proxy.yaml"), [ready], watch),
        Component("kubelet", _kubelet(machine), [{"socket": CONTAINERD_SOCKET}, ready], watch),
    ]
    if not machine.is_control_plane:
        return agents
    controllers = [
        Component("controller-manager", _controller_manager(instance), [ready]),
        Component("scheduler", _scheduler(), [ready]),
    ]
    return [Component("etcd", _etcd()), Component("apiserver", _apiserver(instance)), *agents, *controllers]


def files(instance: Instance, machine: Machine, programs: HostPrograms, secret: str) -> dict[Path, str]:
    """Return the machine's configuration files: path on the host → content.

    Args:
        instance: the cluster.
        machine: one of its machines.
        programs: the host's programs.
        secret: what the registry signs upload states with; a new one for every boot.
    """
    values = {
        "name": machine.name,
        "address": str(machine.address),
        "cgroup": machine.cgroup,
        "registry": REGISTRY_NAME,
        "endpoint": instance.registry_endpoint,
        "port": str(REGISTRY_PORT),
        "secret": secret,
        "dns_address": str(instance.dns_address),
        "pod_network": str(instance.pod_network),
        "pod_range": str(instance.pod_range(machine)),
        "runc": programs.runc,
        "cni_plugins": programs.cni_plugins,
    }
    disk = machine.directory
    if not machine.is_node:
        return {disk / "registry.yaml": _render("registry.yaml", values)}
    return {
        disk / "containerd.toml": _render("containerd.toml", values),
        disk / "certs.d" / REGISTRY_NAME / "hosts.toml": _render("hosts.toml", values),
        disk / "cni" / "10-pods.conflist": _render("pods.conflist", values),
        disk / "kubelet.yaml": _render("kubelet.yaml", values),
        disk / "kube-proxy.yaml": _render("kube-proxy.yaml", values),
        disk / "resolv.conf": f"nameserver {instance.dns_address}\n",
    }


def _render(template: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / template).read_text()).substitute(values)


def _hyperkube(program: str, **flags: str) -> list[str]:
    """Return a command line; `tls_cert_file="x"` becomes `--tls-cert-file=x`."""
    return [HYPERKUBE, program, *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())]


def _etcd() -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    # A power cut here ends processes, not the host's page cache: nothing written is lost without fsync.
    return [
        *_hyperkube(
            "etcd",
            name="default",
            data_dir="/run/node/etcd",
            listen_client_urls=client,
            advertise_client_urls=client,
            listen_peer_urls=peer,
            initial_advertise_peer_urls=peer,
            initial_cluster=f"default={peer}",
            log_level="warn",
            heartbeat_interval="100",
            election_timeout="500",
        ),
        "--unsafe-no-fsync",
    ]


def _apiserver(instance: Instance) -> list[str]:
    return _hyperkube(
        "kube-apiserver",
        etcd_servers="http://127.0.0.1:2379",
        bind_address="0.0.0.0",  # noqa: S104 - inside the node's own network namespace
        advertise_address=str(instance.nodes[0].address),
        secure_port=str(API_PORT),
        tls_cert_file="/run/pki/apiserver.crt",
        tls_private_key_file="/run/pki/apiserver.key",
        client_ca_file="/run/pki/ca.crt",
        service_account_issuer="https://kubernetes.default.svc.cluster.local",
        service_account_key_file="/run/pki/service-account.pub",
        service_account_signing_key_file="/run/pki/service-account.key",
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        service_cluster_ip_range=str(instance.service_network),
        allow_privileged="true",
        kubelet_client_certificate="/run/pki/apiserver-kubelet.crt",
        kubelet_client_key="/run/pki/apiserver-kubelet.key",
        kubelet_certificate_authority="/run/pki/ca.crt",
        kubelet_preferred_address_types="InternalIP",
        requestheader_client_ca_file="/run/pki/ca.crt",
        requestheader_allowed_names="front-proxy-client",
        requestheader_username_headers="X-Remote-User",
        requestheader_group_headers="X-Remote-Group",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        proxy_client_cert_file="/run/pki/front-proxy.crt",
        proxy_client_key_file="/run/pki/front-proxy.key",
        profiling="false",
    )


def _kubelet(machine: Machine) -> list[str]:
    return _hyperkube(
        "kubelet",
        config="/run/node/kubelet.yaml",
        kubeconfig=f"/run/pki/{machine.name}.kubeconfig",
        root_dir="/run/node/kubelet",
        hostname_override=machine.name,
        node_ip=str(machine.address),
    )


def _controller_manager(instance: Instance) -> list[str]:
    return _hyperkube(
        "kube-controller-manager",
        **_single_controller("kube-controller-manager"),
        use_service_account_credentials="true",
        root_ca_file="/run/pki/ca.crt",
        service_account_private_key_file="/run/pki/service-account.key",
        cluster_signing_cert_file="/run/pki/ca.crt",
        cluster_signing_key_file="/run/pki/ca.key",
        # The pod range of a node follows from its number.
        allocate_node_cidrs="false",
        cluster_cidr=str(instance.pod_network),
        service_cluster_ip_range=str(instance.service_network),
        # A power cut shows as NotReady after 10 s, not after the default 50 s.
        node_monitor_period="1s",
        node_monitor_grace_period="10s",
    )


def _scheduler() -> list[str]:
    return _hyperkube("kube-scheduler", **_single_controller("kube-scheduler"))


def _single_controller(name: str) -> dict[str, str]:
    """Return the flags of a controller that has no rival to elect a leader with, and little time."""
    kubeconfig = f"/run/pki/{name}.kubeconfig"
    return {
        "kubeconfig": kubeconfig,
        "authentication_kubeconfig": kubeconfig,
        "authorization_kubeconfig": kubeconfig,
        "bind_address": "127.0.0.1",
        "leader_elect": "false",
        "kube_api_qps": "200",
        "kube_api_burst": "400",
        "profiling": "false",
    }
