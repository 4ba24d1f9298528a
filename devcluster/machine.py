"""Power on, power cut and the network of machines: everything here changes the host, and is found again.

Links, control groups and processes carry names that follow from the instance, so that cleaning up needs no
record and works after a crash at any moment.
"""

import contextlib
import errno
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

from devcluster import commands, firewall, node, processes
from devcluster.failure import SetupError
from devcluster.instance import Instance, Machine

CGROUP_ROOT = Path("/sys/fs/cgroup")
CPU_SHARES = {"cpu.shares": "10240", "cpu.weight": "1000"}
"""Ten times a process of the host's: by default all pods of a node together weigh as much as one compiler, and on a
busy machine the ingress is then too late to learn that a pod has left."""
CGROUP2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
CNI_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin")
HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_SECONDS = 20.0
BOOTED = "booted"
"""Written to its disk by a machine's first process once it was told to go on."""

CGROUP_SECONDS = 5.0
NODE_INIT = Path(__file__).resolve().parent / "node_init.py"
OLD_LOG_BYTES = 5_000_000


def host_programs() -> node.HostPrograms:
    """Find the programs of the operating system that run in every node.

    Raises:
        SetupError: one is missing.
    """
    directory = next((path for path in CNI_DIRECTORIES if Path(path, "bridge").exists()), None)
    if directory is None:
        raise SetupError("the CNI plugins are missing: install the package containernetworking-plugins")
    return node.HostPrograms(_find("containerd"), _find("runc"), directory)


def plug_bridge(instance: Instance) -> None:
    """Make the instance's bridge with the host's address on it; an existing one is completed."""
    if not link_exists(instance.bridge):
        commands.run(["ip", "link", "add", instance.bridge, "type", "bridge"])
        for machine in instance.machines:
            if link_exists(machine.link):
                commands.run(["ip", "link", "set", machine.link, "master", instance.bridge])
    address = f"{instance.host_address}/{instance.network.prefixlen}"
    commands.run(["ip", "address", "replace", address, "dev", instance.bridge])
    commands.run(["ip", "link", "set", instance.bridge, "up"])
    firewall.open_bridge(instance)


def unplug_bridge(instance: Instance) -> None:
    """Remove the bridge; its address and route go with it."""
    firewall.close_bridge(instance)
    remove_link(instance.bridge)


def boot(instance: Instance, machine: Machine) -> None:
    """Switch a machine on; its components start in the background.

    What a power cut or a crash left of it is cleared away first. Its disk stays as it is.

    Raises:
        SetupError: its first process did not come up.
    """
    cut(machine)
    programs = host_programs()
    for path, content in node.files(instance, machine, programs, secrets.token_hex(16)).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (machine.directory / BOOTED).unlink(missing_ok=True)
    plan = machine.directory / "boot.json"
    plan.write_text(json.dumps(node.boot_plan(instance, machine, programs), indent=2) + "\n")
    _rotate_logs(instance, machine)
    if machine.is_node:
        _make_cgroups(machine)
    log = instance.logs / f"{machine.name}-init.log"
    process = _start_init(machine, plan, log)
    try:
        init = _wait_for_init(machine, process, log)
        _plug_in(instance, machine, init.pid)
        _say_go(process)
    except BaseException:
        cut(machine)
        raise


def cut(machine: Machine) -> bool:
    """Cut a machine's power: its processes end at once, and what the host held for it is taken away.

    Returns:
        Whether it was on.
    """
    was_on = processes.end_all(machine.directory) > 0
    remove_link(machine.link)
    _remove_cgroups(machine)
    return was_on


def is_on(machine: Machine) -> bool:
    """Tell whether a machine is on, booted to the end and plugged in."""
    booted = (machine.directory / BOOTED).exists() and link_exists(machine.link)
    return booted and processes.init_of(machine.directory) is not None


def boot_times(instance: Instance) -> dict[str, float]:
    """Return machine name → when it was last switched on, in seconds since the epoch; without those off."""
    return {
        machine.name: (machine.directory / "boot.json").stat().st_mtime
        for machine in instance.machines
        if is_on(machine)
    }


def enter_command(machine: Machine, command: list[str]) -> list[str]:
    """Return the command line that runs `command` inside a machine.

    Raises:
        SetupError: the machine is off.
    """
    init = processes.init_of(machine.directory)
    if init is None:
        raise SetupError(f"{machine.name} is off: switch it on with `python -m devcluster node-up {machine.name}`")
    return ["nsenter", "--target", str(init.pid), "--mount", "--pid", "--net", "--uts", "--", *command]


def link_exists(name: str) -> bool:
    """Tell whether the host has a network link of that name."""
    return Path("/sys/class/net", name).exists()


def remove_link(name: str) -> None:
    """Remove a network link of the host; none of that name is fine."""
    if link_exists(name):
        finished = commands.attempt(["ip", "link", "delete", name])
        # A cable goes by itself when the machine at its other end does: it may have gone just now.
        if finished.returncode != 0 and link_exists(name):
            raise SetupError(f"the network link {name} cannot be removed", finished.stderr.strip())


def _start_init(machine: Machine, plan: Path, log: Path) -> subprocess.Popen[bytes]:
    # The mounts of the host are followed (a disk that is unmounted there is not kept busy here), but nothing
    # that is mounted inside is seen outside.
    namespaces = ["--mount", "--pid", "--net", "--uts", "--fork", "--mount-proc", "--kill-child"]
    command = ["unshare", *namespaces, "--propagation", "slave", sys.executable, "-I", str(NODE_INIT), str(plan)]
    environment = {"PATH": HOST_PATH, "HOME": "/root", "LANG": "C.UTF-8", processes.MARK: str(machine.directory)}
    with log.open("ab") as stream:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
            cwd="/",
        )


def _wait_for_init(machine: Machine, process: subprocess.Popen[bytes], log: Path) -> processes.MarkedProcess:
    """Wait for the first line of the machine's first process: it is in its own namespaces then."""
    if process.stdout is None:
        raise TypeError("the process was started with pipes")
    with process.stdout as stream:
        readable, _, _ = select.select([stream], [], [], BOOT_SECONDS)
        line = stream.readline() if readable else b""
    init = processes.init_of(machine.directory)
    if line != b"here\n" or init is None:
        raise SetupError(f"{machine.name} does not boot: look at {log}", tail(log))
    return init


def _say_go(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is None:
        raise TypeError("the process was started with pipes")
    with process.stdin as stream:
        stream.write(b"go\n")


def _plug_in(instance: Instance, machine: Machine, pid: int) -> None:
    """Connect the machine to the bridge; nodes also learn where the pods of the other nodes are."""
    address = f"{machine.address}/{instance.network.prefixlen}"
    # As a real one does, it keeps its hardware address over a power cut: nobody has to find out about a new one.
    hardware = "02:70:70:{:02x}:{:02x}:{:02x}".format(*machine.address.packed[1:])
    peer = ["peer", "name", "eth0", "address", hardware, "netns", str(pid)]
    commands.run(["ip", "link", "add", machine.link, "type", "veth", *peer])
    commands.run(["ip", "link", "set", machine.link, "master", instance.bridge, "up"])
    inside = [
        "link set lo up",
        "link set eth0 up",
        f"address add {address} dev eth0",
        # Nothing is routed further by the host; Service addresses need any route to be rewritten.
        f"route add default via {instance.host_address}",
    ]
    if machine.is_node:
        # Until its pods' bridge is there again, whoever speaks to an old pod is told so at once.
        inside.append(f"route add unreachable {instance.pod_range(machine)} metric 4096")
    others = [other for other in instance.nodes if machine.is_node and other != machine]
    inside += [f"route add {instance.pod_range(other)} via {other.address}" for other in others]
    batch = "\n".join(inside) + "\n"
    commands.run(["nsenter", "--target", str(pid), "--net", "ip", "-batch", "-"], text=batch)


def _make_cgroups(machine: Machine) -> None:
    for directory in _cgroup_directories(machine):
        directory.mkdir(exist_ok=True)
        for name, value in CPU_SHARES.items():
            if (directory / name).exists():
                (directory / name).write_text(value)


def _remove_cgroups(machine: Machine) -> None:
    deadline = time.monotonic() + CGROUP_SECONDS
    for directory in _cgroup_directories(machine):
        while directory.exists():
            try:
                for current, _, _ in os.walk(directory, topdown=False):
                    Path(current).rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                # Busy: the last process of a cut machine is still on its way out.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise SetupError(f"the control group {directory} cannot be removed: {error}") from error
                time.sleep(0.05)


def _cgroup_directories(machine: Machine) -> list[Path]:
    if (CGROUP_ROOT / "cgroup.controllers").exists():
        # The unified hierarchy (v2). Untried: the machine this was written on has v1.
        with contextlib.suppress(OSError):
            enabled = " ".join(f"+{name}" for name in CGROUP2_CONTROLLERS)
            (CGROUP_ROOT / "cgroup.subtree_control").write_text(enabled)
        return [CGROUP_ROOT / machine.cgroup]
    # On a machine with both, the empty unified hierarchy gets directories by runc too.
    hierarchies = [path.parent for path in sorted(CGROUP_ROOT.glob("*/cgroup.procs"))]
    # Several names may lead to one hierarchy (cpu → cpu,cpuacct).
    return [path / machine.cgroup for path in hierarchies if not path.is_symlink()]


def _rotate_logs(instance: Instance, machine: Machine) -> None:
    instance.logs.mkdir(parents=True, exist_ok=True)
    for log in instance.logs.glob(f"{machine.name}-*.log"):
        if log.stat().st_size > OLD_LOG_BYTES:
            log.replace(log.with_suffix(".log.old"))


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log file, or that there is none."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return f"({log.name} was not written)"
    return "\n".join(text.splitlines()[-lines:])


def _find(program: str) -> str:
    path = shutil.which(program, path=HOST_PATH)
    if path is None:
        raise SetupError(f"the program {program} is missing: install it (Debian: the package {program})")
    return path
