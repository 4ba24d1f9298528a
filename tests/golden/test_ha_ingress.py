"""The cluster's ingress as it would be applied: stored, valid for the Kubernetes versions in use, and accepted by
keepalived itself.

To accept a change: ``make golden``, then read the diff.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from devcluster import keepalived as image
from devcluster.progress import Progress
from manifests import Manifest, keepalived
from manifests.ha_ingress import ha_ingress
from manifests.ingress_objects import BUSYBOX, INGRESS_NODE
from manifests.traefik import PROXY
from model.environment import Environment, Ingress, Registry
from model.ingress import (
    AlbIngress,
    HaIngressSettings,
    IngressNode,
    Lvs,
    NlbIngress,
    ProxySettings,
    Tls,
    Vip,
    VipIngress,
)
from tests.conftest import committed_stack
from tests.golden.test_golden import KUBERNETES_VERSIONS, YamlFiles

NODES = tuple(IngressNode(name=f"n{index}", address=f"10.89.0.1{index}") for index in (1, 2, 3))
ONE = (Vip(address="10.89.0.100", router_id=51),)
TWO = (*ONE, Vip(address="10.89.0.101", router_id=52))
TLS = Tls.model_validate({"secret": "wildcard"})


def vips(addresses: tuple[Vip, ...], **fields: Any) -> VipIngress:
    return VipIngress(kind="keepalived", network="10.89.0.0/24", nodes=NODES, vips=addresses, **fields)


CASES: dict[str, HaIngressSettings] = {
    "two-vips-tls": vips(TWO, preempt=True, tls=TLS),
    "lvs-dr": vips(ONE, lvs=Lvs()),
    "lvs-nat": vips(TWO, tls=TLS, lvs=Lvs(mode="NAT", scheduler="rr", persistence_seconds=60)),
    "alb": AlbIngress(
        kind="alb", v_switches=("vsw-bp1a", "vsw-bp1b", "vsw-bp1c"), certificate_ids=("1234567-cn-hangzhou",)
    ),
    "nlb": NlbIngress(
        kind="nlb",
        zones=("cn-hangzhou-h:vsw-bp1a", "cn-hangzhou-i:vsw-bp1b", "cn-hangzhou-j:vsw-bp1c"),
        proxy=ProxySettings(trusted_proxies=("10.20.0.0/20", "10.20.16.0/20", "10.20.32.0/20")),
        tls=TLS,
    ),
}


def environment(case: str) -> Environment:
    if case == "test":
        return committed_stack("test").environment
    given = CASES[case]
    return Environment(
        name=case,
        namespace="package-example",
        domain="example.com",
        registry=Registry(host="harbor.example.com"),
        ingress=Ingress(ha=given, dialect="alb" if given.kind == "alb" else "nginx"),
    )


def rendered(case: str) -> list[Manifest]:
    given = environment(case)
    assert given.ingress.ha is not None
    return ha_ingress(given, given.ingress.ha).manifests()


def one(case: str, kind: str, name: str) -> Manifest:
    (found,) = (each for each in rendered(case) if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


class Conf(SingleFileSnapshotExtension):
    """One keepalived.conf per snapshot."""

    _write_mode = WriteMode.TEXT
    file_extension = "conf"

    @classmethod
    def get_location(cls, *, test_location: Any, index: Any) -> str:
        folder = Path(test_location.filepath).parent / "__snapshots__" / "test_ha_ingress"
        return str(folder / f"{index}.conf")

    def serialize(self, data: Any, **_: Any) -> str:
        return str(data)


ALL = ("test", *CASES)
WITH_KEEPALIVED = ("test", "two-vips-tls", "lvs-dr", "lvs-nat")


@pytest.mark.parametrize("case", ALL)
def test_golden(case: str, snapshot: SnapshotAssertion) -> None:
    assert rendered(case) == snapshot(name=f"ha-ingress/{case}", extension_class=YamlFiles)


@pytest.mark.parametrize("case", WITH_KEEPALIVED)
def test_golden_keepalived(case: str, snapshot: SnapshotAssertion) -> None:
    assert configuration(case) == snapshot(name=case, extension_class=Conf)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("case", ALL)
def test_valid_for_kubernetes(case: str, version: str) -> None:
    checked = 0
    for manifest in rendered(case):
        if manifest["kind"] != "AlbConfig":
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1
    assert checked > 0


def configuration(case: str) -> str:
    settings = environment(case).ingress.ha
    assert isinstance(settings, VipIngress)
    return keepalived.configuration(settings)


@pytest.fixture(scope="session")
def program() -> list[str]:
    """The real keepalived, as it is put into the image, run with its own libraries."""
    root = image.root(Progress(quiet=True))
    (libraries,) = (root / "usr/lib").iterdir()
    (loader,) = libraries.glob("ld-linux*.so*")
    return [str(loader), "--library-path", str(libraries), str(root / image.PROGRAM)]


@pytest.fixture(scope="session")
def in_image() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program of keepalived's image, with its own libraries, in a network of its own."""
    root = image.root(Progress(quiet=True))
    (libraries,) = (root / "usr/lib").iterdir()
    (loader,) = libraries.glob("ld-linux*.so*")

    def run(path: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(loader), "--library-path", str(libraries), str(root / path), *arguments]
        alone = ["unshare", "--map-root-user", "--net", *command]
        return subprocess.run(alone, input=text, capture_output=True, text=True, check=False, timeout=60)

    return run


def config_test(program: list[str], text: str, node: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run keepalived's own test of a configuration; it asks that the interface exists, and may not be ``lo``."""
    file = folder / "keepalived.conf"
    file.write_text(text.replace("eth0", "kacheck0"))
    script = 'ip link add kacheck0 type veth peer name kacheck1 && ip link set kacheck0 up && exec "$@"'
    command = [*program, f"--use-file={file}", "--config-test", f"--config-id={node}"]
    return subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("node", ["n1", "n3"])
@pytest.mark.parametrize("case", WITH_KEEPALIVED)
def test_keepalived_accepts_it(case: str, node: str, program: list[str], tmp_path: Path) -> None:
    tested = config_test(program, configuration(case), node, tmp_path)
    assert (tested.returncode, tested.stderr, tested.stdout) == (0, "", "")


def test_the_config_test_can_fail(program: list[str], tmp_path: Path) -> None:
    bad = configuration("test").replace("virtual_router_id 51", "virtual_router_id 999")
    tested = config_test(program, bad, "n1", tmp_path)
    assert tested.returncode != 0
    assert "'999'" in tested.stderr


@pytest.mark.parametrize("case", WITH_KEEPALIVED)
def test_no_node_is_its_own_peer_and_each_vip_prefers_another(case: str) -> None:
    lines = [line.strip() for line in configuration(case).splitlines()]
    for node in NODES:
        assert f"@^{node.name} {node.address}" in lines
        assert f"@{node.name} unicast_src_ip {node.address}" in lines
    addresses = [line for line in lines if line.endswith("/32 dev eth0")]
    for index, _ in enumerate(addresses):
        assert lines.count(f"@{NODES[index].name} priority 150") == 1


def scripts(case: str) -> dict[str, str]:
    """Return container → its shell script."""
    specs = [pod(case, PROXY), pod(case, keepalived.COMPONENT)]
    containers = [each for spec in specs for each in (*spec.get("initContainers", []), *spec["containers"])]
    shells = [each for each in containers if each.get("command", [""])[0] == BUSYBOX]
    return {each["name"]: each["command"][3] for each in shells}


@pytest.mark.parametrize("case", WITH_KEEPALIVED)
def test_the_shell_and_the_packet_filter_of_the_image_accept_the_scripts(
    case: str, in_image: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    found = scripts(case)
    assert {"check", keepalived.COMPONENT, "open-connections"} <= found.keys()
    for script in found.values():
        checked = in_image(image.BUSYBOX, "sh", "-n", text=script)
        assert (checked.returncode, checked.stderr) == (0, "")
    rules = found[keepalived.COMPONENT].split("<<'END'")[1].split("\n", 1)[1].split("\nEND\n")[0]
    accepted = in_image(image.NFT, "--check", "--file", "-", text=rules)
    assert (accepted.returncode, accepted.stderr) == (0, "")
    refused = in_image(image.NFT, "--check", "--file", "-", text=rules.replace("10.89.0.100", "10.89.0.1000"))
    assert refused.returncode != 0, "a check that can't fail"


def test_the_shell_check_can_fail(in_image: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert in_image(image.BUSYBOX, "sh", "-n", text="while :; do echo\n").returncode != 0


def pod(case: str, name: str) -> Manifest:
    return one(case, "DaemonSet", name)["spec"]["template"]["spec"]


def test_only_keepalived_is_root_and_with_two_capabilities() -> None:
    for name in (PROXY, keepalived.COMPONENT):
        spec = pod("test", name)
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            added = ["NET_ADMIN", "NET_RAW"] if container["name"] == keepalived.COMPONENT else None
            assert security["capabilities"].get("add") == added
            assert security["capabilities"]["drop"] == ["ALL"]
            assert "privileged" not in security
    assert pod("test", PROXY)["securityContext"]["runAsNonRoot"] is True
    assert "hostNetwork" not in pod("test", PROXY)


@pytest.mark.parametrize("name", [PROXY, keepalived.COMPONENT])
def test_one_node_at_a_time_on_the_labelled_nodes(name: str) -> None:
    spec = one("test", "DaemonSet", name)["spec"]
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert spec["template"]["spec"]["nodeSelector"] == INGRESS_NODE
    assert spec["minReadySeconds"] > 0


def test_keepalived_runs_only_where_its_peers_know_it() -> None:
    """Anywhere else it would hear no advert, and take an address that another node holds."""
    required = pod("test", keepalived.COMPONENT)["affinity"]["nodeAffinity"]
    terms = required["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    given = environment("test").ingress.ha
    assert isinstance(given, VipIngress)
    # Kubernetes takes one value in a requirement of a field, and one of the terms has to fit.
    assert terms == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node.name]}]} for node in given.nodes
    ]
    assert "affinity" not in pod("test", PROXY)


def test_the_budget_of_the_proxies_is_one_that_kubernetes_can_reckon() -> None:
    """A DaemonSet has no scale, from which ``maxUnavailable`` and percentages are reckoned; a Deployment has."""
    kept = one("test", "PodDisruptionBudget", PROXY)["spec"]
    assert (kept["minAvailable"], "maxUnavailable" in kept) == (len(NODES) - 1, False)
    assert one("nlb", "PodDisruptionBudget", PROXY)["spec"]["maxUnavailable"] == "33%"


def test_a_changed_vip_makes_another_config_map_and_keeps_the_daemon_set() -> None:
    given = environment("test")
    changed = vips(TWO)
    before = keepalived.daemon_set(given, vips(ONE))
    after = keepalived.daemon_set(given, changed)
    assert before["metadata"] == after["metadata"]
    assert before["spec"]["selector"] == after["spec"]["selector"]
    volumes = [each["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] for each in (before, after)]
    assert volumes[0] != volumes[1] == keepalived.config_map(given, changed)["metadata"]["name"]


def test_a_kernel_without_ipvs_is_refused_by_name_only_where_lvs_is_asked_for() -> None:
    (check,) = pod("lvs-dr", keepalived.COMPONENT)["initContainers"]
    assert "/proc/net/ip_vs" in check["command"][-1]
    assert "initContainers" not in pod("test", keepalived.COMPONENT)


def test_the_proxy_takes_longer_to_end_than_the_address_to_move() -> None:
    given = pod("test", PROXY)
    (container,) = given["containers"]
    assert "--entrypoints.web.transport.lifecycle.requestacceptgracetimeout=10s" in container["args"]
    assert "--ping.terminatingstatuscode=503" in container["args"]
    assert given["terminationGracePeriodSeconds"] > 10 + 30
