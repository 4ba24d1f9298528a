"""A stack: one environment with the projects that it runs, checked as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, cast

from pydantic import Field, SecretBytes, SecretStr, ValidationError

from model.ack import ALB_ADD_ON, NODE_SECONDS, AckSettings, policy_problems
from model.configuration import Content
from model.environment import Environment
from model.fields import Commit, Frozen, SecretKey, Tag, field_names, plain_mapping
from model.ingress import KINDS, AlbIngress
from model.names import LATEST, InvalidName, SlotName, collisions, image_repository, kubernetes_name, slot_name
from model.plan import Action, CanaryWish
from model.problems import Problem, SettingsError, from_validation, nearest
from model.project import ENVIRONMENTS, Project, parse_project
from model.release import Bridges, ConfigRef, InCluster, Instruction, Record, Release, Slot, recorded_canary
from model.secrets import NAMES as SECRET_NAMES
from model.secrets import (
    ClusterSecrets,
    RegistryCredentials,
    StackKey,
    TlsCertificate,
    as_written,
    secrets_digest,
)
from model.storage import Claim, change_problems, claim_names, class_problems

NAMESPACE = "package-platform"
"""Namespace of our keys in a stack file."""
_USUAL_ORDER = 10
"""``alb.ingress.kubernetes.io/order`` of an Ingress without one; those of one order go by their names.
https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/use-alb-ingresses-to-perform-canary-releases-1"""
UNREADABLE = object()
"""Stands for the content of a project file that does not parse: its project exists, and its fault is told already."""


class Image(Frozen):
    """One image of a project."""

    repository: str
    """With the registry's host: ``harbor.example.com/back/sjzy.package.api``."""
    tag: Tag
    """The tag that people use."""
    digest: str | None = None
    """``sha256:…`` that the tag stood for when it was asked of the registry."""

    @property
    def reference(self) -> str:
        """What the kubelet is told: ``repository:tag@digest``; the digest decides, the tag is for people."""
        return f"{self.repository}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


class Selection(Frozen):
    """Which of the project files belong to this stack, for an environment that is split into several stacks."""

    include: tuple[str, ...] = ("*",)
    """Globs of Gitea project names that belong to it."""
    exclude: tuple[str, ...] = ()
    """Globs of those that don't, stronger than ``include``."""

    def selects(self, gitea_name: str) -> bool:
        """Tell whether a project belongs to the stack."""
        return any(fnmatchcase(gitea_name, glob) for glob in self.include) and not any(
            fnmatchcase(gitea_name, glob) for glob in self.exclude
        )


class StackConfig(Frozen):
    """Our part of a stack file, as it is written."""

    environment: Environment
    """Where the projects run."""
    tags: Mapping[str, Tag] = Field(default_factory=dict)
    """Gitea project → image tag. A project without one keeps what it runs; one that never ran is not deployed."""
    canaries: Mapping[str, CanaryWish] = Field(default_factory=dict)
    """Gitea project → a second release that gets a part of its traffic; for projects with ``strategy: canary``."""
    allow_older: tuple[str, ...] | str = ()
    """Projects that may go back to a release that was replaced: ``<project>``, or ``<project>:<tag>`` for that tag
    only. A list, or a text with commas (`-c package-platform:allowOlder=…`)."""
    config_path: str | None = Field(default=None, min_length=1)
    """Folder of a checkout of the config repository, relative to the program's; needed as soon as a project has
    ``config``. Files are read at a commit, never from its work tree."""
    config_revisions: Mapping[str, Commit] = Field(default_factory=dict)
    """Gitea project → commit of the config repository. For a project without one it is the commit that is checked out
    (``HEAD``)."""
    cluster: AckSettings | None = None
    """The cluster that this stack makes, or enters with a credential of its own; None for the one of the kubeconfig."""
    secrets: Mapping[str, Mapping[SecretKey, SecretStr]] = Field(default_factory=dict)
    """Gitea project → name → value; each value encrypted (`pulumi config set --secret --path`)."""
    secret_key: StackKey | None = None
    """Any long random text, encrypted: needed as soon as there are ``secrets``, whose hashes are made with it."""
    registry_credentials: RegistryCredentials | None = None
    """With what the cluster pulls images; its password encrypted. They become the Secret that
    ``environment.registry.pullSecret`` names, by the stack that has ``platform``."""
    ingress_certificate: TlsCertificate | None = None
    """The certificate of the ingress, its key encrypted. It becomes the Secret that
    ``environment.ingress.ha.tls`` names."""
    projects: Selection = Selection()
    """Which projects belong to this stack."""
    platform: bool = True
    """Whether this stack owns the namespace; exactly one stack of an environment does."""


def stack_schema() -> dict[str, Any]:
    """Return the JSON Schema of a whole stack file, so that editors complete and check our part of it."""
    schema = StackConfig.model_json_schema()
    definitions = schema.pop("$defs")
    environment = definitions["Environment"]
    environment["required"] = [name for name in environment["required"] if name != "name"]
    # The tags' own pattern is checked by the program; an editor can at least tell a number from a text.
    own = {f"{NAMESPACE}:{key}": value for key, value in schema["properties"].items()}
    config = {"type": "object", "properties": own, "required": [f"{NAMESPACE}:environment"]}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stack file",
        "type": "object",
        "properties": {"config": config},
        "$defs": definitions,
    }
    return cast("dict[str, Any]", as_written(whole))


class Application(Frozen):
    """A project in one environment, ready to be rendered."""

    gitea_name: str
    """The project's name in Gitea: ``SJZY.Package.Api``."""
    file: str
    """Its file, for errors."""
    project: Project = Field(discriminator="kind")
    """What the file says for this environment."""
    image: Image | None
    """What to run; None for a project that has no tag and never ran."""
    record: Record | None = None
    """What its last release recorded; None when there was none."""
    canary: CanaryWish | None = None
    """A second release that gets a part of the traffic."""
    canary_digest: str | None = None
    """``sha256:…`` of the canary's image."""
    action: Action = "release"
    """What to do with it; other than ``release`` only when the command ``release`` says so."""
    touched: tuple[SlotName, ...] = ()
    """To restore: the slots whose Deployments are not as the record says."""
    returns_to: Release | None = None
    """The recorded release that is gone back to; None unless ``release`` says so."""
    failed_jobs: tuple[str, ...] = ()
    """Names of Jobs of the stack that are there and have failed."""
    pods: Mapping[str, int] = Field(default_factory=dict)
    """Name of a Deployment → the pods that it wants, as far as known."""
    ready: tuple[str, ...] = ()
    """Names of Deployments that have all their pods, as far as known."""
    bridges: Bridges = Field(default_factory=dict)
    """What the asset bridges of the stack's Deployments are configured with, as far as known."""
    autoscaled: tuple[str, ...] | None = None
    """Names of Deployments that an autoscaler scales; None where nobody has looked."""
    ingresses: tuple[str, ...] | None = None
    """Names of Ingresses that are there; None where nobody has looked."""
    repositories: Mapping[str, str] = Field(default_factory=dict)
    """Name of a Deployment or StatefulSet of the stack → the repository of its image, as far as known."""
    claims: tuple[Claim, ...] = ()
    """The volumes that it has, as far as known."""
    kept: bool = False
    """True when the stack file has no tag for it, and it therefore keeps what it runs."""
    config_revision: str = ""
    """Commit of the config repository that is asked for; empty for the one that is checked out."""
    config: ConfigRef | None = None
    """The configuration to run with, once it was read."""
    contents: Mapping[str, Content] = Field(default_factory=dict)
    """Hash → content of every configuration that one of its slots needs."""
    secrets: str | None = None
    """Keyed hash of the secrets of the stack file to run with; None for a project that takes none."""
    secret_values: Mapping[str, Mapping[str, SecretBytes]] = Field(default_factory=dict)
    """Hash → name → value of all that one of its slots needs."""

    @property
    def content(self) -> Content | None:
        """What the configuration consists of; None for a project that has none."""
        return self.contents.get(self.config.key) if self.config else None

    @property
    def keeps_config(self) -> bool:
        """Whether it keeps the configuration that was recorded, and none is to be read."""
        recorded = self.record.release.config if self.record else None
        return self.action != "release" or bool(self.kept and recorded and not self.config_revision)

    @property
    def name(self) -> str:
        """The project's name in Kubernetes."""
        return kubernetes_name(self.gitea_name)

    def images_to_ask(self) -> dict[str, Image]:
        """Return the images whose digests are not known yet, by the key of the stack file that names their tags."""
        if self.image is None:
            return {}
        found: dict[str, Image] = {}
        if not self.kept and not self.image.digest:
            found["tags"] = self.image
        # What is put back or ended has the canary that is recorded.
        if self.canary and not self.canary_digest and self.action == "release":
            found["canaries"] = self.image.model_copy(update={"tag": self.canary.tag, "digest": None})
        return found

    def with_digests(self, digests: Mapping[str, str | None]) -> Application:
        """Return the application with the digests of ``images_to_ask``, by the same keys."""
        if self.image is None or not digests:
            return self
        image = self.image.model_copy(update={"digest": digests.get("tags", self.image.digest)})
        return self.model_copy(update={"image": image, "canary_digest": digests.get("canaries", self.canary_digest)})

    @property
    def release(self) -> Release:
        """What is wanted.

        Raises:
            ValueError: If there is no image.
        """
        if self.image is None:
            raise ValueError(f"{self.gitea_name} has no image tag: a project without one is not deployed")
        return Release(tag=self.image.tag, digest=self.image.digest, config=self.config)

    @property
    def canary_release(self) -> Release | None:
        """What the canary is to run, with the configuration of the project; None where there is none.

        Beside a release that is gone back to it stays as it is: the configuration of then may lack what it needs.
        """
        if self.canary is None:
            return None
        there = recorded_canary(self.canary.tag, self.record) if self.returns_to else None
        return there or Release(tag=self.canary.tag, digest=self.canary_digest, config=self.config)

    def running(self, release: Release) -> Application:
        """Return the application with the image and the configuration of another release."""
        if self.image is None:
            raise ValueError(f"{self.gitea_name} has no image")
        image = self.image.model_copy(update={"tag": release.tag, "digest": release.digest})
        revision = release.config.revision if release.config else self.config_revision
        return self.model_copy(update={"image": image, "config": release.config, "config_revision": revision})

    def in_slot(self, slot: Slot) -> Application:
        """Return the application with all that a slot was given to run."""
        return self.running(slot.release).model_copy(update={"secrets": slot.secrets})


class Stack(Frozen):
    """One environment with its projects."""

    environment: Environment
    applications: tuple[Application, ...]
    """In the order of their Gitea names."""
    platform: bool = True
    """Whether the namespace is declared here."""
    allow_older: tuple[str, ...] = ()
    """Projects that may go back to a release that was replaced, ``<project>`` or ``<project>:<tag>``."""
    whole: bool = True
    """False when only one project of the stack is registered, by a run that targets it."""
    config_path: str | None = None
    """Folder of a checkout of the config repository, relative to the program's."""
    cluster: AckSettings | None = None
    """The cluster that is declared or reached here; None for the one of the kubeconfig."""
    cluster_secrets: ClusterSecrets = ClusterSecrets()
    """Secrets that are no project's."""
    left_claims: tuple[Claim, ...] = ()
    """Volumes of projects that are not deployed any more, whose data is to stay."""

    @property
    def keeps_data(self) -> bool:
        """Whether a volume of the stack is to stay whatever becomes of its project."""
        wanted = (each.reclaim for application in self.deployed for each in application.project.storage)
        there = (each.reclaim for application in self.deployed for each in application.claims)
        return bool(self.left_claims) or "retain" in {*wanted, *there}

    def allows_older(self, application: Application) -> bool:
        """Tell whether a project may go back to a release that was replaced."""
        name = application.gitea_name
        tag = application.image.tag if application.image else ""
        return bool({name, f"{name}:{tag}"} & set(self.allow_older))

    @property
    def deployed(self) -> tuple[Application, ...]:
        """The projects that have a tag."""
        return tuple(application for application in self.applications if application.image)

    @property
    def kept(self) -> tuple[Application, ...]:
        """The projects that keep what they run, as the stack file has no tag for them."""
        return tuple(application for application in self.applications if application.kept)

    @property
    def waiting(self) -> tuple[Application, ...]:
        """The projects that are declared but have no tag and never ran."""
        return tuple(application for application in self.applications if not application.image)


def _config(file: str, stack: str, data: Mapping[str, Any], problems: list[Problem]) -> StackConfig | None:
    """Check our part of a stack file; adds its problems.

    Returns:
        The config without its bad parts, so that the rest is checked against it as well and all problems come at
        once; None when the environment itself is bad.
    """
    environment = plain_mapping(data.get("environment"))
    if environment is not None:
        # An environment is called after its stack unless it says another name.
        data = {**data, "environment": {"name": stack, **environment}}
    try:
        return _validated(data)
    except ValidationError as error:
        found = from_validation(
            file, error, prefix=f"{NAMESPACE}:", known=field_names(StackConfig), secret=SECRET_NAMES
        )
        problems += [replace(problem, field=_without_tags(problem.field)) for problem in found]
        rest = _without_bad_parts(data, error)
    try:
        return _validated(rest)
    except ValidationError:
        return None


def _without_tags(field: str) -> str:
    """Return a path as it is written: pydantic puts the tag of a union's member into it."""
    return ".".join(part for part in field.split(".") if part not in KINDS)


def _validated(data: Mapping[str, Any]) -> StackConfig:
    return StackConfig.model_validate_json(json.dumps(data), by_alias=True, by_name=False)


def _without_bad_parts(data: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    bad = [[str(part) for part in details["loc"]] for details in error.errors()]
    bad_tags = {path[1] for path in bad if path[0] == "tags" and len(path) > 1}
    bad_keys = {path[0] for path in bad if not (path[0] == "tags" and len(path) > 1)}
    rest = {key: value for key, value in data.items() if key not in bad_keys}
    tags = plain_mapping(rest.get("tags"))
    if tags is not None:
        rest["tags"] = {name: tag for name, tag in tags.items() if name not in bad_tags}
    return rest


def parse_stack(
    file: str,
    stack: str,
    data: Mapping[str, Any],
    files: Mapping[str, object],
    environments: Sequence[str] = (),
) -> Stack:
    """Check a stack's config and all project files, each by itself and against each other, and put them together.

    Args:
        file: Name of the stack file, for errors.
        stack: Name of the stack.
        data: Our keys of the stack file without their ``package-platform:``.
        files: Project file (``projects/SJZY.Package.Api.yaml``) → its parsed content, or ``UNREADABLE``.
        environments: Names of all environments that exist; a project file that speaks of another is refused.
            Empty when they are not known.

    Raises:
        SettingsError: With every problem of all files.
    """
    problems: list[Problem] = []
    config = _config(file, stack, data, problems)
    by_name = {gitea_name(path): path for path in files}
    problems += _names(by_name)
    projects: dict[str, Project] = {}
    readable = {path: content for path, content in files.items() if content is not UNREADABLE}
    for path, content in sorted(readable.items()):
        problems += _unknown_environments(path, content, environments)
        try:
            projects[path] = parse_project(path, content, config.environment.name if config else stack)
        except SettingsError as error:
            problems += error.problems
    if config is None:
        raise SettingsError(problems)
    problems += _wrong_tags(file, config, plain_mapping(data.get("tags")) or {}, list(by_name))
    by_project = {gitea_name(path): project for path, project in projects.items()}
    problems += _wrong_canaries(file, config, by_project)
    problems += _wrong_revisions(file, config, by_project, list(by_name))
    problems += _wrong_secrets(file, config, by_project, list(by_name), data)
    problems += _shared_routes(config.environment, projects)
    problems += _behind_weights(config.environment, projects)
    problems += _shared_claims(projects)
    for path, project in projects.items():
        problems += class_problems(path, project.storage, config.environment.storage)
    problems += _cluster_problems(file, config)
    if problems:
        raise SettingsError(problems)
    applications = tuple(
        _application(path, project, config)
        for path, project in projects.items()
        if config.projects.selects(gitea_name(path))
    )
    older = config.allow_older.split(",") if isinstance(config.allow_older, str) else config.allow_older
    return Stack(
        environment=config.environment,
        applications=applications,
        platform=config.platform,
        allow_older=tuple(filter(None, (name.strip() for name in older))),
        config_path=config.config_path,
        cluster_secrets=ClusterSecrets(registry=config.registry_credentials, certificate=config.ingress_certificate),
        cluster=config.cluster,
    )


NOTHING_KNOWN = InCluster()


def with_records(stack: Stack, records: Mapping[str, Record], cluster: InCluster = NOTHING_KNOWN) -> Stack:
    """Return the stack with what each project's last release recorded.

    A project that runs but has no tag in the stack file keeps what it runs. Taking it down would turn an omission into
    an outage, and Pulumi makes that omission easy: `pulumi up --config-path -c 'package-platform:tags["x"]=1'` replaces
    the whole map by that one entry (``newcmd.SaveConfig`` of the CLI sets top-level keys).

    Args:
        stack: As the files describe it.
        records: Kubernetes name of the project → record.
        cluster: What else is known of the cluster.
    """

    def remembered(application: Application) -> Application:
        # Field by field, as `model_dump` would turn what is in them into plain data.
        known = {name: getattr(cluster, name) for name in InCluster.model_fields}
        application = application.model_copy(update=known)
        record = records.get(application.name)
        if record is None:
            return application
        if application.image and application.action == "release":
            return application.model_copy(update={"record": record})
        # What nobody asked to be released stays where it is, also when the registry has moved.
        runs = cluster.repositories.get(slot_name(application.name, record.live))
        repository = runs or repository_of(stack.environment, application.gitea_name, application.project)
        image = Image(repository=repository, tag=record.release.tag, digest=record.release.digest)
        kept = {"record": record, "image": image, "kept": True, "config": record.release.config}
        return application.model_copy(update=kept)

    return stack.model_copy(update={"applications": tuple(map(remembered, stack.applications))})


def without_renames(stack: Stack, owners: Mapping[str, str]) -> Stack:
    """Return the stack, in which no project is called in Kubernetes as another one that is deployed.

    Args:
        stack: As the files describe it.
        owners: Kubernetes name → the Gitea project whose objects are called so.

    Raises:
        SettingsError: With a line for each project whose objects could not be made, as they are there.
    """
    problems = [
        Problem(each.file, "", message)
        for each in stack.deployed
        if (message := name_taken(each, owners.get(each.name, each.gitea_name)))
    ]
    if problems:
        raise SettingsError(problems)
    return stack


def name_taken(application: Application, owner: str) -> str:
    """Return why a project can't be deployed where another one's objects are called as its own; empty if it can.

    Args:
        application: The project.
        owner: The Gitea project whose objects are called so.
    """
    if owner == application.gitea_name:
        return ""
    return (
        f"in Kubernetes it is called {application.name}, as {owner} is, which is deployed: a project keeps the name "
        f"that it began with; for another one take {owner} down first, with a `pulumi up` without either file"
    )


def needs_claims(stack: Stack) -> bool:
    """Tell whether volumes that there are may matter, so that the state has to be read."""
    return stack.whole or any(
        each.project.storage or each.record is None or each.record.storage for each in stack.deployed
    )


def with_claims(stack: Stack, claims: Sequence[Claim]) -> Stack:
    """Return the stack with the volumes that there are.

    Args:
        stack: With the records of what runs.
        claims: All that the stack's state has.

    Raises:
        SettingsError: With a line for each volume that can't become what its project asks for.
    """
    problems: list[Problem] = []
    for application in stack.deployed:
        own = [claim for claim in claims if claim.project == application.gitea_name]
        volumes, storage = application.project.storage, stack.environment.storage
        problems += change_problems(application.file, volumes, own, storage)
    if problems:
        raise SettingsError(problems)
    deployed = {each.gitea_name for each in stack.deployed}
    left = tuple(
        each
        for each in claims
        if stack.whole and each.project not in deployed and each.reclaim == "retain" and not each.per_pod
    )
    applications = tuple(
        each.model_copy(update={"claims": tuple(claim for claim in claims if claim.project == each.gitea_name)})
        for each in stack.applications
    )
    return stack.model_copy(update={"applications": applications, "left_claims": left})


def without_a_second(stack: Stack) -> Stack:
    """Return the stack, in which no singleton would run twice because it gets another object.

    Only its own Deployment waits until the old pod is gone; one of another name, or a StatefulSet, starts beside it.

    Args:
        stack: With the records of what runs, and the volumes that there are.

    Raises:
        SettingsError: With a line for each project that would run twice.
    """
    problems = [
        Problem(each.file, "singleton", message)
        for each in stack.deployed
        if each.project.singleton and each.action == "release" and (message := _second(each))
    ]
    if problems:
        raise SettingsError(problems)
    return stack


def _second(application: Application) -> str:
    record, project = application.record, application.project
    if record is None:
        return ""
    down = f"take it down first, with `{NAMESPACE}:projects: {{exclude: [{application.gitea_name}]}}`"
    others = [name for name in record.slots if name != "main"]
    if others:
        return (
            f"it runs as {' and '.join(others)}, beside which `main` would start: release another tag of it first, "
            f"with strategy: rolling and without singleton, or {down}"
        )
    if slot_name(application.name, "main") in (application.autoscaled or ()):
        return (
            "its autoscaler goes only after the release, and would start a second pod meanwhile: release it first "
            "without singleton and autoscaling, with replicas: 1"
        )
    kinds = {True: "a StatefulSet (it has a volume with perPod)", False: "a Deployment"}
    runs = any(claim.per_pod for claim in application.claims)
    if runs != project.stateful:
        return f"it runs as {kinds[runs]}, beside which {kinds[not runs]} would start: {down}"
    return ""


def without_going_back(stack: Stack, file: str) -> Stack:
    """Return the stack, in which no project goes back to a release that was replaced unless that was allowed.

    So the stack file of a stale clone can't undo what another job has deployed.

    Args:
        stack: With the records of what runs.
        file: Name of the stack file, for errors.

    Raises:
        SettingsError: With a line for each project that would go back.
    """

    def goes_back(application: Application) -> bool:
        image, record = application.image, application.record
        if image is None or record is None or not record.supersedes(Release(tag=image.tag, digest=image.digest)):
            return False
        return not stack.allows_older(application)

    problems = [_going_back(file, application) for application in stack.applications if goes_back(application)]
    if problems:
        raise SettingsError(problems)
    return stack


def stack_name(file: str) -> str:
    """Return the name of a stack from that of its file: ``Pulumi.uat.yaml`` → ``uat``."""
    return file.removeprefix("Pulumi.").removesuffix(".yaml")


def _going_back(file: str, application: Application) -> Problem:
    name, stack = application.gitea_name, stack_name(file)
    wanted = application.image.tag if application.image else ""
    live = application.record.release.tag if application.record else ""
    return Problem(
        file,
        f"{NAMESPACE}:tags.{name}",
        f"{wanted} was replaced by {live}, which runs: if this file is behind, `release sync -s {stack}` writes the "
        f"deployed tags into it; to go back, `release rollback {name} -s {stack} --to {wanted}`, "
        f"or `-c {NAMESPACE}:allowOlder={name}:{wanted}`",
    )


def instructed(stack: Stack, instruction: Instruction) -> Stack:
    """Return the part of a stack that the command ``release`` asks for: one project, with the record that it read.

    Raises:
        SettingsError: If the stack has no such project.
    """
    names = [application.gitea_name for application in stack.applications]
    if instruction.project not in names:
        message = f"{instruction.project!r} is no project of this stack{nearest(instruction.project, names)}"
        raise SettingsError([Problem("projects", "", message)])
    digests: Mapping[str, str] = instruction.digests if stack.environment.registry.pin_digests else {}
    told = {each: getattr(instruction, each) for each in ("action", "returns_to", "touched")}
    chosen = tuple(
        application.model_copy(update=told).with_digests(digests)
        for application in stack.applications
        if application.gitea_name == instruction.project
    )
    # What is named explicitly is leave enough to go back.
    part = {"applications": chosen, "platform": False, "whole": False, "allow_older": (instruction.project,)}
    return with_records(stack.model_copy(update=part), instruction.records, instruction)


def repository_of(environment: Environment, name: str, project: Project) -> str:
    """Return the repository of a project's images, the registry's host included."""
    return f"{environment.registry.host}/{project.image or image_repository(project.kind, name)}"


def gitea_name(path: str) -> str:
    """Return the Gitea project that a project file is about: its file name without the ending."""
    return path.rsplit("/", 1)[-1].removesuffix(".yaml")


def _application(path: str, project: Project, config: StackConfig) -> Application:
    name = gitea_name(path)
    tag = config.tags.get(name)
    image = Image(repository=repository_of(config.environment, name, project), tag=tag) if tag else None
    return Application(
        gitea_name=name,
        file=path,
        project=project,
        image=image,
        canary=config.canaries.get(name),
        config_revision=config.config_revisions.get(name, ""),
        **_secrets(name, project, config),
    )


def _secrets(name: str, project: Project, config: StackConfig) -> dict[str, Any]:
    """Return a project's own secrets with their hash."""
    if project.secrets is None or config.secret_key is None:
        return {}
    values = {each: config.secrets[name][each] for each in project.secrets.names}
    digest = secrets_digest(config.secret_key, values)
    known = {each: SecretBytes(value.get_secret_value().encode()) for each, value in values.items()}
    return {"secrets": digest, "secret_values": {digest: known}}


def _names(files: Mapping[str, str]) -> list[Problem]:
    problems = [
        Problem(files[second], "", f"shares the Kubernetes name {name!r} with {files[first]}: rename one project")
        for first, second, name in collisions(files)
    ]
    for name, path in files.items():
        try:
            kubernetes_name(name)
            image_repository("backend", name)
        except InvalidName as error:
            problems.append(Problem(path, "", str(error)))
    return problems


def _unknown_environments(path: str, data: object, environments: Sequence[str]) -> list[Problem]:
    overrides = plain_mapping((plain_mapping(data) or {}).get(ENVIRONMENTS))
    if overrides is None or not environments:
        return []
    return [
        Problem(
            path,
            f"{ENVIRONMENTS}.{name}",
            f"there is no environment {name!r}, only {', '.join(sorted(environments))}{nearest(name, environments)}",
        )
        for name in overrides
        if name not in environments
    ]


def _shared_routes(environment: Environment, projects: Mapping[str, Project]) -> list[Problem]:
    owners: dict[str, str] = {}
    problems: list[Problem] = []
    for path, project in projects.items():
        for index, route in enumerate(project.routes):
            where = f"{environment.host(route)}{route.path.rstrip('/') or '/'}"
            owner = owners.setdefault(where, path)
            if owner != path:
                message = f"{where} is taken by {owner}: change host or path"
                problems.append(Problem(path, f"routes.{index}", message))
    return problems


def _behind_weights(environment: Environment, projects: Mapping[str, Project]) -> list[Problem]:
    """Return what can't be behind an ALB, whose weights move once in an update and whose rules are asked in turn."""
    behind = {path: project for path, project in projects.items() if environment.weighs(project)}
    problems = [
        Problem(
            path,
            "blueGreen.after",
            f"both is not possible behind ALB, whose weights move once in an update: use warm in {environment.name}",
        )
        for path, project in behind.items()
        if project.strategy == "blueGreen" and project.blue_green.after == "both"
    ]
    owners: dict[int, str] = {}
    for path, project in behind.items():
        if project.order and owners.setdefault(project.order, path) != path:
            problems.append(Problem(path, "order", f"{project.order} is taken by {owners[project.order]}"))
    return problems + _hidden_routes(environment, behind)


def _hidden_routes(environment: Environment, projects: Mapping[str, Project]) -> list[Problem]:
    """Return the routes that lie below another project's, which would be asked before them."""

    def place(path: str) -> tuple[int, str]:
        return projects[path].order or _USUAL_ORDER, kubernetes_name(gitea_name(path))

    routes = [(path, index, route) for path, each in projects.items() for index, route in enumerate(each.routes)]
    return [
        Problem(
            path,
            f"routes.{index}",
            f"{environment.host(route)}{route.path} lies below {upper.path} of {above}, whose rules ALB asks first: "
            f"give this project an `order` below {place(above)[0]}, or that one a higher one",
        )
        for path, index, route in routes
        for above, _, upper in routes
        if above != path
        and environment.host(upper) == environment.host(route)
        and upper.parts == route.parts[: upper.depth]
        and upper.depth < route.depth
        and place(above) < place(path)
    ]


def _shared_claims(projects: Mapping[str, Project]) -> list[Problem]:
    owners: dict[str, str] = {}
    problems: list[Problem] = []
    for path, project in projects.items():
        for index, volume in enumerate(project.storage):
            names = claim_names(kubernetes_name(gitea_name(path)), volume, project.replicas)
            taken = next((name for name in names if owners.setdefault(name, path) != path), None)
            if taken:
                message = f"{taken} is what a volume of {owners[taken]} is called too: rename one"
                problems.append(Problem(path, f"storage.{index}.name", message))
    return problems


def _cluster_problems(file: str, config: StackConfig) -> list[Problem]:
    found = policy_problems(config.cluster) if config.cluster else []
    problems = [Problem(file, f"{NAMESPACE}:cluster.{each.field}", each.message) for each in found]
    waited = config.environment.unschedulable_seconds
    if config.cluster and config.cluster.adds_nodes and waited < NODE_SECONDS:
        message = f"{waited} s end a release before a node is added for it, which a nodePool may: 240, for example"
        problems.append(Problem(file, f"{NAMESPACE}:environment.unschedulableSeconds", message))
    ingress = config.environment.ingress.ha
    if isinstance(ingress, AlbIngress):
        own = config.cluster is not None and config.cluster.makes_load_balancer
        field = f"{NAMESPACE}:environment.ingress.ha.vSwitches"
        if own and ingress.v_switches:
            problems.append(Problem(file, field, "has no place beside cluster.loadBalancer, the ALB that is taken"))
        elif not own and not ingress.v_switches:
            problems.append(Problem(file, field, "is required: the stack makes no ALB beside its cluster"))
        if config.cluster and not config.cluster.existing and not config.cluster.has_alb_controller:
            message = f"ingress.ha is of kind alb and loadBalancer is null: add `{ALB_ADD_ON}: {{}}`"
            problems.append(Problem(file, f"{NAMESPACE}:cluster.addOns", message))
    return problems


def _wrong_canaries(file: str, config: StackConfig, projects: Mapping[str, Project]) -> list[Problem]:
    problems: list[Problem] = []
    for name, wish in config.canaries.items():
        field = f"{NAMESPACE}:canaries.{name}"
        project = projects.get(name)
        if project is None:
            problems.append(Problem(file, field, f"there is no project file for it{nearest(name, list(projects))}"))
            continue
        if wish.tag == LATEST and not config.environment.allow_latest:
            problems.append(Problem(file, f"{field}.tag", _latest_refused(config)))
        if project.strategy != "canary":
            message = (
                f"its strategy in {config.environment.name} is {project.strategy}: a canary needs strategy: canary"
            )
            problems.append(Problem(file, field, message))
        elif not project.routes and (wish.weight or wish.header):
            message = f"projects/{name}.yaml has no routes: only the ingress can give a canary a part of the requests"
            problems.append(Problem(file, field, message))
    return problems


def _latest_refused(config: StackConfig) -> str:
    return (
        f"the tag 'latest' is not allowed in {config.environment.name}, where a release must be repeatable: "
        "name the tag that latest stands for"
    )


def _wrong_revisions(
    file: str, config: StackConfig, projects: Mapping[str, Project], known: Sequence[str]
) -> list[Problem]:
    problems: list[Problem] = []
    for name in config.config_revisions:
        field = f"{NAMESPACE}:configRevisions.{name}"
        if name not in known:
            problems.append(Problem(file, field, f"there is no project file for it{nearest(name, known)}"))
        elif name in projects and projects[name].config is None:
            problems.append(Problem(file, field, f"projects/{name}.yaml has no config: remove this, or say there what"))
    return problems


def _wrong_secrets(
    file: str,
    config: StackConfig,
    projects: Mapping[str, Project],
    known: Sequence[str],
    data: Mapping[str, object],
) -> list[Problem]:
    field, problems = f"{NAMESPACE}:secrets", list[Problem]()
    # What is there and bad is told already.
    written = plain_mapping(data.get("secrets")) or {}
    for name, values in config.secrets.items():
        wanted = projects[name].secrets if name in projects else None
        names = wanted.names if wanted else ()
        if name not in known:
            problems.append(Problem(file, f"{field}.{name}", f"there is no project file for it{nearest(name, known)}"))
        problems += [
            Problem(file, f"{field}.{name}.{each}", f"projects/{name}.yaml takes no such secret{nearest(each, names)}")
            for each in values
            if name in projects and each not in names
        ]
    needing = [name for name, project in projects.items() if project.secrets and config.projects.selects(name)]
    for name in needing:
        wanted = projects[name].secrets
        problems += [
            Problem(
                file,
                f"{field}.{name}.{each}",
                f"is needed by projects/{name}.yaml: "
                f'`pulumi config set --secret --path \'{NAMESPACE}:secrets["{name}"]["{each}"]\'`, which asks for it',
            )
            for each in (wanted.names if wanted else ())
            if each not in (plain_mapping(written.get(name)) or {})
        ]
    if needing and data.get("secretKey") is None:
        message = f"is needed with secrets: `openssl rand -hex 32 | pulumi config set --secret {NAMESPACE}:secretKey`"
        problems.append(Problem(file, f"{NAMESPACE}:secretKey", message))
    return problems + _nowhere_to_go(file, config)


def _nowhere_to_go(file: str, config: StackConfig) -> list[Problem]:
    """Return a line for each secret of the cluster that no Secret is named for."""
    environment, problems = config.environment, list[Problem]()
    if config.registry_credentials and not environment.registry.pull_secret:
        message = "is for the Secret that environment.registry.pullSecret names: name one"
        problems.append(Problem(file, f"{NAMESPACE}:registryCredentials", message))
    ha = environment.ingress.ha
    if config.ingress_certificate and not (ha and ha.kind != "alb" and ha.tls):
        message = (
            "is for the Secret that environment.ingress.ha.tls.secret names: name one, in the stack with the ingress"
        )
        problems.append(Problem(file, f"{NAMESPACE}:ingressCertificate", message))
    return problems


def _wrong_tags(file: str, config: StackConfig, written: Mapping[str, object], known: Sequence[str]) -> list[Problem]:
    field = f"{NAMESPACE}:tags"
    problems = [
        Problem(file, f"{field}.{name}", f"there is no project file for it{nearest(name, known)}")
        for name in written
        if name not in known
    ]
    if config.environment.allow_latest:
        return problems
    message = _latest_refused(config)
    return problems + [Problem(file, f"{field}.{name}", message) for name, tag in config.tags.items() if tag == LATEST]
