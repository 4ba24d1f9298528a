"""Whether this machine can carry an instance: every objection at once, before anything is changed."""

import json
import os
import shutil
import sys
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from devcluster import commands, host, machine
from devcluster.errors import Refused
from devcluster.instance import Instance

NEEDED_DISK_BYTES = 5 * 1024**3
CGROUP1_CONTROLLERS = ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
CGROUP2_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
NEEDED_PROGRAMS = ("ip", "unshare", "nsenter", "mount")


def check_rights() -> None:
    """Check what every command that changes a machine needs.

    Raises:
        Refused: not Linux, or not root.
    """
    if sys.platform != "linux":
        raise Refused(["the embedded cluster needs Linux: use one, or an existing cluster by its KUBECONFIG"])
    if os.geteuid() != 0:
        raise Refused(["the embedded cluster makes namespaces and network links: run this as root (sudo)"])


def check(instance: Instance) -> None:
    """Check everything that `up` needs.

    Raises:
        Refused: with all problems.
    """
    check_rights()
    problems = [
        *_program_problems(),
        *_ownership_problems(instance),
        *_disk_problems(instance),
        *cgroup_problems(machine.CGROUP_ROOT),
    ]
    if problems:
        raise Refused(problems)


def _program_problems() -> list[str]:
    missing = [name for name in NEEDED_PROGRAMS if shutil.which(name, path=machine.HOST_PATH) is None]
    return [f"missing programs: {' '.join(missing)}; install iproute2, util-linux and mount"] if missing else []


def _ownership_problems(instance: Instance) -> list[str]:
    owner = host.owner_of(instance)
    if owner is not None:
        usable = owner == str(instance.state) or host.orphan_of(instance) is not None
        return [] if usable else [host.taken_message(instance, owner)]
    problems: list[str] = []
    names = [instance.bridge, *(machine.link for machine in instance.machines)]
    if taken := [name for name in names if machine.link_exists(name)]:
        problems.append(
            f"the network link {' '.join(taken)} exists and was not made by this tool: remove it with "
            "`ip link delete`, or choose another instance with --id"
        )
    if shutil.which("ip", path=machine.HOST_PATH):
        routes = json.loads(commands.run(["ip", "-4", "-json", "route", "show", "table", "all"]) or "[]")
        problems += overlap_problems(instance, routes, ignored_links=names)
    return problems


def overlap_problems(instance: Instance, routes: list[dict[str, Any]], ignored_links: list[str]) -> list[str]:
    """Return an objection for every route that leads into the instance's network. Pure.

    Args:
        instance: the instance to be.
        routes: as `ip -json route` lists them.
        ignored_links: links that are objected to for themselves.
    """
    found: dict[str, str] = {}
    for route in routes:
        destination = str(route["dst"])
        link = str(route.get("dev", "?"))
        if destination == "default" or link in ignored_links:
            continue
        network = ip_network(destination, strict=False)
        if isinstance(network, IPv4Network) and network.prefixlen > 0 and network.overlaps(instance.network):
            found.setdefault(link, destination)
    return [
        f"the network {instance.network} overlaps the route {destination} on {link}: choose another instance with --id"
        for link, destination in found.items()
    ]


def _disk_problems(instance: Instance) -> list[str]:
    existing = next(path for path in (instance.state, *instance.state.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free >= NEEDED_DISK_BYTES:
        return []
    return [f"only {free / 1024**3:.1f} GiB are free below {existing}: make room for at least 5 GiB"]


def cgroup_problems(root: Path) -> list[str]:
    """Return the objections against the machine's control groups, which lie at `root`."""
    unified = root / "cgroup.controllers"
    if unified.exists():
        missing = [name for name in CGROUP2_CONTROLLERS if name not in unified.read_text().split()]
        kind = "v2"
    else:
        missing = [name for name in CGROUP1_CONTROLLERS if not (root / name / "tasks").exists()]
        kind = "v1"
    if missing:
        return [f"cgroup {kind} at {root} lacks {' '.join(missing)}: mount them, or boot with them enabled"]
    if not os.access(root if kind == "v2" else root / "memory", os.W_OK):
        return [f"the control groups at {root} are read-only: run on the machine itself or in a privileged container"]
    return []
