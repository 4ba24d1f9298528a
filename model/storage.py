"""A project's volumes: what is asked for, what there is, and what may become of it. Pure.

Data outlives releases, pods and even the project file; a change that the volume could not follow is refused before
anything changes, as Kubernetes would refuse it half way, and Pulumi's older provider would make the volume anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, Field, model_validator

from model.fields import ContainerPath, DnsLabel, Frozen, HostName, Quantity, plain_mapping, quantity_value, usual_bytes
from model.names import ASSET_BRIDGE, GITEA_PROJECT
from model.problems import Problem

AccessMode = Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]
Reclaim = Literal["retain", "delete"]

VOLUME_ANNOTATION = "package-platform/volume"
"""Annotation of a claim: the volume's name in the project file."""
RECLAIM_ANNOTATION = "package-platform/reclaim"
"""Annotation of a claim: whether its data outlives the project file."""

FAST, SHARED = "fast", "shared"
"""Names of classes that every environment has its own of."""
GROUP = 65532
"""Supplementary group of the pods of a project with volumes: what makes them writable for a user that is not root. Any
number would do; a project that says ``runAsUser`` gets that one."""

_CLAIM_TYPE = "kubernetes:core/v1:PersistentVolumeClaim"
_STATEFUL_SET_TYPE = "kubernetes:apps/v1:StatefulSet"
_CLASS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_TEMPORARY = "/tmp"  # noqa: S108 - a path in the container
_NAME_LIMIT = 30
_TAKEN_NAMES = (ASSET_BRIDGE, "config", "secrets", "tmp")


def _class_name(value: str) -> str:
    if not _CLASS_NAME.match(value):
        raise ValueError(f"{value!r} is no StorageClass: {FAST}, {SHARED}, or a class of the cluster, in lower case")
    return value


def _size(value: str) -> str:
    if value[-1:] in "mun" or quantity_value(value) < 1:
        raise ValueError(f"{value!r} is no size: whole bytes, such as 500Mi or 10Gi")
    # Another text of the same size would be a change, for which older providers make the volume anew.
    return usual_bytes(value)


def _share(value: str) -> str:
    parts = value.split("/")
    if not value.startswith("/") or any(part in {".", ".."} for part in parts) or any(map(str.isspace, value)):
        raise ValueError(f"{value!r} is no folder that a server exports: absolute, such as /export/package, or /")
    return value


def _volume_name(value: str) -> str:
    if value in _TAKEN_NAMES:
        raise ValueError(f"{value!r} is the pod's own: choose another name")
    if len(value) > _NAME_LIMIT:
        raise ValueError(f"{value!r} is longer than {_NAME_LIMIT} characters: shorten it")
    return value


ClassName = Annotated[str, AfterValidator(_class_name)]
"""Name of a StorageClass."""
Share = Annotated[str, AfterValidator(_share)]
"""A folder that an NFS server exports."""
Size = Annotated[Quantity, AfterValidator(_size)]
"""Bytes of a volume."""
VolumeName = Annotated[DnsLabel, AfterValidator(_volume_name)]
"""A volume's name within its project."""


class Volume(Frozen):
    """One volume of a project."""

    name: VolumeName
    """Its name; the claim in Kubernetes is called ``<project>-<name>``."""
    size: Size
    """Bytes, ``10Gi``. It may grow where the class can; it never shrinks."""
    mount: ContainerPath
    """Folder in the container; it hides what the image has there."""
    storage_class: ClassName = Field(default=FAST, alias="class")
    """``fast`` (a disk that one node has at a time), ``shared`` (a network file system), or a StorageClass by its name.
    What ``fast`` and ``shared`` are is a matter of the environment."""
    access_mode: AccessMode | None = None
    """Who may use it at once: the pods of one node (``ReadWriteOnce``), one pod (``ReadWriteOncePod``), all
    (``ReadWriteMany``). By default ``ReadWriteMany`` for ``shared``, ``ReadWriteOnce`` otherwise."""
    reclaim: Reclaim = "retain"
    """``retain``: the data stays when the volume or the whole project file is removed, and is there again when it comes
    back. ``delete``: it goes with them."""
    per_pod: bool = False
    """True for one volume for each pod, which stays with it: the project becomes a StatefulSet."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.per_pod and self.mode == "ReadWriteMany":
            raise ValueError("a volume of one pod can't be ReadWriteMany: remove perPod or accessMode")
        if _overlap(self.mount, _TEMPORARY):
            raise ValueError(f"mount {self.mount} is in {_TEMPORARY}, which is the pod's own: choose another folder")
        return self

    @property
    def mode(self) -> AccessMode:
        """The access mode, by default the usual one of its class."""
        shared = self.storage_class == SHARED and not self.per_pod
        return self.access_mode or ("ReadWriteMany" if shared else "ReadWriteOnce")

    @property
    def single(self) -> bool:
        """Whether all pods of the project would have to share what only one node, or pod, may use."""
        return not self.per_pod and self.mode != "ReadWriteMany"


class ClassFacts(Frozen):
    """What a StorageClass can."""

    access_modes: tuple[AccessMode, ...] = ("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany")
    """The access modes that its volumes may have."""
    expandable: bool = False
    """Whether its volumes can grow (``allowVolumeExpansion``)."""


class NfsServer(Frozen):
    """An NFS server for ``shared``; the cluster needs the CSI driver ``nfs.csi.k8s.io``."""

    server: HostName
    """Its host name or address."""
    share: Share
    """Folder that it exports, ``/`` for the root; each volume gets a folder of its own below."""
    mount_options: tuple[str, ...] = ("nfsvers=4.1", "hard")
    """Options of the mount. With ``hard``, processes wait for a server that is away instead of failing."""


_ONE_NODE = ClassFacts(access_modes=("ReadWriteOnce",), expandable=False)
# https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/automatically-expand-a-disk-volume:
# the classes that ACK provides have allowVolumeExpansion.
_ACK_DISK = ClassFacts(access_modes=("ReadWriteOnce", "ReadWriteOncePod"), expandable=True)
_NETWORK = ClassFacts(access_modes=("ReadWriteOnce", "ReadWriteMany"), expandable=True)
KNOWN_CLASSES: Mapping[str, ClassFacts] = {
    # github.com/rancher/local-path-provisioner: a folder on the node where the first pod was put; it can't grow.
    "local-path": _ONE_NODE,
    "nfs": _NETWORK,
    "nfs-csi": _NETWORK,
    "alicloud-disk-topology-alltype": _ACK_DISK,
    "alicloud-disk-essd": _ACK_DISK,
    "alicloud-disk-ssd": _ACK_DISK,
    "alicloud-disk-efficiency": _ACK_DISK,
    "alibabacloud-cnfs-nas": _NETWORK,
}
"""What is known of classes that many clusters have."""
_DEFAULTS: Mapping[tuple[str, str], str] = {
    ("vm", FAST): "local-path",
    ("vm", SHARED): "nfs",
    ("ack", FAST): "alicloud-disk-topology-alltype",
    ("ack", SHARED): "alibabacloud-cnfs-nas",
}


class StorageSettings(Frozen):
    """Where an environment's volumes come from."""

    kind: Literal["vm", "ack"] = "vm"
    """``vm``: own machines, where ``fast`` is ``local-path`` and ``shared`` is ``nfs``. ``ack``: Alibaba Cloud, with
    ``alicloud-disk-topology-alltype`` and ``alibabacloud-cnfs-nas``."""
    fast: ClassName | None = None
    """StorageClass that ``fast`` stands for, if not the usual one."""
    shared: ClassName | None = None
    """StorageClass that ``shared`` stands for, if not the usual one."""
    classes: Mapping[ClassName, ClassFacts] = Field(default_factory=dict)
    """What the cluster's own classes can: name → facts; laid over what is known of the usual ones."""
    check_classes: bool = True
    """Ask the cluster for the StorageClasses of the volumes before a claim is made. False only where one who deploys
    may not read them."""
    nfs: NfsServer | None = None
    """The server behind ``shared``: with it the stack that owns the namespace makes the StorageClass, otherwise the
    cluster must have it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, value in ((FAST, self.fast), (SHARED, self.shared)):
            if value in (FAST, SHARED):
                raise ValueError(f"{name} is {value}, which is no StorageClass: name one of the cluster")
            if name in self.classes:
                raise ValueError(f"classes.{name} is no StorageClass: write classes.{self.resolve(name)}")
        return self

    def resolve(self, storage_class: str) -> str:
        """Return the StorageClass that a volume's ``class`` stands for."""
        own = {FAST: self.fast, SHARED: self.shared}.get(storage_class)
        return own or _DEFAULTS.get((self.kind, storage_class), storage_class)

    def facts(self, resolved: str) -> ClassFacts | None:
        """Return what a StorageClass can, None where nothing is known of it."""
        own = _NETWORK if self.nfs and resolved == self.resolve(SHARED) else None
        return self.classes.get(resolved) or own or KNOWN_CLASSES.get(resolved)


class Claim(Frozen):
    """A volume that there is, as the stack's state tells it."""

    project: str
    """The Gitea project."""
    volume: str
    """Its name in the project file."""
    name: str
    """Name of the claim, or of its template, in Kubernetes."""
    size: str
    """What was asked for."""
    access_mode: str
    """How it may be used."""
    storage_class: str
    """Its StorageClass."""
    reclaim: Reclaim = "retain"
    """Whether its data outlives the project file."""
    per_pod: bool = False
    """Whether each pod has one."""
    component: str = ""
    """Type of the project's component in the state; empty for one of a StatefulSet."""


def strategy_problem(volumes: Sequence[Volume], strategy: str, *, singleton: bool, autoscaled: bool) -> str:
    """Return why a project with these volumes could hang in a release, empty if it can't.

    Two pods on two nodes can't have one ``ReadWriteOnce`` volume: the second waits for ever, and with it a release that
    keeps the first until the second is ready.
    """
    held = next((each for each in volumes if each.single), None)
    if held and not singleton:
        return (
            f"{held.name} is {held.mode}, and pods on two nodes would wait for it for ever: set singleton: true (one "
            "pod, stopped before its successor starts), class: shared, or perPod: true"
        )
    own = next((each for each in volumes if each.per_pod), None)
    if own and strategy != "rolling":
        return f"{own.name} is perPod, and a second group of pods would have other data: use strategy: rolling"
    if own and autoscaled:
        return f"{own.name} is perPod, and a pod that the autoscaler removes leaves its data behind: remove one of both"
    if len({each.reclaim for each in volumes if each.per_pod}) > 1:
        return "the volumes of each pod have one reclaim, retain or delete: make them the same"
    return ""


def mount_problem(volumes: Sequence[Volume], taken: Sequence[str]) -> str:
    """Return which names or folders of a project's volumes are in each other's way, empty if none are.

    Args:
        volumes: Of the project.
        taken: Paths in the container that hold something else.
    """
    for index, each in enumerate(volumes):
        earlier = volumes[:index]
        if any(each.name == other.name for other in earlier):
            return f"two volumes are called {each.name}: rename one"
        for path in (*(other.mount for other in earlier), *taken):
            if _overlap(each.mount, path):
                return f"the mount {each.mount} of {each.name} and {path} are inside each other: change one"
    return ""


def nested_paths(places: Mapping[str, Sequence[str]]) -> str:
    """Return which of a container's folders and files are in each other's way, empty if none are.

    Kubernetes refuses a path that is mounted twice, and one mount hides what another has in its folder.

    Args:
        places: What takes them → its paths.
    """
    pairs = [(what, path) for what, paths in places.items() for path in paths]
    for (what, path), (other, its) in combinations(pairs, 2):
        if _overlap(path, its):
            return f"{path} ({what}) and {its} ({other}) are inside each other: change one"
    return ""


def _overlap(path: str, other: str) -> bool:
    """Tell whether one of two paths is the other, or inside of it."""
    return f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/")


def claim_name(name: str, volume: str) -> str:
    """Return the name of a volume's claim.

    Args:
        name: The project's name in Kubernetes.
        volume: The volume's name.
    """
    return f"{name}-{volume}"


def claim_names(name: str, volume: Volume, replicas: int) -> tuple[str, ...]:
    """Return the names of all claims of a volume: one, or one for each pod, as a StatefulSet calls them.

    Args:
        name: The project's name in Kubernetes.
        volume: One of its volumes.
        replicas: How many pods it has.
    """
    if not volume.per_pod:
        return (claim_name(name, volume.name),)
    return tuple(f"{volume.name}-{name}-{ordinal}" for ordinal in range(replicas))


def class_problems(file: str, volumes: Sequence[Volume], settings: StorageSettings) -> list[Problem]:
    """Return what an environment's classes can't do for a project's volumes."""
    problems: list[Problem] = []
    for index, each in enumerate(volumes):
        resolved = settings.resolve(each.storage_class)
        facts = settings.facts(resolved)
        if facts and each.mode not in facts.access_modes:
            allowed = " or ".join(facts.access_modes)
            message = f"{each.mode} is not what class {resolved} can: {allowed}, or another class"
            problems.append(Problem(file, f"storage.{index}.accessMode", message))
    return problems


def change_problems(
    file: str, volumes: Sequence[Volume], claims: Sequence[Claim], settings: StorageSettings
) -> list[Problem]:
    """Return what there is and can't become what is asked for.

    Args:
        file: The project file.
        volumes: That it asks for.
        claims: Those of the project that there are.
        settings: The environment's classes.
    """
    problems: list[Problem] = []
    by_volume = {claim.volume: claim for claim in claims}
    for index, each in enumerate(volumes):
        claim = by_volume.get(each.name)
        if claim:
            found = _changes(each, claim, settings)
            problems += [Problem(file, f"storage.{index}.{field}", message) for field, message in found]
    return problems + _of_templates(file, volumes, claims)


def _of_templates(file: str, volumes: Sequence[Volume], claims: Sequence[Claim]) -> list[Problem]:
    """Return whether pods of a StatefulSet would have to get other volumes: their templates can't be changed."""
    wanted = {each.name for each in volumes if each.per_pod}
    there = {claim.volume for claim in claims if claim.per_pod}
    if not wanted or not there or wanted == there:
        return []
    message = (
        f"the volumes of each pod are {', '.join(sorted(there))} and can't become {', '.join(sorted(wanted))} while "
        "its pods run: see docs/how-to/storage.md"
    )
    return [Problem(file, "storage", message)]


def _changes(volume: Volume, claim: Claim, settings: StorageSettings) -> list[tuple[str, str]]:
    other_name = "for other data, add a volume of another name"
    if volume.per_pod != claim.per_pod:
        return [("perPod", f"can't change, as the data is not the same: {other_name}")]
    found: list[tuple[str, str]] = []
    resolved = settings.resolve(volume.storage_class)
    if claim.storage_class != resolved:
        message = f"can't change from {claim.storage_class} to {resolved}, data does not move by itself: {other_name}"
        found.append(("class", message))
    if claim.access_mode != volume.mode:
        message = f"can't change from {claim.access_mode} to {volume.mode} while there is data: {other_name}"
        found.append(("accessMode", message))
    wanted, there = quantity_value(volume.size), quantity_value(claim.size)
    if wanted < there:
        found.append(("size", f"can't shrink from {claim.size} to {volume.size}: keep {claim.size}; {other_name}"))
    elif wanted > there:
        message = _growth_problem(volume, claim, settings.facts(resolved))
        found += [("size", message)] if message else []
    return found


def _growth_problem(volume: Volume, claim: Claim, facts: ClassFacts | None) -> str:
    sizes = f"from {claim.size} to {volume.size}"
    if volume.per_pod:
        return f"can't grow {sizes} while its pods run, as their claims' template is fixed: see docs/how-to/storage.md"
    if facts is None:
        return (
            f"is to grow {sizes}, and nothing says that class {claim.storage_class} can: set "
            f"package-platform:environment.storage.classes.{claim.storage_class}.expandable: true if it does"
        )
    if not facts.expandable:
        return f"can't grow {sizes}, as volumes of class {claim.storage_class} can't: keep {claim.size}"
    return ""


def claims_of(resources: Mapping[str, object]) -> tuple[Claim, ...]:
    """Return the claims of projects that a stack's resources hold, those of StatefulSets included.

    Args:
        resources: URN → ``{type, outputs}``, as ``pulumi:pulumi:readStackResourceOutputs`` answers.
    """
    found: list[Claim] = []
    for urn, resource in resources.items():
        described = plain_mapping(resource) or {}
        outputs = plain_mapping(described.get("outputs")) or {}
        if described.get("type") == _CLAIM_TYPE:
            found += _claim(outputs, _component(urn))
        if described.get("type") == _STATEFUL_SET_TYPE:
            spec = plain_mapping(outputs.get("spec")) or {}
            templates = spec.get("volumeClaimTemplates")
            for template in cast("list[object]", templates) if isinstance(templates, list) else []:
                found += _claim(plain_mapping(template) or {}, None)
    return tuple(sorted(found, key=lambda claim: (claim.project, claim.volume)))


def _claim(outputs: Mapping[str, object], component: str | None) -> list[Claim]:
    metadata, spec = plain_mapping(outputs.get("metadata")) or {}, plain_mapping(outputs.get("spec")) or {}
    annotations = plain_mapping(metadata.get("annotations")) or {}
    requests = plain_mapping((plain_mapping(spec.get("resources")) or {}).get("requests")) or {}
    modes = spec.get("accessModes")
    if VOLUME_ANNOTATION not in annotations or "storage" not in requests or not isinstance(modes, list):
        return []
    return [
        Claim(
            project=str(annotations.get(GITEA_PROJECT)),
            volume=str(annotations[VOLUME_ANNOTATION]),
            name=str(metadata.get("name")),
            size=str(requests["storage"]),
            access_mode=str(cast("list[object]", modes)[0]),
            storage_class=str(spec.get("storageClassName")),
            reclaim="delete" if annotations.get(RECLAIM_ANNOTATION) == "delete" else "retain",
            per_pod=component is None,
            component=component or "",
        )
    ]


def _component(urn: str) -> str:
    """Return the type of the outermost component that a resource is in: ``urn:pulumi:stack::project::A$B$C::name``."""
    types = urn.split("::")[2:3]
    return types[0].split("$")[0] if types else ""
