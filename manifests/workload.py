"""What every project becomes, back end or front end: the pieces that ``package_app`` and ``frontend_app`` put together.

Nothing in a release may lose a request. The parts that see to it: no pod goes before its successor has been ready for
a while (``maxUnavailable: 0``, ``minReadySeconds``), a leaving pod is out of the endpoints and still serving while the
proxies learn of it (``preStop.sleep``, Kubernetes 1.34 and later), and it gets time to finish what it has begun.
"""

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from manifests import Manifest, alb, asset_bridge, configuration, secrets, storage
from manifests.expansion import literal
from manifests.ingress import canary_ingress, ingress
from manifests.labels import SKIP_AWAIT, annotations, labels, object_annotations, selector, version_label
from manifests.migration import migration_job, noted_migration
from manifests.probes import probes
from model.environment import Environment
from model.names import SLOTS, SlotName, slot_name, slot_service_name
from model.plan import Plan, SlotPlan, Wanted, plan
from model.project import POD_VARIABLES, Autoscaling, Project
from model.release import RECORD_ANNOTATION, REVISION_LABEL, Slot
from model.stack import Application

_AUTOSCALER, _INGRESS = ("autoscaling/v2", "HorizontalPodAutoscaler"), ("networking.k8s.io/v1", "Ingress")
_TEMPORARY_BYTES = "64Mi"
_LOST_NODE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""Taints of a node that does not report; a pod without tolerations of its own gets some of 300 s."""
_REVISIONS_KEPT = 0
"""A way back is a release of its own. If its ReplicaSet were still there, empty, Pulumi's wait would take it for ready
before it has a pod (``checkReplicaSetStatus`` in ``provider/pkg/await/deployment.go`` of pulumi-kubernetes)."""
_REVISION_LENGTH = 10

Container = Callable[[Application], Manifest]
"""Renders an application's container; what differs between the kinds of projects."""


@dataclass(frozen=True)
class SlotWorkload:
    """The manifests of one slot."""

    plan: SlotPlan
    deployment: Manifest
    """A StatefulSet where each pod has a volume of its own."""
    disruption_budget: Manifest
    autoscaler: Manifest | None


@dataclass(frozen=True)
class Workload:
    """All manifests of one project, in the order in which they must come up."""

    service_account: Manifest
    claims: tuple[Manifest, ...]
    """Volumes that the project asks for."""
    kept_claims: tuple[Manifest, ...]
    """Volumes that it does not ask for any more, and whose data stays."""
    config_maps: tuple[Manifest, ...]
    secrets: tuple[Manifest, ...]
    slot_services: tuple[Manifest, ...]
    """Services of slots of their own; they are there whether or not the slot is."""
    migration: Manifest | None
    """The Job that runs before the pods."""
    slots: tuple[SlotWorkload, ...]
    service: Manifest
    ingress: Manifest | None
    canary_ingress: Manifest | None

    def manifests(self) -> list[Manifest]:
        """Return those that there are, in order."""
        of_slots = [
            part for slot in self.slots for part in (slot.deployment, slot.disruption_budget, slot.autoscaler) if part
        ]
        last = [part for part in (self.ingress, self.canary_ingress) if part]
        first = [
            self.service_account,
            *self.claims,
            *self.kept_claims,
            *self.config_maps,
            *self.secrets,
            *self.slot_services,
        ]
        return [*first, *([self.migration] if self.migration else []), *of_slots, self.service, *last]


def workload(application: Application, environment: Environment, target: Plan, render: Container) -> Workload:
    """Return everything that a project is made of.

    Args:
        application: The project; it must have an image.
        environment: Where it runs.
        target: What each slot must be, and what is to be written on the Service once the pods are ready.
        render: Makes the application's container.
    """
    return Workload(
        service_account=service_account(application, environment),
        claims=storage.claims(application, environment),
        kept_claims=storage.kept_claims(storage.left_by(application, target), environment),
        config_maps=config_maps(application, environment, target),
        secrets=project_secrets(application, environment, target),
        slot_services=tuple(
            slot_service(application, environment, slot)
            for slot in _slots_with_services(application, environment, target)
        ),
        migration=_migration(application, environment, target, render),
        slots=tuple(_slot(application, environment, target, slot, render) for slot in target.slots),
        service=service(application, environment, target),
        ingress=_ingress(application, environment, target),
        canary_ingress=canary_ingress(application, environment, target),
    )


def _ingress(application: Application, environment: Environment, target: Plan) -> Manifest | None:
    rendered = ingress(application, environment, target)
    if application.action == "release" or application.ingresses is None or target.record.weighted:
        return rendered
    return as_found(rendered, _INGRESS, application.name, environment, application.ingresses)


def _migration(application: Application, environment: Environment, target: Plan, render: Container) -> Manifest | None:
    note = target.record.migrated
    if note is None:
        return None
    migrating = application.running(note.release)
    container = render(migrating)
    pod = _pod(migrating, environment, "main", container, beside=True)
    return migration_job(migrating, environment, note, container, pod)


def _slot(
    application: Application, environment: Environment, target: Plan, slot: SlotPlan, render: Container
) -> SlotWorkload:
    running = application.in_slot(slot.content)
    autoscaling = application.project.autoscaling if _is_scaled(target, slot) else None
    scaler = autoscaler(running, environment, slot.name, autoscaling) if autoscaling else None
    if application.action != "release" and application.autoscaled is not None and _is_scaled(target, slot):
        name = slot_name(application.name, slot.name)
        scaler = as_found(scaler, _AUTOSCALER, name, environment, application.autoscaled)
    return SlotWorkload(
        plan=slot,
        deployment=deployment(running, environment, slot, render(running)),
        disruption_budget=disruption_budget(running, environment, slot.name),
        autoscaler=scaler,
    )


def as_found(
    rendered: Manifest | None, kind: tuple[str, str], name: str, environment: Environment, found: Collection[str]
) -> Manifest | None:
    """Return what to declare of an object that only a release may make or take away.

    Args:
        rendered: What the project file of today makes of it.
        kind: Its ``apiVersion`` and ``kind``.
        name: Its name.
        environment: Where it is.
        found: The names of those that there are.
    """
    if name not in found:
        return None
    stays: Manifest = {"metadata": {"name": name, "namespace": environment.namespace}, "spec": {}}
    return rendered or {"apiVersion": kind[0], "kind": kind[1], **stays}


def _is_scaled(target: Plan, slot: SlotPlan) -> bool:
    """Tell whether a slot has an autoscaler: the live one, and its other half with ``after: both``.

    One that goes by the load of pods without traffic would take a warm slot down to its least number, also in the
    middle of a release back to it: the traffic would then move onto too few pods.
    """
    if slot.name == "canary" or slot.change == "park":
        return False
    return slot.name == target.record.live or slot.content.revision == target.live.content.revision


def planned(application: Application, environment: Environment, render: Container, now: str = "") -> Plan:
    """Return what the project must become.

    Args:
        application: The project with the image that is wanted, and what its last release recorded.
        environment: Where it runs.
        render: Makes the application's container.
        now: The time (RFC 3339), recorded when another release goes live.

    Raises:
        ValueError: If the application has no image.
    """

    def slot(wanted: Application) -> Slot:
        return Slot(release=wanted.release, revision=revision(wanted, environment, render), secrets=wanted.secrets)

    project, canary = application.project, application.canary_release
    wanted = Wanted(slot=slot(application), canary=slot(application.running(canary)) if canary else None)
    after = project.blue_green.after
    target = plan(
        application.record,
        wanted,
        project.strategy,
        after,
        action=application.action,
        now=now,
        migrated=noted_migration(application),
        weighted=environment.weighs(project),
        returns_to=application.returns_to,
        touched=application.touched,
    )
    noted = bool(project.storage or application.claims) or None
    return target.model_copy(update={"record": target.record.model_copy(update={"storage": noted})})


def revision(application: Application, environment: Environment, render: Container) -> str:
    """Return the hash of the application's pod template: two releases with one revision are the same pods.

    The slot is no part of it, so that what a slot runs can be compared with what is wanted for another.
    """
    template = _template(application, environment, "main", render(application))
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_REVISION_LENGTH]


def _slots_with_services(application: Application, environment: Environment, target: Plan) -> tuple[SlotName, ...]:
    # The bridge of a slot that is left as it is names them, and does not start without one.
    named = asset_bridge.SLOTS if _bridges(application, target) else ()
    own = {*_slots_asked_for(application, environment), *named}
    return tuple(slot for slot in SLOTS if slot in own)


def _bridges(application: Application, target: Plan) -> dict[str, Manifest]:
    """Return the ConfigMaps of the bridges in slots that are left as they are, whatever the project file says today."""
    if all(slot.change == "declare" for slot in target.slots):
        return {}
    own = asset_bridge.config_map_prefix(application)
    return {name: {"data": dict(data)} for name, data in application.bridges.items() if name.startswith(own)}


def _slots_asked_for(application: Application, environment: Environment) -> tuple[SlotName, ...]:
    project = application.project
    if environment.weighs(project):
        # All that there can ever be: a load balancer must know a slot before its first pod.
        return SLOTS
    if asset_bridge.bridged(project) or (project.strategy == "blueGreen" and project.blue_green.smoke):
        return asset_bridge.SLOTS
    return ("canary",) if project.strategy == "canary" else ()


def container(application: Application) -> Manifest:
    """Return the application's container, as restricted as a container can be.

    Raises:
        ValueError: If the application has no image yet.
    """
    project, image = application.project, application.image
    if image is None:
        raise ValueError(f"{application.gitea_name} has no image tag")
    return {
        "name": application.name,
        "image": image.reference,
        "imagePullPolicy": "IfNotPresent" if image.digest else "Always",
        "ports": [{"name": "http", "containerPort": project.port, "protocol": "TCP"}],
        "env": [
            *({"name": name, "value": literal(value)} for name, value in sorted(project.env.items())),
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in POD_VARIABLES.items()),
        ],
        "resources": {
            "requests": project.resources.requests.model_dump(exclude_none=True),
            "limits": project.resources.limits.model_dump(exclude_none=True),
        },
        **probes(project),
        **_lifecycle(project),
        # The last log lines become the reason that `kubectl describe` and Pulumi show.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a path in the container
    }


def deployment(application: Application, environment: Environment, target: SlotPlan, container: Manifest) -> Manifest:
    """Return the Deployment of one slot, or the StatefulSet of a project whose pods have volumes of their own."""
    project = application.project
    template = _template(application, environment, target.name, container)
    if target.content.revision:
        template["metadata"]["labels"][REVISION_LABEL] = target.content.revision
    manifest: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(application, environment, slot_name(application.name, target.name), version=True),
        "spec": {
            "replicas": _replicas(application, target),
            "revisionHistoryLimit": _REVISIONS_KEPT,
            "progressDeadlineSeconds": project.turn_seconds,
            "minReadySeconds": _min_ready_seconds(project, environment),
            "strategy": _strategy(project),
            "selector": {"matchLabels": selector(application, target.name)},
            "template": template,
        },
    }
    return storage.as_stateful_set(application, environment, manifest) if project.stateful else manifest


def _min_ready_seconds(project: Project, environment: Environment) -> int:
    own = project.rollout.min_ready_seconds
    return max(own, alb.SETTLED_SECONDS) if environment.weighs(project) else own


def _replicas(application: Application, target: SlotPlan) -> int:
    project = application.project
    if target.change == "park":
        return 0
    known = application.pods.get(slot_name(application.name, target.name))
    if application.action == "restore" and known is not None:
        return known  # as before what failed, whatever the file says by now
    if target.name == "canary":
        weight = application.canary.weight if application.canary else 0
        beside = application.record.live if application.record else "main"
        return project.canary.replicas or max(1, -(-_carrying(application, beside) * weight // 100))
    if target.starting and application.record:
        # It must carry what the live slot carries; and what it has itself by now is not taken from it.
        return max(_carrying(application, application.record.live), _carrying(application, target.name))
    return project.replicas


def _carrying(application: Application, slot: SlotName) -> int:
    """Return how many pods a slot has; with an autoscaler those that it has made of it, as far as known."""
    project = application.project
    if not project.autoscaling:
        return project.replicas
    known = application.pods.get(slot_name(application.name, slot), 0)
    return max(project.replicas, min(known, project.autoscaling.max_replicas))


def _template(application: Application, environment: Environment, slot: SlotName, container: Manifest) -> Manifest:
    own_labels = {
        **labels(application, environment.name),
        **version_label(application),
        **selector(application, slot),
    }
    gates = alb.readiness_gates(application, environment)
    return {
        "metadata": {"labels": own_labels, "annotations": annotations(application)},
        "spec": {
            **_pod(application, environment, slot, container),
            **({"readinessGates": gates} if gates else {}),
        },
    }


def _pod(
    application: Application, environment: Environment, slot: SlotName, container: Manifest, *, beside: bool = False
) -> Manifest:
    """Return the pod of a slot, or one that runs beside those of the release that serves."""
    project = application.project
    user: Manifest = {"runAsUser": project.run_as_user} if project.run_as_user else {}
    pod: Manifest = {
        "serviceAccountName": application.name,
        # An application that needs the API would say so; a stolen token is worth nothing if it isn't there.
        "automountServiceAccountToken": False,
        # The environment variables of old Docker links grow with every Service of the namespace.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": project.shutdown.grace_seconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **user},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                # A wish: with a node down its pods still have to go somewhere.
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(application, slot)},
                # Each release is spread by itself, or the old pods would push the new ones together.
                "matchLabelKeys": ["pod-template-hash"],
            }
            for key in environment.spread_over
        ],
        "tolerations": _tolerations(project, environment),
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": _TEMPORARY_BYTES}}],
    }
    configuration.put_into(application, pod)
    storage.put_into(application, pod, shared_only=beside)
    secrets.put_into(application, pod)
    if asset_bridge.bridged(project):
        asset_bridge.put_before(application, pod)
    return pod


def _tolerations(project: Project, environment: Environment) -> list[Manifest]:
    """Return how long pods stay on a node that is lost: for seconds, a singleton for ever (docs/adr/0016).

    The pods of a StatefulSet too: until the node is back, or somebody says that it is off, none may take their place.
    """
    seconds = project.node_lost_seconds
    if seconds is None and not (project.singleton or project.stateful):
        seconds = environment.node_lost_seconds
    bounded: Manifest = {} if seconds is None else {"tolerationSeconds": seconds}
    return [{"key": key, "operator": "Exists", "effect": "NoExecute", **bounded} for key in _LOST_NODE]


def _strategy(project: Project) -> Manifest:
    if project.singleton:
        # Not a rolling update without surge: that starts the new pod while the old one is still terminating.
        return {"type": "Recreate"}
    surge = f"{project.rollout.max_surge}%"
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": surge}}


def _lifecycle(project: Project) -> Manifest:
    seconds = project.shutdown.pre_stop_seconds
    return {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}} if seconds else {}


def service_account(application: Application, environment: Environment) -> Manifest:
    """Return the ServiceAccount; it has no rights and its token is not mounted."""
    metadata = _metadata(application, environment, application.name)
    metadata["annotations"] |= SKIP_AWAIT
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
        **secrets.image_pull(environment.registry.pull_secret),
    }


def disruption_budget(application: Application, environment: Environment, slot: SlotName) -> Manifest:
    """Return the PodDisruptionBudget of one slot: one pod at a time may be evicted, a sick one always.

    ``maxUnavailable`` and not ``minAvailable``, so that it can't block the drain of a node for ever.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(application, environment, slot_name(application.name, slot)),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(application, slot)},
        },
    }


def autoscaler(
    application: Application, environment: Environment, slot: SlotName, autoscaling: Autoscaling
) -> Manifest:
    """Return the HorizontalPodAutoscaler of one slot."""
    name = slot_name(application.name, slot)
    target: dict[str, Any] = {"type": "Utilization", "averageUtilization": autoscaling.cpu_percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(application, environment, name),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }


def config_maps(application: Application, environment: Environment, target: Plan) -> tuple[Manifest, ...]:
    """Return the ConfigMaps that the pods of all slots need; immutable, each with its content's hash in the name.

    A slot that is left as it is needs its own as long as it is there: its pods may be started again.
    """
    content: dict[str, Manifest] = {**_bridges(application, target)}
    for slot in target.slots:
        content |= configuration.config_maps(application.in_slot(slot.content))
    if asset_bridge.bridged(application.project):
        content[asset_bridge.config_map_name(application)] = {"data": asset_bridge.config_map_data(application)}
    return tuple(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(application, environment, name),
            "immutable": True,
            **data,
        }
        for name, data in content.items()
    )


def project_secrets(application: Application, environment: Environment, target: Plan) -> tuple[Manifest, ...]:
    """Return the Secrets that the pods of all slots need; see ``config_maps``."""
    content: dict[str, Manifest] = {}
    for slot in target.slots:
        content |= secrets.project_secrets(application.in_slot(slot.content))
    return tuple(
        {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(application, environment, name), **data}
        for name, data in content.items()
    )


def service(application: Application, environment: Environment, target: Plan) -> Manifest:
    """Return the Service: the project's name in the cluster's DNS, and the holder of its record."""
    traffic = {"app.kubernetes.io/name": application.name, **target.traffic}
    manifest = _service(application, environment, application.name, traffic)
    manifest["metadata"]["annotations"][RECORD_ANNOTATION] = target.record.to_annotation()
    return manifest


def slot_service(application: Application, environment: Environment, slot: SlotName) -> Manifest:
    """Return a slot's own Service."""
    name = slot_service_name(application.name, slot)
    return _service(application, environment, name, selector(application, slot))


def _service(application: Application, environment: Environment, name: str, pods: dict[str, str]) -> Manifest:
    metadata = _metadata(application, environment, name)
    metadata["annotations"] |= SKIP_AWAIT
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            "selector": pods,
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _metadata(application: Application, environment: Environment, name: str, *, version: bool = False) -> Manifest:
    return {
        "name": name,
        "namespace": environment.namespace,
        "labels": {**labels(application, environment.name), **(version_label(application) if version else {})},
        "annotations": object_annotations(application),
    }
