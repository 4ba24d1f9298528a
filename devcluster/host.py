"""What instances change on the machine as a whole, who holds it, and putting it back.

One record for all instances of all checkouts, `/run/package-platform/host.json`, is written before anything
is changed and removed by the last instance that goes down. It names the boot it belongs to: after a reboot
a stale one counts as absent.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.errors import Refused
from devcluster.instance import Instance

RECORD_DIRECTORY = Path("/run/package-platform")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

KUBELET_SYSCTLS = {
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.keys.root_maxbytes": "25000000",
}
"""Machine-wide settings that every kubelet makes by itself (`setupKernelTunables`), and to what."""

INOTIFY_SYSCTL = "fs.inotify.max_user_instances"
INOTIFY_MINIMUM = 1024
"""The common default of 128 is used up by the watches of two nodes."""


@dataclass
class HostRecord:
    """What is changed on the machine.

    Args:
        boot_id: the boot during which it was.
        sysctls: the settings as they were before the first instance.
        instances: id → state directory of the instance that holds it.
    """

    boot_id: str
    sysctls: dict[str, str] = field(default_factory=dict[str, str])
    instances: dict[str, str] = field(default_factory=dict[str, str])


def claim(instance: Instance) -> None:
    """Take the instance's number and prepare the machine's settings. Taking it again does no harm.

    Raises:
        Refused: another checkout has an instance of that number.
    """
    with _locked_record() as record:
        owner = record.instances.get(str(instance.id))
        if owner is not None and owner != str(instance.state):
            raise Refused([taken_message(instance, owner)])
        if not record.instances:
            names = [*KUBELET_SYSCTLS, INOTIFY_SYSCTL]
            record.sysctls = {name: value for name in names if (value := read_sysctl(name)) is not None}
        record.instances[str(instance.id)] = str(instance.state)
        _write(record)
        if int(read_sysctl(INOTIFY_SYSCTL) or INOTIFY_MINIMUM) < INOTIFY_MINIMUM:
            _write_sysctl(INOTIFY_SYSCTL, str(INOTIFY_MINIMUM))


def release(instance: Instance, owner: str | None = None) -> None:
    """Give the instance's number back; the last one restores the machine's settings.

    Args:
        instance: whose number it is.
        owner: the state directory it is held for, when that is not the instance's own.
    """
    if not RECORD_DIRECTORY.exists():
        return
    with _locked_record() as record:
        if record.instances.get(str(instance.id)) == (owner or str(instance.state)):
            del record.instances[str(instance.id)]
        if record.instances:
            _write(record)
            return
        for name, value in record.sysctls.items():
            # A value that is neither ours nor the old one was set by somebody else since: it stays.
            if read_sysctl(name) == KUBELET_SYSCTLS.get(name, str(INOTIFY_MINIMUM)):
                _write_sysctl(name, value)
        shutil.rmtree(RECORD_DIRECTORY)


def owner_of(instance: Instance) -> str | None:
    """Return the state directory of whoever has the instance's number, if anybody."""
    return _read().instances.get(str(instance.id))


def orphan_of(instance: Instance) -> str | None:
    """Return the state directory of an instance of this number whose checkout was deleted while it was up."""
    owner = owner_of(instance)
    if owner is None or owner == str(instance.state):
        return None
    # The state itself may have been written again by what still ran while it was being deleted.
    program = Path(owner).parents[2] / "devcluster" / "__main__.py"
    return None if program.exists() else owner


def taken_message(instance: Instance, owner: str) -> str:
    """Say who has the number, and the ways on."""
    return (
        f"instance {instance.id} belongs to {owner}: choose another with --id, or end that one there with "
        f"`python -m devcluster --id {instance.id} down`"
    )


def read_sysctl(name: str) -> str | None:
    """Return a kernel setting, or nothing when the kernel does not have it."""
    try:
        return _sysctl_path(name).read_text().strip()
    except FileNotFoundError:
        return None


def _write_sysctl(name: str, value: str) -> None:
    _sysctl_path(name).write_text(value)


def _sysctl_path(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


@contextlib.contextmanager
def _locked_record() -> Generator[HostRecord]:
    """Hold the record alone; the lock is on the directory itself, so that nothing is left when it goes."""
    while True:
        RECORD_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(RECORD_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == RECORD_DIRECTORY.stat().st_ino:
                break
        # The last instance went down while this one waited, and took the directory with it.
        os.close(descriptor)
    try:
        yield _read()
    finally:
        os.close(descriptor)


def _read() -> HostRecord:
    boot_id = BOOT_ID.read_text().strip()
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, TypeError):
        record = HostRecord(**json.loads((RECORD_DIRECTORY / "host.json").read_text()))
        if record.boot_id == boot_id:
            return record
    return HostRecord(boot_id)


def _write(record: HostRecord) -> None:
    temporary = RECORD_DIRECTORY / "host.json.new"
    temporary.write_text(json.dumps(vars(record), indent=2) + "\n")
    temporary.replace(RECORD_DIRECTORY / "host.json")
