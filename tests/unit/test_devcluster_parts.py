"""The embedded cluster's pure parts, and its bookkeeping on made-up machines."""

import json
import os
import ssl
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from devcluster import (
    addons,
    cluster,
    environment,
    firewall,
    host,
    machine,
    node,
    node_init,
    pki,
    preflight,
    processes,
    readiness,
    snapshot,
)
from devcluster.errors import Refused
from devcluster.failure import SetupError
from devcluster.instance import Instance, UnknownMachineError
from devcluster.progress import Progress

PROGRAMS = node.HostPrograms("/usr/bin/containerd", "/usr/sbin/runc", "/usr/lib/cni")


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(4, tmp_path)


def test_instances_share_no_network_name_or_path(tmp_path: Path) -> None:
    instances = [Instance(number, tmp_path) for number in range(10)]
    networks = [net for each in instances for net in (each.network, each.pod_network, each.service_network)]
    assert not any(one.overlaps(other) for one in networks for other in networks if one is not other)
    names = [name for each in instances for name in (each.bridge, *(m.link for m in each.machines))]
    names += [machine.cgroup for each in instances for machine in each.machines]
    assert len(set(names)) == len(names)
    assert all(len(machine.link) <= 15 for each in instances for machine in each.machines), "the kernel's limit"
    assert len({each.state for each in instances}) == 10


def test_an_instance_number_beyond_nine_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose 0 to 9"):
        Instance(10, tmp_path)


def test_an_unknown_node_is_answered_with_the_known_ones(instance: Instance) -> None:
    with pytest.raises(UnknownMachineError, match="'hub': choose one of n1 n2 n3"):
        instance.node("hub")


def test_configuration_files_parse_and_carry_the_instance(instance: Instance) -> None:
    files = {path.name: text for path, text in node.files(instance, instance.nodes[1], PROGRAMS, "s").items()}
    kubelet = yaml.safe_load(files["kubelet.yaml"])
    assert kubelet["cgroupRoot"] == "/package-platform-4-n2"
    assert kubelet["address"] == "10.89.4.12"
    assert kubelet["clusterDNS"] == ["10.100.0.10"]
    assert yaml.safe_load(files["kube-proxy.yaml"])["clusterCIDR"] == "10.248.0.0/16"
    pods = json.loads(files["10-pods.conflist"])["plugins"][0]
    assert pods["ipam"]["ranges"] == [[{"subnet": "10.248.2.0/24"}]]
    # On the disk, as on a real machine: after a power cut an old address is not given to another application at once.
    assert pods["ipam"]["dataDir"].startswith("/run/node/")
    assert 'server = "http://10.89.4.5:5000"' in files["hosts.toml"]
    assert 'sandbox_image = "harbor.package.test/sys/pause:1"' in files["containerd.toml"]


def test_the_control_plane_runs_on_the_first_node_only(instance: Instance) -> None:
    names = {m.name: [c.name for c in node.components(instance, m, PROGRAMS)] for m in instance.machines}
    assert names["hub"] == ["registry"]
    assert names["n2"] == names["n3"] == ["containerd", "kube-proxy", "kubelet"]
    assert set(names["n1"]) == {*names["n2"], "etcd", "apiserver", "controller-manager", "scheduler"}


def test_no_secret_is_part_of_a_command_line(instance: Instance) -> None:
    plans = [node.boot_plan(instance, machine, PROGRAMS) for machine in instance.machines]
    secrets = [text for m in instance.machines for text in node.files(instance, m, PROGRAMS, "S3CRET").values()]
    assert any("S3CRET" in text for text in secrets)
    assert "S3CRET" not in json.dumps(plans)


@pytest.mark.parametrize("name", [addons.KUBELET_ACCESS, addons.LOCAL_PATH, *(addon.name for addon in addons.ALL)])
def test_add_ons_are_objects_with_images_from_our_registry(instance: Instance, name: str) -> None:
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(addons.render(instance, name)))
    assert all(each["kind"] and each["metadata"]["name"] for each in objects)
    for workload in (each for each in objects if each["kind"] == "Deployment"):
        template = workload["spec"]["template"]["spec"]
        for container in template["containers"]:
            assert container["image"].startswith("harbor.package.test/sys/")
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert template["securityContext"]["runAsNonRoot"] is True


def test_certificates_are_trusted_made_once_and_private(instance: Instance) -> None:
    pki.ensure(instance)
    contents = {path: path.read_bytes() for path in instance.pki.iterdir()}
    pki.ensure(instance)
    assert {path: path.read_bytes() for path in instance.pki.iterdir()} == contents
    assert all(path.stat().st_mode & 0o077 == 0 for path in [*contents, instance.kubeconfig])
    authority = x509.load_pem_x509_certificate((instance.pki / "ca.crt").read_bytes())
    for subject in pki.subjects(instance):
        certificate = x509.load_pem_x509_certificate((instance.pki / f"{subject.file}.crt").read_bytes())
        certificate.verify_directly_issued_by(authority)
    server = x509.load_pem_x509_certificate((instance.pki / "apiserver.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert IPv4Address("10.89.4.11") in names.get_values_for_type(x509.IPAddress)
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)


def test_a_certificate_that_was_not_finished_is_made_again(instance: Instance) -> None:
    pki.ensure(instance)
    (instance.pki / "n1.crt").unlink()
    pki.ensure(instance)
    context = ssl.create_default_context(cafile=str(instance.pki / "ca.crt"))
    context.load_cert_chain(instance.pki / "n1.crt", instance.pki / "n1.key")


def test_the_kubeconfig_is_self_contained(instance: Instance) -> None:
    pki.ensure(instance)
    document = yaml.safe_load(instance.kubeconfig.read_text())
    assert document["current-context"] == "package-vms"
    assert document["clusters"][0]["cluster"]["server"] == "https://10.89.4.11:6443"
    assert str(instance.root) not in instance.kubeconfig.read_text()


def test_the_env_script_can_be_sourced_twice(instance: Instance) -> None:
    environment.write(instance)
    script = f". {instance.state}/env; . {instance.state}/env; env"
    clean = {"PATH": "/usr/bin:/bin"}
    printed = subprocess.run(["sh", "-c", script], env=clean, capture_output=True, text=True, check=True).stdout
    variables = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    assert variables["PATH"] == f"{instance.binaries}:{instance.root}/.venv/bin:{instance.root}/bin:/usr/bin:/bin"
    assert variables["PULUMI_BACKEND_URL"] == f"file://{instance.state}/pulumi-state"
    assert Path(variables["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text() == "package-platform-dev"
    assert (instance.state / "passphrase").stat().st_mode & 0o077 == 0


def test_a_route_into_the_network_is_objected_to_once_per_link(instance: Instance) -> None:
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "192.168.0.0/16", "dev": "eth0"},
        {"dst": "10.0.0.0/8", "dev": "vpn0"},
        {"type": "local", "dst": "10.89.4.77", "dev": "other0"},
        {"type": "broadcast", "dst": "10.89.4.127", "dev": "other0"},
        {"dst": "10.89.4.0/24", "dev": "ppbr4"},
    ]
    problems = preflight.overlap_problems(instance, routes, ignored_links=["ppbr4"])
    assert [problem.split(": ")[0] for problem in problems] == [
        "the network 10.89.4.0/24 overlaps the route 10.0.0.0/8 on vpn0",
        "the network 10.89.4.0/24 overlaps the route 10.89.4.77 on other0",
    ]


def test_control_groups_of_both_kinds_are_judged(tmp_path: Path) -> None:
    assert "cgroup v1" in preflight.cgroup_problems(tmp_path)[0]
    for name in preflight.CGROUP1_CONTROLLERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "tasks").touch()
    assert preflight.cgroup_problems(tmp_path) == []
    (tmp_path / "cgroup.controllers").write_text("cpu cpuset memory\n")
    assert "cgroup v2" in preflight.cgroup_problems(tmp_path)[0]
    assert "lacks pids" in preflight.cgroup_problems(tmp_path)[0]


@pytest.fixture
def sysctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Kernel settings that are not the machine's, and a record directory that is not either."""
    settings = {"kernel.panic": "1", "vm.overcommit_memory": "0", "fs.inotify.max_user_instances": "128"}

    def write(name: str, value: str) -> None:
        settings[name] = value

    monkeypatch.setattr(host, "RECORD_DIRECTORY", tmp_path / "record")
    monkeypatch.setattr(host, "read_sysctl", settings.get)
    monkeypatch.setattr(host, "_write_sysctl", write)
    return settings


def kubelet_starts(settings: dict[str, str]) -> None:
    settings.update({name: host.KUBELET_SYSCTLS[name] for name in ("kernel.panic", "vm.overcommit_memory")})


def test_the_last_instance_restores_the_settings(tmp_path: Path, sysctls: dict[str, str]) -> None:
    original = dict(sysctls)
    first, second = Instance(1, tmp_path), Instance(2, tmp_path / "elsewhere")
    host.claim(first)
    kubelet_starts(sysctls)
    host.claim(second)
    host.claim(second)
    assert sysctls["fs.inotify.max_user_instances"] == "1024"
    host.release(first)
    assert sysctls["kernel.panic"] == "10"
    host.release(second)
    assert sysctls == original
    assert not host.RECORD_DIRECTORY.exists()


def test_a_setting_that_somebody_else_changed_since_stays(tmp_path: Path, sysctls: dict[str, str]) -> None:
    host.claim(Instance(1, tmp_path))
    kubelet_starts(sysctls)
    sysctls["kernel.panic"] = "60"
    host.release(Instance(1, tmp_path))
    assert sysctls["kernel.panic"] == "60"
    assert sysctls["vm.overcommit_memory"] == "0"


@pytest.mark.usefixtures("sysctls")
def test_a_number_that_another_checkout_has_is_refused_until_that_is_deleted(tmp_path: Path) -> None:
    theirs, ours = Instance(1, tmp_path / "theirs"), Instance(1, tmp_path / "ours")
    program = theirs.root / "devcluster" / "__main__.py"
    program.parent.mkdir(parents=True)
    program.touch()
    host.claim(theirs)
    with pytest.raises(Refused, match=r"theirs.*choose another with --id"):
        host.claim(ours)
    assert host.orphan_of(ours) is None
    program.unlink()
    assert host.orphan_of(ours) == str(theirs.state)
    host.release(ours, host.orphan_of(ours))
    host.claim(ours)
    assert host.owner_of(ours) == str(ours.state)


@pytest.fixture
def theirs(tmp_path: Path, sysctls: dict[str, str]) -> Instance:
    """An instance of a checkout that is there, which has its number."""
    assert sysctls
    found = Instance(1, tmp_path / "theirs")
    program = found.root / "devcluster" / "__main__.py"
    program.parent.mkdir(parents=True)
    program.touch()
    host.claim(found)
    return found


@pytest.fixture
def cables(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The network links that were removed; every link is there."""
    removed: list[str] = []

    def nothing(*_: object) -> None:
        """Leave the machine alone."""

    def is_there(_: str) -> bool:
        return True

    monkeypatch.setattr(preflight, "check_rights", nothing)
    monkeypatch.setattr(machine, "link_exists", is_there)
    monkeypatch.setattr(machine, "remove_link", removed.append)
    monkeypatch.setattr(machine, "_remove_cgroups", nothing)
    monkeypatch.setattr(firewall, "close_bridge", nothing)
    return removed


@pytest.mark.parametrize("command", [cluster.node_down, cluster.node_up])
def test_a_node_of_another_checkout_is_neither_cut_off_nor_switched_on(
    theirs: Instance, tmp_path: Path, cables: list[str], command: Callable[[Instance, str], bool]
) -> None:
    with pytest.raises(Refused, match=r"theirs.*choose another with --id"):
        command(Instance(theirs.id, tmp_path / "ours"), "n2")
    assert cables == []


def test_a_node_is_cut_off_by_whoever_has_the_number_and_by_nobody_else(theirs: Instance, cables: list[str]) -> None:
    assert not cluster.node_down(theirs, "n2"), "none of its processes ran"
    assert cables == ["pp1n2"]
    host.release(theirs)
    assert not cluster.node_down(theirs, "n3")
    assert cables == ["pp1n2"], "without a cluster there is no cable of ours"
    with pytest.raises(SetupError, match="the cluster is down"):
        cluster.node_up(theirs, "n3")


def test_what_a_deleted_checkout_left_running_is_ended_with_its_services(
    theirs: Instance, tmp_path: Path, cables: list[str]
) -> None:
    (theirs.root / "devcluster" / "__main__.py").unlink()
    marks = [theirs.nodes[0].directory, *theirs.services]
    left = [subprocess.Popen(["sleep", "60"], env={**os.environ, processes.MARK: str(mark)}) for mark in marks]
    try:
        cluster.down(Instance(theirs.id, tmp_path / "ours"), Progress(quiet=True))
        assert [process.wait(10) for process in left] == [-9, -9, -9]
    finally:
        for process in left:
            process.kill()
            process.wait()
    assert "ppbr1" in cables
    assert host.owner_of(theirs) is None


@pytest.mark.usefixtures("sysctls")
def test_who_does_not_care_gets_the_first_number_that_is_free_with_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ownership_alone(instance: Instance) -> None:
        owner = host.owner_of(instance)
        if owner not in (None, str(instance.state)):
            raise Refused([host.taken_message(instance, str(owner))])

    monkeypatch.setattr(preflight, "check", ownership_alone)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    program = theirs / "devcluster" / "__main__.py"
    program.parent.mkdir(parents=True)
    program.touch()
    assert cluster.reserve(theirs, (7, 4), more=2).id == 7
    assert cluster.reserve(theirs, (7, 4), more=2).id == 7, "what one has already can be had"
    assert cluster.reserve(ours, (6, 7, 8, 3), more=2).id == 8, "6 has 7 after it, and after 9 comes 0"
    with pytest.raises(Refused) as refused:
        cluster.reserve(ours, (7, 6), more=1)
    assert len(refused.value.problems) == 1, "both for the same reason"
    host.release(Instance(7, theirs))
    assert cluster.reserve(ours, (7,), more=1).id == 7


def test_a_record_of_an_earlier_boot_counts_as_absent(tmp_path: Path, sysctls: dict[str, str]) -> None:
    host.claim(Instance(1, tmp_path / "before"))
    record = host.RECORD_DIRECTORY / "host.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot_id": "an earlier one"}))
    sysctls["kernel.panic"] = "7"
    host.claim(Instance(1, tmp_path / "now"))
    kubelet_starts(sysctls)
    host.release(Instance(1, tmp_path / "now"))
    assert sysctls["kernel.panic"] == "7"


def test_only_marked_processes_are_ended(tmp_path: Path) -> None:
    def sleeping(mark: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["sleep", "60"], env={**os.environ, processes.MARK: mark})

    with sleeping(str(tmp_path / "n1")) as ours, sleeping(str(tmp_path / "n10")) as other:
        try:
            assert [process.pid for process in processes.marked(tmp_path / "n1")] == [ours.pid]
            assert processes.end_all(tmp_path / "n1") == 1
            assert ours.wait(5) == -9
            assert other.poll() is None
            assert processes.end_all(tmp_path / "n1") == 0
        finally:
            ours.kill()
            other.kill()


def ready_node(name: str, heartbeat: str, status: str = "True") -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat}
    return {"metadata": {"name": name}, "status": {"conditions": [condition]}}


def test_what_the_api_remembers_from_before_a_power_cut_does_not_count() -> None:
    boot_times = {"n1": 1767225600.9, "n2": 1767225600.9, "n3": 1767225600.9}
    nodes = [
        ready_node("n1", "2026-01-01T00:00:00Z"),
        ready_node("n2", "2025-12-31T23:59:59Z"),
        ready_node("n3", "2026-01-01T00:00:09Z", "Unknown"),
        ready_node("n4", "2026-01-01T00:00:09Z"),
    ]
    assert readiness.ready_nodes(nodes, boot_times) == {"n1"}

    def pod(node_name: str, started: str, *, ready: bool = True) -> dict[str, Any]:
        container = {"ready": ready, "state": {"running": {"startedAt": started}}}
        return {"spec": {"nodeName": node_name}, "status": {"containerStatuses": [container]}}

    pods: list[dict[str, Any]] = [
        pod("n1", "2026-01-01T00:00:03Z"),
        pod("n1", "2025-12-31T23:00:00Z"),
        pod("n2", "2026-01-01T00:00:03Z", ready=False),
        {"spec": {}, "status": {}},
    ]
    assert readiness.ready_pods(pods, boot_times) == 1


def test_a_component_that_cannot_start_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_init, "LOG_DIRECTORY", tmp_path)
    plan: dict[str, Any] = {"name": "absent", "command": [str(tmp_path / "absent")], "wait": [], "environment": {}}
    component = node_init.Component("n1", plan)
    component.start()
    assert component.pid == 0
    assert component.not_before > 0
    assert "[supervisor] absent cannot be started" in (tmp_path / "n1-absent.log").read_text()


def test_snapshots_differ_by_what_is_new_and_what_is_gone() -> None:
    setting = "vm.overcommit_memory = "
    before = snapshot.Snapshot({"link": frozenset({"eth0"}), "sysctl": frozenset({setting + "0"})}, other_holders=False)
    after = snapshot.Snapshot({"link": frozenset({"ppbr3"}), "sysctl": frozenset({setting + "1"})}, other_holders=False)
    assert snapshot.differences(before, before) == []
    assert snapshot.differences(before, after) == [
        "link left behind: ppbr3",
        "link gone: eth0",
        "sysctl left behind: vm.overcommit_memory = 1",
        "sysctl gone: vm.overcommit_memory = 0",
    ]
    shared = snapshot.Snapshot(after.lines, other_holders=True)
    assert snapshot.differences(before, shared) == ["link left behind: ppbr3", "link gone: eth0"]


def test_progress_keeps_the_seconds_of_steps_also_of_failed_ones() -> None:
    progress = Progress(quiet=True)
    with pytest.raises(ZeroDivisionError), progress.step("outer"), progress.step("inner"):
        _ = 1 / 0
    assert [(step.title, step.failed) for step in progress.times] == [("outer: inner", True), ("outer", True)]
    assert progress.table().splitlines()[-1] == f"{progress.times[1].seconds:8.1f} s  total"
