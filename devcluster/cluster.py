"""Up, down, power cut, power on and status of one instance: the order in which things happen."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from devcluster import (
    addons,
    environment,
    host,
    images,
    kubectl,
    machine,
    pki,
    preflight,
    processes,
    readiness,
    toolchain,
)
from devcluster.errors import Refused
from devcluster.failure import SetupError
from devcluster.instance import Instance, Machine, UnknownMachineError
from devcluster.progress import Progress

CLUSTER_TOOLS = ("hyperkube", "registry", "coredns", "traefik", "local-path-provisioner")
USER_TOOLS = ("pulumi", "pulumi-language-python", "pulumi-resource-kubernetes", "vegeta")
BARE_TOOLS = ("hyperkube", "registry")
LOCK_SECONDS = 300.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class MachineStatus:
    """How one machine is.

    Args:
        name: of the machine.
        address: on the instance's network.
        power: whether it is switched on.
        state: `Ready` or `NotReady` as Kubernetes sees a node, `answers` or `silent` for the registry,
            `unknown` when the API does not answer.
    """

    name: str
    address: str
    power: bool
    state: str


def up(instance: Instance, progress: Progress, *, bare: bool = False) -> None:
    """Bring the instance up, or complete it when it is up already or half so.

    Args:
        instance: the cluster.
        progress: is told every step.
        bare: nodes only, without add-ons and images (and without the tools that only they need).

    Raises:
        Refused: this machine cannot carry it.
        SetupError: something did not come up; the end of its log is in the details.
    """
    preflight.check(instance)
    with _only_one(instance, progress):
        with progress.step("tools"):
            toolchain.ensure(BARE_TOOLS if bare else (*CLUSTER_TOOLS, *USER_TOOLS), progress)
        # The number or the network may have been taken while the tools were built.
        preflight.check(instance)
        _clear_orphan(instance)
        host.claim(instance)
        with progress.step("machines on"):
            pki.ensure(instance)
            environment.write(instance)
            _boot_missing(instance)
        with progress.step("registry"):
            readiness.wait_for_registry(instance)
        if not bare:
            with progress.step("system images"):
                images.push_system(instance.registry_endpoint, progress)
        with progress.step("Kubernetes API"):
            readiness.wait_for_api(instance)
            manifests = [addon.name for addon in addons.ALL]
            addons.apply(instance, [addons.KUBELET_ACCESS, *([] if bare else manifests)])
        with progress.step("nodes"):
            readiness.wait_for_nodes(instance, progress)
        if not bare:
            with progress.step("sample images"):
                images.push_samples(instance.registry_endpoint, progress)
            with progress.step("DNS"):
                addons.label_ingress_nodes(instance)
                # Not waited for: a claim waits for it, and most projects have none.
                addons.apply(instance, [addons.LOCAL_PATH])
                readiness.wait_for_addons(instance, progress)


def reserve(root: Path, numbers: Iterable[int], *, more: int = 0) -> Instance:
    """Take the first of several numbers that can be had, for a program that does not care which: tests, benchmarks.

    `down` gives it back, also when it was never up.

    Args:
        root: the repository's root.
        numbers: the numbers to choose from, the best first; one that this checkout has already can be had.
        more: how many numbers after it have to be free as well.

    Raises:
        Refused: none can be had, with the reasons of each.
    """
    problems: list[str] = []
    for number in numbers:
        instance = Instance(number, root)
        try:
            for distance in range(more + 1):
                preflight.check(instance.neighbour(distance))
            _clear_orphan(instance)
            host.claim(instance)
        except Refused as refused:
            problems += refused.problems
        else:
            return instance
    raise Refused(list(dict.fromkeys(problems)))


def down(instance: Instance, progress: Progress, *, wipe: bool = False) -> None:
    """Cut every machine's power and leave the host as it was before `up`; the disks stay unless wiped.

    Args:
        instance: the cluster; nothing happens when it is down already.
        progress: is told every step.
        wipe: remove the instance's state directory too: disks, images, certificates, Pulumi state.

    Raises:
        Refused: the instance of that number is another checkout's.
    """
    preflight.check_rights()
    if not _lock_file(instance).exists() and host.owner_of(instance) is None:
        return
    with _only_one(instance, progress), progress.step("down"):
        _clear_orphan(instance)
        owner = host.owner_of(instance)
        if owner not in (None, str(instance.state)) and not wipe:
            raise Refused([host.taken_message(instance, str(owner))])
        for service in instance.services:
            processes.end_all(service)
        # Links are told from a stranger's by the claim, or by processes that can only be ours.
        was_on = [each for each in instance.machines if processes.end_all(each.directory)]
        if was_on or owner == str(instance.state):
            for each in instance.machines:
                machine.cut(each)
            machine.unplug_bridge(instance)
        host.release(instance)
        if wipe:
            _wipe(instance)


def node_down(instance: Instance, name: str) -> bool:
    """Cut the power of one node.

    Returns:
        Whether it was on.

    Raises:
        Refused: there is no such node, or the instance of that number is another checkout's.
    """
    preflight.check_rights()
    node = find_node(instance, name)
    with _only_one(instance, Progress(quiet=True)):
        return _is_ours(instance) and machine.cut(node)


def node_up(instance: Instance, name: str) -> bool:
    """Switch one node on; it joins the cluster in the background.

    Returns:
        Whether it was off.

    Raises:
        Refused: there is no such node, or the instance of that number is another checkout's.
        SetupError: the cluster itself is down.
    """
    preflight.check_rights()
    node = find_node(instance, name)
    with _only_one(instance, Progress(quiet=True)):
        if not _is_ours(instance) or not machine.is_on(instance.hub):
            raise SetupError("the cluster is down: bring it up with `python -m devcluster up`")
        if machine.is_on(node):
            return False
        machine.boot(instance, node)
        return True


def status(instance: Instance) -> list[MachineStatus]:
    """Return how every machine is, the hub first."""
    nodes = kubectl.items(instance, "nodes") if machine.is_on(instance.nodes[0]) else None
    ready = readiness.ready_nodes(nodes or [], machine.boot_times(instance))
    rows: list[MachineStatus] = []
    for each in instance.machines:
        if not each.is_node:
            state = "answers" if readiness.registry_answers(instance) else "silent"
        elif nodes is None:
            state = "unknown"
        else:
            state = "Ready" if each.name in ready else "NotReady"
        rows.append(MachineStatus(each.name, str(each.address), machine.is_on(each), state))
    return rows


def find_node(instance: Instance, name: str) -> Machine:
    """Return the node called `name`.

    Raises:
        Refused: there is none; the message lists those that there are.
    """
    try:
        return instance.node(name)
    except UnknownMachineError as error:
        raise Refused([str(error)]) from error


def _is_ours(instance: Instance) -> bool:
    """Tell whether this checkout has the instance's number: links and control groups follow from that alone.

    Raises:
        Refused: another checkout has it.
    """
    owner = host.owner_of(instance)
    if owner == str(instance.state):
        return True
    if owner is not None and host.orphan_of(instance) is None:
        raise Refused([host.taken_message(instance, owner)])
    return False


def _boot_missing(instance: Instance) -> None:
    """Switch on every machine that is off, the registry first."""
    machine.plug_bridge(instance)
    for each in instance.machines:
        if not machine.is_on(each):
            machine.boot(instance, each)


def _clear_orphan(instance: Instance) -> None:
    """Clear away an instance of this number whose checkout was deleted while it was up."""
    owner = host.orphan_of(instance)
    if owner is None:
        return
    for service in instance.services:
        processes.end_all(Path(owner) / service.name)
    for each in instance.machines:
        processes.end_all(Path(owner) / each.name)
        machine.cut(each)
    machine.unplug_bridge(instance)
    host.release(instance, owner)


def _wipe(instance: Instance) -> None:
    if instance.state.exists():
        shutil.rmtree(instance.state)
    if instance.id == 0:
        (instance.root / ".dev" / "env").unlink(missing_ok=True)


def _lock_file(instance: Instance) -> Path:
    """Return the path of the lock; it lies beside the state, which `--wipe` removes."""
    return instance.state.with_name(f"{instance.id}.lock")


@contextlib.contextmanager
def _only_one(instance: Instance, progress: Progress) -> Generator[None]:
    """Keep a second command off the same instance; it waits for the first one to end."""
    instance.state.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_lock_file(instance), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            progress.note("another devcluster command is at work on this instance")
            if time.monotonic() > deadline:
                raise SetupError("another devcluster command has been at work for 5 min: end it, then try again")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
