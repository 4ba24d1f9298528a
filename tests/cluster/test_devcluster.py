"""The embedded cluster itself: what it leaves on the machine, crashes, power cuts, refusals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator

import httpx2
import pytest

from devcluster import kubectl, machine, processes, readiness, snapshot
from devcluster.instance import Instance
from tests.cluster.embedded import Cluster, devcluster


def wait_until(what: str, check: Callable[[], bool], seconds: float) -> None:
    """Poll until `check` holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def ready(instance: Instance, name: str) -> str:
    """Return the status of a node's Ready condition."""
    node = json.loads(kubectl.run(instance, "get", "node", name, "--output=json"))
    return next(c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready")


@contextlib.contextmanager
def strange_link(name: str, address: str = "") -> Generator[None]:
    """A network link that is not the cluster's."""
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        if address:
            subprocess.run(["ip", "address", "add", address, "dev", name], check=True)
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


def test_down_leaves_the_machine_as_it_was_and_up_resumes(spare: Instance) -> None:
    before = snapshot.take(spare)
    devcluster(spare, "up", "--bare")
    # The check would see it: everything is there now.
    kinds = {line.split()[0] for line in snapshot.differences(before, snapshot.take(spare))}
    assert kinds >= {"process", "link", "address", "route", "cgroup"}
    kubectl.run(spare, "create", "configmap", "kept", "--from-literal=a=b")
    started = time.monotonic()
    devcluster(spare, "up", "--bare")
    assert time.monotonic() - started < 60, "a second `up` has nothing to do: that is promised within a minute"

    devcluster(spare, "down")
    assert snapshot.differences(before, snapshot.take(spare)) == []

    devcluster(spare, "up", "--bare")
    assert kubectl.run(spare, "get", "configmap", "kept", "--output=jsonpath={.data.a}") == "b"
    devcluster(spare, "down", "--wipe")
    assert snapshot.differences(before, snapshot.take(spare)) == []
    assert not spare.state.exists()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("bridge", marks=pytest.mark.soak),
        "second machine",
        pytest.param("all machines", marks=pytest.mark.soak),
    ],
)
def test_killed_up_is_cleaned_away_or_continued(spare: Instance, moment: str) -> None:
    before = snapshot.take(spare)
    reached: dict[str, Callable[[], bool]] = {
        "bridge": lambda: machine.link_exists(spare.bridge),
        "second machine": lambda: machine.link_exists(spare.nodes[0].link),
        "all machines": lambda: all(machine.is_on(each) for each in spare.machines),
    }
    command = [sys.executable, "-m", "devcluster", "--id", str(spare.id), "up", "--bare"]
    with subprocess.Popen(command, cwd=spare.root, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(moment, reached[moment], 60)
        process.kill()
    assert process.returncode == -signal.SIGKILL, "it was killed while at work"
    assert snapshot.differences(before, snapshot.take(spare)) != []

    if moment != "bridge":
        devcluster(spare, "up", "--bare")
        assert [ready(spare, node.name) for node in spare.nodes] == ["True"] * 3
    devcluster(spare, "down")
    assert snapshot.differences(before, snapshot.take(spare)) == []


def test_leak_check_sees_a_link_and_a_process_that_stay(spare: Instance) -> None:
    before = snapshot.take(spare)
    environment = {**os.environ, processes.MARK: str(spare.hub.directory)}
    with strange_link("ppleak"), subprocess.Popen(["sleep", "60"], env=environment) as process:
        found = snapshot.differences(before, snapshot.take(spare))
        process.kill()
    assert "link left behind: ppleak" in found
    assert f"process left behind: {spare.hub.directory} (pid {process.pid})" in found
    assert snapshot.differences(before, snapshot.take(spare)) == []


def test_refuses_a_bridge_and_a_network_that_are_taken(spare: Instance) -> None:
    taken = spare.neighbour(1)
    with strange_link(taken.bridge), strange_link("ppother", str(taken.network[77]) + "/25"):
        refused = devcluster(taken, "up", "--bare", check=False)
        devcluster(taken, "down")
        assert machine.link_exists(taken.bridge), "a stranger's link is never removed"
    assert refused.returncode == 2
    lines = refused.stderr.splitlines()
    assert len(lines) == 2, refused.stderr
    assert all(line.startswith("refused: ") for line in lines)
    assert taken.bridge in lines[0]
    assert str(taken.network) in lines[1]
    assert "ppother" in lines[1]


def test_unknown_node_is_refused_with_the_names_that_there_are(spare: Instance) -> None:
    refused = devcluster(spare, "node-down", "n4", check=False)
    assert refused.returncode == 2
    assert refused.stderr == "refused: there is no node 'n4': choose one of n1 n2 n3\n"


def test_power_cut_of_a_node_is_noticed_and_it_comes_back(cluster: Cluster) -> None:
    cluster.devcluster("node-down", "n3")
    assert not machine.is_on(cluster.instance.node("n3"))
    wait_until("n3 not ready", lambda: ready(cluster.instance, "n3") != "True", 120)
    assert cluster.devcluster("status", check=False).returncode == 1
    cluster.devcluster("node-up", "n3")
    wait_until("n3 ready", lambda: cluster.devcluster("status", check=False).returncode == 0, 120)


def test_power_cut_of_the_control_plane_leaves_the_registry(cluster: Cluster) -> None:
    instance = cluster.instance
    uid = cluster.get("namespace", "kube-system")["metadata"]["uid"]
    cluster.devcluster("node-down", "n1")
    assert not readiness.api_answers(instance)
    tags = httpx2.get(f"{instance.registry_endpoint}/v2/sys/pause/tags/list", timeout=5, trust_env=False)
    assert tags.json()["tags"] == ["1"]
    cluster.devcluster("node-up", "n1")
    cluster.devcluster("up")
    assert cluster.get("namespace", "kube-system")["metadata"]["uid"] == uid
    nodes = [node["metadata"]["labels"].get("package-platform/ingress") for node in cluster.get("nodes")["items"]]
    assert nodes == ["true"] * 3


def test_cluster_resolves_names_and_runs_a_sample(cluster: Cluster) -> None:
    pods = cluster.get("pods", "--all-namespaces")["items"]
    dns = [pod["spec"]["nodeName"] for pod in pods if pod["metadata"]["labels"].get("k8s-app") == "kube-dns"]
    assert len(set(dns)) == 2, "the two copies are on two nodes"
    answer = subprocess.run(
        machine.enter_command(
            cluster.instance.node("n2"),
            [sys.executable, "-c", DNS_QUERY, str(cluster.instance.dns_address), f"{DNS_SERVICE}.svc.cluster.local"],
        ),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    service = cluster.get("service", "kube-dns", "--namespace=kube-system")["spec"]["clusterIP"]
    assert answer.stdout.strip() == service


DNS_SERVICE = "kube-dns.kube-system"
DNS_QUERY = """
import socket, struct, sys
name = b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[2].split(".")) + b"\\0"
for attempt in range(10):
    # As a resolver does, by a port of its own each time: one port is answered by one copy of DNS only, and that one
    # may just have lost its power.
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.settimeout(2)
    link.sendto(struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1), (sys.argv[1], 53))
    try:
        print(socket.inet_ntoa(link.recv(512)[-4:]))
        break
    except TimeoutError:
        continue
"""
