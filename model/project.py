"""A Gitea project as its file in ``projects/`` describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from model.build import Build
from model.configuration import Configuration
from model.fields import (
    Count,
    Frozen,
    HostName,
    Percent,
    Port,
    Quantity,
    Seconds,
    UrlPath,
    VariableName,
    field_names,
    merged,
    plain_mapping,
    quantity_value,
)
from model.plan import After, StrategyName
from model.problems import Problem, SettingsError, from_validation, several
from model.secrets import ProjectSecrets
from model.storage import Volume, mount_problem, nested_paths, strategy_problem

LARGEST_GRACE_SECONDS = 3600
POD_VARIABLES: Mapping[str, str] = {"POD_NAME": "metadata.name", "POD_IP": "status.podIP", "NODE_NAME": "spec.nodeName"}
"""Environment variables that every pod has of its own → the field of the pod that they tell."""
PORT_VARIABLE = "ASPNETCORE_HTTP_PORTS"
"""ASP.NET Core's own switch for the port to listen on, which a back end's pods have; harmless to anything else.
https://learn.microsoft.com/aspnet/core/fundamentals/servers/kestrel/endpoints"""
ASSET_BRIDGE_PORT = 8079
"""Port of the nginx before a blue-green front end's own one; below 8080, where most projects listen."""
ASSET_BRIDGE_FOLDER = "/etc/asset-bridge"
"""Folder of that one's configuration in its container."""
_LARGEST_USER = 2**31 - 1


def _not_an_address(value: str) -> str:
    try:
        IPv4Address(value)
    except ValueError:
        return value
    raise ValueError(f"{value!r} is an address: an Ingress knows hosts by name only")


class Route(Frozen):
    """One host and path at the ingress that leads to the project."""

    host: Annotated[HostName, AfterValidator(_not_an_address)]
    """Host name. Without a ``.`` it is put below the environment's ``domain`` (``api`` → ``api.test.example.com``);
    with one it is used as it is."""
    path: UrlPath = "/"
    """Path prefix; the project sees the whole path, nothing is cut off."""

    @property
    def depth(self) -> int:
        """How many parts the path has: of two prefixes that fit, the deeper one is meant."""
        return len(self.parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path, by which prefixes are compared: ``/a/b`` → a, b."""
        return tuple(part for part in self.path.split("/") if part)


class Probe(Frozen):
    """How the kubelet asks a container over HTTP."""

    path: UrlPath
    """Path to ``GET`` on the project's port; a status from 200 to 399 is a yes."""
    period_seconds: Annotated[int, Field(ge=1, le=300)] = 2
    """Seconds from one question to the next."""
    timeout_seconds: Annotated[int, Field(ge=1, le=60)] = 2
    """Seconds after which no answer is a no."""
    failure_threshold: Annotated[int, Field(ge=1, le=300)] = 3
    """This many no in a row count."""


class LivenessProbe(Probe):
    """The question after whose no the container is restarted."""

    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=LARGEST_GRACE_SECONDS)] = 5
    """Seconds from such a no until the container is killed, instead of ``shutdown``'s: one that hangs has nothing to
    finish, and would be waited for to the last second. ``shutdown.preStopSeconds`` are the first of them: a container
    that is to do something at SIGTERM, such as write a dump, needs more than these (the kubelet gives at least 2 s;
    ``killContainer`` in pkg/kubelet/kuberuntime)."""


class Probes(Frozen):
    """The three questions of the kubelet."""

    startup: Probe
    """Asked first and until its first yes; its limit (threshold x the longer of period and time-out, as the kubelet
    asks one question after the other) is the time that a start may take."""
    readiness: Probe
    """Asked all the time; a pod that says no gets no requests."""
    liveness: LivenessProbe
    """Asked all the time; a container that says no is restarted. It must not ask for what the project depends on: a
    restart makes no database well, and would take all pods at once."""


class ComputeResources(Frozen):
    """CPU (cores) and memory (bytes)."""

    cpu: Quantity | None = None
    """Cores, ``250m`` = a quarter."""
    memory: Quantity | None = None
    """Bytes, ``128Mi``."""


class Resources(Frozen):
    """What a container is promised and what it may take at most."""

    requests: ComputeResources = ComputeResources(cpu="50m", memory="64Mi")
    """Promised: the scheduler counts it."""
    limits: ComputeResources = ComputeResources(memory="512Mi")
    """At most. No CPU limit by default: it throttles at start-up and gains nothing where requests are set."""

    @model_validator(mode="after")
    def _requests_fit(self) -> Self:
        for name in ("cpu", "memory"):
            request, limit = getattr(self.requests, name), getattr(self.limits, name)
            if request and limit and quantity_value(request) > quantity_value(limit):
                raise ValueError(f"requests.{name} {request} is over limits.{name} {limit}")
        return self


class Autoscaling(Frozen):
    """A HorizontalPodAutoscaler on CPU use; the cluster needs a metrics server."""

    min_replicas: Annotated[Count, Field(ge=1)] = 2
    """Fewest pods."""
    max_replicas: Annotated[Count, Field(ge=1)]
    """Most pods."""
    cpu_percent: Percent = 70
    """Aim, in percent of ``resources.requests.cpu``."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas {self.min_replicas} is over maxReplicas {self.max_replicas}")
        return self


class Shutdown(Frozen):
    """How a pod leaves without losing a request.

    It is taken out of the endpoints at once, keeps serving for ``preStopSeconds`` while every proxy learns of it,
    then gets the stop signal and ``drainSeconds`` to finish.
    """

    pre_stop_seconds: Seconds = 10
    """Seconds between leaving the endpoints and the stop signal (``lifecycle.preStop.sleep``). Not waited for by a
    release: the next pod starts meanwhile. 0 switches the protection off."""
    drain_seconds: Seconds = 30
    """Seconds from the stop signal to the kill; 30 is also .NET's own default shutdown time-out."""

    @property
    def grace_seconds(self) -> int:
        """Longest that a pod may take to leave (``terminationGracePeriodSeconds``)."""
        return self.pre_stop_seconds + self.drain_seconds

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.grace_seconds > LARGEST_GRACE_SECONDS:
            raise ValueError(f"preStopSeconds + drainSeconds is over {LARGEST_GRACE_SECONDS}")
        return self


class Rollout(Frozen):
    """The pace of a release."""

    max_surge: Percent = 25
    """Percent of pods that may run beyond ``replicas`` during a rolling release, rounded up (so at least one)."""
    min_ready_seconds: Seconds = 2
    """Seconds that a new pod must have been ready before an old one goes."""
    progress_deadline_seconds: Annotated[int, Field(ge=11, le=3600)] = 300
    """Seconds without progress after which a release counts as failed. Behind ALB a new pod is watched for 10 s. Where
    a pod has to be gone before its successor starts (``singleton``, volumes per pod), the time that it may take to
    leave is added."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        # Kubernetes refuses such a Deployment.
        if self.min_ready_seconds >= self.progress_deadline_seconds:
            raise ValueError(
                f"minReadySeconds {self.min_ready_seconds} must be below progressDeadlineSeconds "
                f"{self.progress_deadline_seconds}"
            )
        return self


class SmokeCheck(Frozen):
    """A request to the new pods before they get traffic."""

    path: UrlPath
    """Path to ``GET`` at the project's port."""
    status: Annotated[int, Field(ge=100, le=599)] = 200
    """The status that is right."""
    contains: str | None = None
    """Text that the answer must have."""


class BlueGreen(Frozen):
    """How ``strategy: blueGreen`` goes about it."""

    after: After = "warm"
    """What becomes of the old pods: ``warm``, they stay without traffic, so that a rollback starts none; ``both``, they
    are upgraded after the traffic has left them, and both groups serve (the A/B pair)."""
    warm_for: Annotated[int, Field(ge=0, le=7 * 24 * 3600)] = 3600
    """Seconds that the old pods stay at least; ``release tidy`` scales down what is past it."""
    smoke: tuple[SmokeCheck, ...] = ()
    """Asked of the new pods before the traffic moves; what is answered wrong for 15 s stops the release."""


class Canary(Frozen):
    """How ``strategy: canary`` goes about it."""

    replicas: Annotated[Count, Field(ge=1)] | None = None
    """Pods of the canary; by default as many as carry its weight, at least one."""


class Migration(Frozen):
    """What changes a back end's database before a release: a command of its own image, run as a Job."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """Program and arguments; no shell is involved."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=24 * 3600)] = 600
    """Seconds after which it is ended, and has failed."""
    backoff_limit: Annotated[int, Field(ge=0, le=10)] = 0
    """How often it is tried again when it fails. 0, as one that stopped half way may need a person first."""


def _as_migration(value: object) -> object:
    """Return the long form. What passes here is no JSON any more, so its list has to be a tuple."""
    fields = plain_mapping(value) or ({"command": value} if isinstance(value, list) else None)
    if fields and isinstance(fields.get("command"), list):
        return {**fields, "command": tuple(cast("list[object]", fields["command"]))}
    return cast("object", value)


class ProjectBase(Frozen):
    """What back ends and front ends have in common."""

    description: str = ""
    """What people call it, for instance 管理后台Api."""
    image: str | None = Field(default=None, pattern=r"^[a-z0-9]+([._/-]+[a-z0-9]+)*$")
    """Image repository below the registry; by default ``back/<name>`` or ``front/<name>``, in lower case."""
    port: Annotated[Port, Field(ge=1024)] = 8080
    """Port that the container listens on; 1024 or higher, as it runs without privileges."""
    replicas: Count = 2
    """Pods; with ``autoscaling`` only the number at creation."""
    singleton: bool = False
    """True for what must never run twice (a task runner): one pod, stopped before its successor starts, so a
    release has a gap."""
    routes: tuple[Route, ...] = ()
    """Where the ingress offers it; none for a project that is called only inside the cluster."""
    order: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Behind ALB: when its rules are asked, lower numbers first; needed only where its path lies below another
    project's on one host. No other Ingress of the same ALB may have the number. Elsewhere the longest path wins."""
    strategy: StrategyName = "rolling"
    """How a release replaces the running one: ``rolling`` (pod by pod), ``blueGreen`` (a second group of pods gets all
    traffic at once) or ``canary`` (a second release gets a part of it)."""
    blue_green: BlueGreen = BlueGreen()
    """Used with ``strategy: blueGreen``."""
    canary: Canary = Canary()
    """Used with ``strategy: canary``."""
    env: Mapping[VariableName, str] = Field(default_factory=dict)
    """Plain environment variables. No secrets here: this file is in Git."""
    config: Configuration | None = None
    """Files and environment variables from the config repository (``package-platform:configPath``)."""
    storage: tuple[Volume, ...] = ()
    """Volumes, whose data outlives releases and pods."""
    secrets: ProjectSecrets | None = None
    """What it takes of ``package-platform:secrets``, as environment variables or files."""
    build: Build = Build()
    """How the pipeline makes the image. A release of an image that is there needs none of it."""
    probes: Probes
    """Health questions."""
    resources: Resources = Resources()
    """CPU and memory."""
    autoscaling: Autoscaling | None = None
    """Scale by load; off by default."""
    shutdown: Shutdown = Shutdown()
    """How a pod leaves."""
    rollout: Rollout = Rollout()
    """The pace of a release."""
    node_lost_seconds: Seconds | None = None
    """Seconds that its pods stay on a node that Kubernetes takes for lost, before they are replaced elsewhere. By
    default the environment's; a ``singleton`` stays until somebody says that the node is off, for a node that is only
    cut off goes on running its pods. So do pods with volumes of their own, which nothing may replace until then."""
    run_as_user: Annotated[int, Field(ge=1, le=_LARGEST_USER)] | None = None
    """Numeric user id, needed only where the image names its user by a word; never root."""

    @property
    def turn_seconds(self) -> int:
        """Longest that one turn of a rollout may take, until a pod more is ready.

        Where a pod must be gone before its successor starts, the deadline runs while it leaves.
        """
        leaving = self.shutdown.grace_seconds if self.singleton or self.stateful else 0
        return self.rollout.progress_deadline_seconds + leaving

    @property
    def turns(self) -> int:
        """The most turns that a rollout may take: so many pods start one group after the other."""
        pods = max(1, self.replicas, self.autoscaling.max_replicas if self.autoscaling else 0)
        if self.stateful:
            return pods
        # Kubernetes rounds up; nothing that serves may be missing meanwhile.
        together = max(1, -(-pods * self.rollout.max_surge // 100))
        return -(-pods // together)

    @property
    def stateful(self) -> bool:
        """Whether each pod has a volume of its own, so that they are those of a StatefulSet."""
        return any(each.per_pod for each in self.storage)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        storage = self._storage_problem()
        found = [
            self._singleton_problem(),
            self._startup_problem(),
            storage,
            self._autoscaling_problem(),
            self._variable_problem(),
            self._route_problem(),
            # The paths tell it again, in other words.
            self._secret_file_problem() or ("" if storage else nested_paths(self._paths())),
        ]
        if any(found):
            raise several({"": list(filter(None, found))})
        return self

    def _startup_problem(self) -> str:
        startup, deadline = self.probes.startup, self.rollout.progress_deadline_seconds
        limit = max(startup.period_seconds, startup.timeout_seconds) * startup.failure_threshold
        if limit < deadline:
            return ""
        return (
            f"probes.startup allows {limit} s, which must stay below rollout.progress_deadline_seconds "
            f"({deadline}), or a slow start is reported as a hanging release"
        )

    def _storage_problem(self) -> str:
        problem = strategy_problem(
            self.storage, self.strategy, singleton=self.singleton, autoscaled=self.autoscaling is not None
        ) or mount_problem(self.storage, self.config.paths if self.config else ())
        return f"storage: {problem}" if problem else ""

    def _route_problem(self) -> str:
        doubles = [route for index, route in enumerate(self.routes) if route in self.routes[:index]]
        return f"routes has {doubles[0].host}{doubles[0].path} twice" if doubles else ""

    def _secret_file_problem(self) -> str:
        for each in self.secrets.files if self.secrets else ():
            if self.config and self.config.takes(each.path):
                return f"secrets.files has {each.path}, which config has too: change one"
        return ""

    def _singleton_problem(self) -> str:
        if not self.singleton:
            return ""
        if self.autoscaling:
            return "a singleton can't have autoscaling: remove one of the two"
        if self.strategy != "rolling":
            return f"a singleton must never run twice, which strategy {self.strategy} does: use rolling"
        return "" if self.replicas == 1 else f"a singleton has replicas: 1, not {self.replicas}"

    def _autoscaling_problem(self) -> str:
        scaled, resources = self.autoscaling, self.resources
        if scaled is None:
            return ""
        if not 1 <= self.replicas <= scaled.max_replicas:
            # Without a pod an autoscaler is off, and never starts the first one.
            return f"replicas {self.replicas} is not from 1 to autoscaling.maxReplicas {scaled.max_replicas}"
        cpu = resources.requests.cpu or resources.limits.cpu
        if cpu is None or not quantity_value(cpu):
            return "autoscaling goes by the share of resources.requests.cpu that is used: name one"
        return ""

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that the file names."""
        return (*self.env, *(self.secrets.env if self.secrets else ()))

    @property
    def pod_variables(self) -> tuple[str, ...]:
        """The environment variables that its pods have of their own; a file of the config repository can't set them."""
        return tuple(POD_VARIABLES)

    def _variable_problem(self) -> str:
        secret = self.secrets.env if self.secrets else ()
        both = {*self.env} & {*secret}
        if both:
            return f"{min(both)} is in env and in secrets.env: remove one of the two"
        own = {*self.variables} & {*POD_VARIABLES}
        return f"{min(own)} is a variable that every pod has of its own: choose another name" if own else ""

    def _paths(self) -> dict[str, Sequence[str]]:
        """Return what takes a place in the container → its folders and files."""
        return {
            "the pod itself": ("/tmp",),  # noqa: S108 - a path in the container
            "storage": [each.mount for each in self.storage],
            "config": self.config.paths if self.config else (),
            "secrets.files": [each.path for each in self.secrets.files] if self.secrets else (),
        }


class BackendProject(ProjectBase):
    """A back end: an HTTP service, usually .NET."""

    kind: Literal["backend"]
    """``backend``."""
    probes: Probes = Probes(
        startup=Probe(path="/healthz/startup", period_seconds=1, failure_threshold=120),
        readiness=Probe(path="/healthz/ready"),
        liveness=LivenessProbe(path="/healthz/live", period_seconds=5, timeout_seconds=5),
    )
    migrate: (
        Annotated[
            Migration,
            BeforeValidator(
                _as_migration, json_schema_input_type=Migration | Annotated[list[str], Field(min_length=1)]
            ),
        ]
        | None
    ) = None
    """Run with the new image before the new pods, once for each release; a list is its ``command``. It must leave the
    running release able to work, which serves until the new pods are ready, and again after a rollback."""

    @property
    def pod_variables(self) -> tuple[str, ...]:
        """See ``ProjectBase``; of a back end also the one that names its port, unless the file names that."""
        own = super().pod_variables
        return own if PORT_VARIABLE in self.variables else (*own, PORT_VARIABLE)


class FrontendProject(ProjectBase):
    """A front end: static files behind nginx."""

    kind: Literal["frontend"]
    """``frontend``."""
    strategy: StrategyName = "blueGreen"
    """How a release replaces the running one: ``rolling`` (pod by pod), ``blueGreen`` (a second group of pods gets all
    traffic at once) or ``canary`` (a second release gets a part of it)."""
    assets: tuple[Annotated[UrlPath, Field(pattern=r"^[A-Za-z0-9._~/-]+$")], ...] = ("/",)
    """Paths below which a file that one group of pods lacks is asked of the other, with ``strategy: blueGreen``: a page
    that was loaded before the switch still finds its content-hashed assets, and one of the new release finds its own
    from the first moment. Empty switches it off. What is missing must be answered with 404 there, not with a page."""
    probes: Probes = Probes(
        startup=Probe(path="/healthz", period_seconds=1, failure_threshold=60),
        readiness=Probe(path="/healthz"),
        liveness=LivenessProbe(path="/healthz", period_seconds=5, timeout_seconds=5),
    )
    resources: Resources = Resources(
        requests=ComputeResources(cpu="20m", memory="32Mi"), limits=ComputeResources(memory="128Mi")
    )

    @property
    def bridged(self) -> bool:
        """Whether an nginx of ours stands before the project's own one, to ask the other slots for assets."""
        return self.strategy == "blueGreen" and bool(self.assets)

    def _paths(self) -> dict[str, Sequence[str]]:
        own = (ASSET_BRIDGE_FOLDER,) if self.bridged else ()
        return {**super()._paths(), "the asset bridge": own}

    @model_validator(mode="after")
    def _bridge_fits(self) -> Self:
        if self.bridged and self.port == ASSET_BRIDGE_PORT:
            raise ValueError(
                f"port {ASSET_BRIDGE_PORT} is that of the nginx before it (docs/how-to/strategies.md): choose another, "
                "or set assets: []"
            )
        return self


Project = BackendProject | FrontendProject
ENVIRONMENTS = "environments"
"""Key of a project file below which fields are overridden per environment."""

_PROJECT: TypeAdapter[Project] = TypeAdapter(Annotated[Project, Field(discriminator="kind")])
_MODELS: Mapping[str, type[ProjectBase]] = {"backend": BackendProject, "frontend": FrontendProject}


def parse_project(file: str, data: object, environment: str) -> Project:
    """Check a project file's content, overrides of every environment included, and apply those of one.

    Args:
        file: Name of the file, for errors.
        data: The parsed file.
        environment: Name of the environment; the part ``environments.<name>`` is laid over the rest.

    Raises:
        SettingsError: With every problem of the file.
    """
    fields = plain_mapping(data)
    if fields is None:
        raise SettingsError([Problem(file, "", "must be a mapping of fields, the first one `kind: backend`")])
    own = with_defaults({key: value for key, value in fields.items() if key != ENVIRONMENTS})
    overrides, problems = _overrides(file, fields.get(ENVIRONMENTS, {}))
    known = _known_fields(own)
    project = _checked(file, own, "", known, problems)
    for name, override in overrides.items():
        resolved = _checked(file, with_defaults(merged(own, override)), f"{ENVIRONMENTS}.{name}", known, problems)
        if name == environment:
            project = resolved
    if problems or project is None:
        raise SettingsError(problems)
    return project


def with_defaults(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a file's fields, in which what is said of probes and resources is laid over what its kind has by default.

    So one path, or one limit, can be named alone; what is ``null`` is taken away.
    """
    model = _model(fields)
    if model is None:
        return fields
    partial = {name: plain_mapping(fields.get(name)) for name in ("probes", "resources")}
    said = {name: value for name, value in partial.items() if value is not None}
    defaults = {name: model.model_fields[name].default.model_dump(by_alias=True, exclude_none=True) for name in said}
    return {**fields, **{name: merged(defaults[name], value) for name, value in said.items()}}


def _model(fields: Mapping[str, Any]) -> type[ProjectBase] | None:
    kind = fields.get("kind")
    return _MODELS.get(kind) if isinstance(kind, str) else None


def _overrides(file: str, data: object) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    by_name = plain_mapping(data)
    if by_name is None:
        return {}, [Problem(file, ENVIRONMENTS, "must map an environment's name to the fields that differ there")]
    good: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for name, value in by_name.items():
        fields = plain_mapping(value)
        if fields is None:
            problems.append(Problem(file, f"{ENVIRONMENTS}.{name}", "must be a mapping of fields"))
        elif "kind" in fields:
            problems.append(Problem(file, f"{ENVIRONMENTS}.{name}.kind", "the kind is the same in every environment"))
        else:
            good[name] = fields
    return good, problems


def _checked(file: str, data: dict[str, Any], prefix: str, known: list[str], problems: list[Problem]) -> Project | None:
    """Validate as JSON would be: lists become tuples, but no text becomes a number and no number a text."""
    try:
        return _PROJECT.validate_json(json.dumps(data), by_alias=True, by_name=False)
    except ValidationError as error:
        own = {(problem.field, problem.message) for problem in problems if problem.file == file}
        found = from_validation(file, error, known=known, skip_first=_model(data) is not None)
        # What the file itself says wrong is said once, not again for each environment that inherits it.
        fresh = [problem for problem in found if (problem.field, problem.message) not in own]
        problems += [replace(each, field=".".join(filter(None, (prefix, each.field)))) for each in fresh]
        return None


def _known_fields(data: dict[str, Any]) -> list[str]:
    model = _model(data)
    models = [model] if model else list(_MODELS.values())
    return [*field_names(*models), ENVIRONMENTS]


def project_schema() -> dict[str, Any]:
    """Return the JSON Schema of a project file, so that editors complete and check it."""
    schema = _PROJECT.json_schema()
    for partial in (Probes, Probe, LivenessProbe):
        # The kind has defaults for what a file leaves out of them.
        schema["$defs"][partial.__name__].pop("required", None)
    for model in _MODELS.values():
        definition = schema["$defs"][model.__name__]
        override = {key: value for key, value in definition["properties"].items() if key != "kind"}
        definition["properties"] = {
            **definition["properties"],
            ENVIRONMENTS: {
                "type": "object",
                "description": "Environment name → the fields that differ there, laid over the rest of the file.",
                "additionalProperties": {
                    "type": "object",
                    "properties": override,
                    "additionalProperties": False,
                },
            },
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A Gitea project", **schema}
