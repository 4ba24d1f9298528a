"""What runs, as each project's own record tells it.

The record is a JSON annotation on the project's Service, written by the request that moves the traffic. It is the
truth of what is deployed; stack outputs and the history of the stack are views of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from pydantic import Field, ValidationError

from model.fields import Frozen, Tag, plain_mapping
from model.names import ASSET_BRIDGE, GITEA_PROJECT, SlotName

RECORD_ANNOTATION = "package-platform/release"
"""Annotation of a Service that holds the project's record."""
REVISION_LABEL = "release"
"""Label of a pod that tells which release it belongs to: the revision of its slot. Traffic of a blue-green project
follows it."""
SLOT_LABEL = "slot"
"""Label that tells a project's Deployments apart; part of their immutable selectors, so it is there from day one."""

INSTRUCTION_VARIABLE = "PACKAGE_PLATFORM_RELEASE"
"""Environment variable by which the command ``release`` tells the program what to do; JSON of an ``Instruction``."""

_SERVICE_TYPE = "kubernetes:core/v1:Service"
_JOB_TYPE = "kubernetes:batch/v1:Job"
_DEPLOYMENT_TYPE = "kubernetes:apps/v1:Deployment"
_NAMESPACE_TYPE = "kubernetes:core/v1:Namespace"
_AUTOSCALER_TYPE = "kubernetes:autoscaling/v2:HorizontalPodAutoscaler"
_STATEFUL_SET_TYPE = "kubernetes:apps/v1:StatefulSet"
_CONFIG_MAP_TYPE = "kubernetes:core/v1:ConfigMap"

KEPT_RELEASES = 10
"""Good releases that a record remembers, the live one included."""


Bridges = Mapping[str, Mapping[str, str]]
"""Name of a ConfigMap that configures asset bridges of Deployments → its data."""


class ConfigRef(Frozen):
    """A project's configuration, as a release remembers it.

    Two are the same when their content is: a commit of the config repository that changed nothing of this project makes
    no other release.
    """

    revision: str
    """The commit of the config repository at which it was read."""
    digest: str
    """Hash of what was read in plain text."""
    secrets: str | None = None
    """Hash of the encrypted values of what was read from encrypted files; None where there are none."""

    @property
    def key(self) -> str:
        """By what its content is found among others."""
        return f"{self.digest}-{self.secrets}" if self.secrets else self.digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigRef) and (self.digest, self.secrets) == (other.digest, other.secrets)

    def __hash__(self) -> int:
        return hash((self.digest, self.secrets))


class Release(Frozen):
    """One release of a project: what a person asks for, and rolls back to."""

    tag: Tag
    """Image tag."""
    digest: str | None = None
    """``sha256:…`` of the image, None where the registry was not asked."""
    config: ConfigRef | None = None
    """Its configuration; None for a project that has none."""


class Slot(Frozen):
    """What one Deployment of a project runs."""

    release: Release
    """What it was given to run."""
    revision: str = ""
    """Hash of its pod template, the value of its pods' label ``release``. The image, the configuration and every field
    of the project file that reaches a pod are in it."""
    warm: bool = True
    """Whether it has pods; False after ``release tidy``."""
    secrets: str | None = None
    """Keyed hash of what it was given of the stack file's secrets; None where that is nothing. They are no part of the
    release: a password that was changed is the right one for every release, also for one that is gone back to."""


class Migrated(Frozen):
    """The latest migration of a project's data."""

    release: Release
    """The release whose image did it."""
    job: str = ""
    """Name of its Job in Kubernetes, which stays until the next one; empty where it was removed."""
    before: tuple[Tag, ...] = ()
    """Tags that ran before it, and not since: to go back to one of them is to go back past the migration."""


class Record(Frozen):
    """What a project runs, and ran before."""

    live: SlotName
    """The slot that gets the traffic."""
    slots: Mapping[SlotName, Slot]
    """What each slot runs; the live one is among them."""
    history: tuple[Release, ...]
    """Releases that got all traffic, the latest first, at most ``KEPT_RELEASES``."""
    since: str = ""
    """When the live release got the traffic (RFC 3339), empty where it is not known."""
    migrated: Migrated | None = None
    """The latest migration; None where there was none."""
    weighted: bool | None = None
    """True where the Ingress lists every slot with its weight; then it moved the traffic just before this was written.
    None elsewhere."""
    storage: bool | None = None
    """True where the stack's state has volumes of the project, whatever its file asks for; None otherwise."""

    def to_annotation(self) -> str:
        """Return the record as the text of the annotation, in a stable form."""
        return self.model_dump_json(exclude_none=True)

    @property
    def release(self) -> Release:
        """The live release."""
        return self.slots[self.live].release

    def supersedes(self, wanted: Release) -> bool:
        """Tell whether going to ``wanted`` would be going back to a release that was replaced."""
        # The history forgets, and what ran before a migration must not come back by itself either.
        earlier = {*(release.tag for release in self.history), *(self.migrated.before if self.migrated else ())}
        return wanted.tag != self.release.tag and wanted.tag in earlier

    def migration_after(self, wanted: Release) -> Release | None:
        """Return the release whose migration would be gone back past, if ``wanted`` ran again; None for none."""
        return self.migrated.release if self.migrated and wanted.tag in self.migrated.before else None


class InCluster(Frozen):
    """What is known of a cluster beside the records."""

    failed_jobs: tuple[str, ...] = ()
    """Names of Jobs that are there and have failed."""
    pods: Mapping[str, int] = Field(default_factory=dict)
    """Name of a Deployment → the pods that it wants; what an autoscaler has made of it."""
    ready: tuple[str, ...] = ()
    """Names of Deployments that have all their pods, as was just seen: they can take the traffic at once. Of others the
    program asks before it moves."""
    bridges: Bridges = Field(default_factory=dict)
    """What the asset bridges of Deployments are configured with."""
    autoscaled: tuple[str, ...] | None = None
    """Names of Deployments that an autoscaler scales; None where nobody has looked."""
    ingresses: tuple[str, ...] | None = None
    """Names of Ingresses; None where nobody has looked."""
    repositories: Mapping[str, str] = Field(default_factory=dict)
    """Name of a Deployment or StatefulSet → the repository of its image, the registry's host included."""


class Instruction(InCluster):
    """What ``release`` tells the program, by an environment variable of that child process only.

    It must never be stack config: a later plain ``up`` would read it too, and delete all other projects.
    """

    project: str
    """The one Gitea project to register; the run must target exactly its component."""
    action: Literal["release", "restore", "tidy"] = "release"
    """``release``: go to the wanted tag. ``restore``: declare every slot as the record says, after a failed release.
    ``tidy``: scale down the slot that gets no traffic."""
    returns_to: Release | None = None
    """The recorded release that is gone back to: pods of it that are still warm are taken as they are, whatever the
    project file makes of it now. None where nothing is gone back to, or no slot is as the record says."""
    touched: tuple[SlotName, ...] = ()
    """To restore: the slots whose Deployments are not as the record says."""
    records: Mapping[str, Record] = Field(default_factory=dict)
    """Kubernetes name → record, read from the cluster by the caller, who holds the stack's lock."""
    digests: Mapping[str, str] = Field(default_factory=dict)
    """Key of the stack file that names a tag, ``tags`` or ``canaries`` → ``sha256:…`` of the project's image, as the
    caller checked it or the record has it; the registry is not asked again."""


def parse_record(text: str) -> Record | None:
    """Read a record from the text of its annotation; None when it is not readable as one.

    An unreadable record is no error: the next release writes a fresh one, and refusing to release because of a
    damaged note would turn a small fault into an outage.
    """
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        return None
    return record if record.live in record.slots else None


def recorded_canary(wanted: str, record: Record | None) -> Release | None:
    """Return the canary that runs, if it is the one that is still wanted: what runs is not asked of the registry. Pure.

    Args:
        wanted: Tag of the canary that the run is to have; empty for none.
        record: What the project runs.
    """
    slot = record.slots.get("canary") if record else None
    return slot.release if slot and slot.release.tag == wanted else None


def _described(resources: Mapping[str, object], resource_type: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield URN and outputs of a stack's resources of one type: objects as the API describes them."""
    for urn, resource in resources.items():
        described = plain_mapping(resource) or {}
        if described.get("type") == resource_type:
            yield urn, plain_mapping(described.get("outputs")) or {}


def _outputs_of(resources: Mapping[str, object], resource_type: str) -> Iterator[Mapping[str, Any]]:
    """Yield the outputs alone."""
    return (outputs for _, outputs in _described(resources, resource_type))


def _field(described: Mapping[str, object], *path: str) -> Mapping[str, Any]:
    """Return a mapping inside of an object; an empty one where there is none."""
    for key in path:
        described = plain_mapping(described.get(key)) or {}
    return described


def _name_of(described: Mapping[str, object]) -> str:
    return str(_field(described, "metadata").get("name"))


def records_of(resources: Mapping[str, object]) -> dict[str, Record]:
    """Return the records that a stack's resources hold: Kubernetes name of the project → record.

    Args:
        resources: URN → ``{type, outputs}``, as ``pulumi:pulumi:readStackResourceOutputs`` answers. What has no
            readable record is passed over.
    """
    records: dict[str, Record] = {}
    for service in _outputs_of(resources, _SERVICE_TYPE):
        record = parse_record(str(_field(service, "metadata", "annotations").get(RECORD_ANNOTATION, "")))
        if record:
            records[_name_of(service)] = record
    return records


def namespaces_of(resources: Mapping[str, object]) -> dict[str, str]:
    """Return the namespaces that a stack has made: URN → name.

    Args:
        resources: As for ``records_of``.
    """
    return {urn: _name_of(namespace) for urn, namespace in _described(resources, _NAMESPACE_TYPE)}


def owners_of(resources: Mapping[str, object]) -> dict[str, str]:
    """Return whose the names are that a stack's resources hold: Kubernetes name of the project → Gitea project.

    Args:
        resources: As for ``records_of``.
    """
    owners: dict[str, str] = {}
    for service in _outputs_of(resources, _SERVICE_TYPE):
        told = _field(service, "metadata", "annotations")
        if {GITEA_PROJECT, RECORD_ANNOTATION} <= told.keys():
            owners[_name_of(service)] = str(told[GITEA_PROJECT])
    return owners


def autoscaled_of(resources: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the Deployments that have an autoscaler, as a stack's resources tell it.

    Args:
        resources: As for ``records_of``.
    """
    return tuple(sorted(map(_name_of, _outputs_of(resources, _AUTOSCALER_TYPE))))


def repositories_of(resources: Mapping[str, object]) -> dict[str, str]:
    """Return where the images of a stack's Deployments and StatefulSets come from: by their names.

    Args:
        resources: As for ``records_of``.
    """
    found: dict[str, str] = {}
    for kind in (_DEPLOYMENT_TYPE, _STATEFUL_SET_TYPE):
        for workload in _outputs_of(resources, kind):
            containers = cast("list[object]", _field(workload, "spec", "template", "spec").get("containers") or [])
            own = next(filter(None, map(plain_mapping, containers)), None) or {}
            tagged, _, _ = str(own.get("image", "")).partition("@")
            repository, _, tag = tagged.rpartition(":")
            if repository and "/" not in tag:
                found[_name_of(workload)] = repository
    return found


def failed_jobs_of(resources: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the Jobs that have failed, as a stack's resources tell it.

    Args:
        resources: As for ``records_of``.
    """
    return tuple(sorted(_name_of(job) for job in _outputs_of(resources, _JOB_TYPE) if has_failed(job)))


def pods_of(resources: Mapping[str, object]) -> dict[str, int]:
    """Return how many pods each Deployment wants, as a stack's resources tell it: by its name.

    An autoscaler's doing is known as of the last update that touched the Deployment, or the last refresh.

    Args:
        resources: As for ``records_of``.
    """
    counts: dict[str, int] = {}
    for deployment in _outputs_of(resources, _DEPLOYMENT_TYPE):
        replicas = _field(deployment, "spec").get("replicas")
        # The state has all numbers as floating ones.
        if isinstance(replicas, int | float):
            counts[_name_of(deployment)] = int(replicas)
    return counts


def bridges_of(resources: Mapping[str, object]) -> Bridges:
    """Return what the asset bridges of all Deployments are configured with, as a stack's resources tell it.

    Args:
        resources: As for ``records_of``.
    """
    mounted = frozenset[str]().union(*map(mounted_bridges, _outputs_of(resources, _DEPLOYMENT_TYPE)))
    return {
        _name_of(each): {key: str(value) for key, value in _field(each, "data").items()}
        for each in _outputs_of(resources, _CONFIG_MAP_TYPE)
        if _name_of(each) in mounted
    }


def mounted_bridges(deployment: Mapping[str, object]) -> frozenset[str]:
    """Return the names of the ConfigMaps that configure the asset bridge in a Deployment's pods: one, or none.

    Args:
        deployment: As the API describes it.
    """
    listed = _field(deployment, "spec", "template", "spec").get("volumes")
    volumes = cast("list[object]", listed) if isinstance(listed, list) else []
    described = [plain_mapping(each) or {} for each in volumes]
    return frozenset(
        str(_field(each, "configMap").get("name")) for each in described if each.get("name") == ASSET_BRIDGE
    )


def has_failed(job: Mapping[str, object]) -> bool:
    """Tell whether a Job, as the API describes it, has failed for good."""
    status = plain_mapping(job.get("status")) or {}
    conditions = status.get("conditions")
    found = cast("list[object]", conditions) if isinstance(conditions, list) else []
    described = (plain_mapping(each) or {} for each in found)
    return any(each.get("type") == "Failed" and each.get("status") == "True" for each in described)
