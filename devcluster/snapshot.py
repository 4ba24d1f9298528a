"""What the machine looks like, so that a test can tell whether an instance left anything behind.

Other instances may come and go meanwhile: what belongs to them by its name is left out, and the settings
that instances share are compared only when no other instance held them at either moment.
"""

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devcluster import commands, host, machine, processes
from devcluster.instance import Instance

VOLATILE_SYSCTLS = re.compile(
    r"fs\.(dentry-state|file-nr|inode-nr|inode-state|aio-nr)|fs\.quota\..*|kernel\.(ns_last_pid|random\..*|pty\.nr)"
    r"|net\.netfilter\.nf_conntrack_count|net\.ipv[46]\.(conf|neigh)\..*|kernel\.tainted|kernel\.sched_domain\..*"
    r"|net\.ipv[46]\.route\.flush|vm\.(stat_refresh|compact_memory|drop_caches)"
)
SYSTEM_DIRECTORIES = ("/etc", "/opt", "/run", "/usr/libexec", "/var/lib", "/var/log", "/var/run")
CGROUP_NAMES = ("package-platform-*", "kubepods*", "system.slice/containerd*")


@dataclass(frozen=True)
class Snapshot:
    """The machine at one moment: kind of thing → lines.

    Args:
        lines: by kind.
        other_holders: whether another instance held the machine's settings.
    """

    lines: dict[str, frozenset[str]]
    other_holders: bool


def take(instance: Instance) -> Snapshot:
    """Look at the machine, on behalf of `instance`."""
    others = [Instance(number, instance.root) for number in range(10) if number != instance.id]
    foreign = _foreign_pattern(others)

    def own(lines: Iterable[str]) -> frozenset[str]:
        return frozenset(line for line in lines if not foreign.search(line))

    lines = {
        "process": own(f"{process.mark} (pid {process.pid})" for process in processes.marked()),
        "link": own(_links()),
        "address": own(_addresses()),
        "route": own(_routes()),
        "mount": own(_mounts()),
        "cgroup": own(_cgroups()),
        "file": own(_directories()),
        "firewall": own(_firewall()),
        "sysctl": own(_sysctls()),
    }
    return Snapshot(lines, other_holders=any(host.owner_of(other) for other in others))


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """Return one line for everything that is new, changed or gone; empty when the machine is as it was. Pure."""
    found: list[str] = []
    for kind, old in before.lines.items():
        new = after.lines[kind]
        found += [f"{kind} left behind: {line}" for line in sorted(new - old)]
        found += [f"{kind} gone: {line}" for line in sorted(old - new)]
    if not (before.other_holders or after.other_holders):
        return found
    shared = (*host.KUBELET_SYSCTLS, host.INOTIFY_SYSCTL, str(host.RECORD_DIRECTORY))
    return [line for line in found if not any(name in line for name in shared)]


def _foreign_pattern(others: list[Instance]) -> re.Pattern[str]:
    """Match what belongs to another instance by its name."""
    names: list[str] = []
    for other in others:
        names += [other.bridge, f"pp{other.id}(hub|n\\d)", f"package-platform-{other.id}-", f"instances/{other.id}/"]
    return re.compile("|".join(rf"\b{name}" for name in names))


def _links() -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir()]


def _addresses() -> list[str]:
    lines = commands.run(["ip", "-oneline", "address", "show"]).splitlines()
    # Without the index and the remaining lifetimes, which change by themselves.
    return [" ".join(line.split()[1:4]) for line in lines]


def _routes() -> list[str]:
    return [
        f"{family} {line.strip()}"
        for family in ("-4", "-6")
        for line in commands.run(["ip", family, "route", "show", "table", "all"]).splitlines()
    ]


def _mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [" ".join(line.split()[4:6]) for line in lines] + [f"netns {path}" for path in _entries("/run/netns")]


def _cgroups() -> list[str]:
    root = machine.CGROUP_ROOT
    top = [path for pattern in ("*/", "*/*/") for path in root.glob(pattern)]
    deep = [path for name in CGROUP_NAMES for path in root.rglob(name)]
    return [str(path) for path in {*top, *deep} if path.is_dir()]


def _directories() -> list[str]:
    return [path for directory in SYSTEM_DIRECTORIES for path in _entries(directory)]


def _entries(directory: str) -> list[str]:
    return [str(path) for path in Path(directory).iterdir()] if Path(directory).is_dir() else []


def _firewall() -> list[str]:
    """Return the rules of the host; counters do not count."""
    if shutil.which("iptables-save", path=machine.HOST_PATH) is None:
        return []
    rules = commands.attempt(["iptables-save"]).stdout.splitlines()
    return [re.sub(r"\[\d+:\d+\]", "", rule) for rule in rules if not rule.startswith("#")]


def _sysctls() -> list[str]:
    lines: list[str] = []
    for directory, _, names in os.walk("/proc/sys"):
        for name in names:
            path = Path(directory, name)
            key = ".".join(path.relative_to("/proc/sys").parts)
            if VOLATILE_SYSCTLS.fullmatch(key):
                continue
            try:
                lines.append(f"{key} = {path.read_text(errors='replace').strip()}")
            except OSError:
                continue  # write-only, or without meaning at the moment
    return lines
