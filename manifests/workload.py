"""What every project becomes, back end or front end: the pieces that ``package_app`` and ``frontend_app`` put together.

Nothing in a release may lose a request. The parts that see to it: no pod goes before its successor has been ready for
a while (``maxUnavailable: 0``, ``minReadySeconds``), a leaving pod is out of the endpoints and still serving while the
proxies learn of it (``preStop.sleep``, Kubernetes 1.34 and later), and it gets time to finish what it has begun.
"""

from dataclasses import dataclass
from typing import Any

from manifests import Manifest
from manifests.ingress import ingress
from manifests.labels import SKIP_AWAIT, annotations, labels, selector, version_label
from manifests.probes import probes
from model.environment import Environment
from model.names import SlotName, slot_name
from model.project import Autoscaling, Project
from model.release import RECORD_ANNOTATION, Record
from model.stack import Application

_TEMPORARY_BYTES = "64Mi"
_REVISIONS_KEPT = 3


@dataclass(frozen=True)
class Workload:
    """All manifests of one project, in the order in which they must come up."""

    service_account: Manifest
    deployment: Manifest
    disruption_budget: Manifest
    autoscaler: Manifest | None
    service: Manifest
    ingress: Manifest | None

    def manifests(self) -> list[Manifest]:
        """Return those that there are, in order."""
        parts = (self.service_account, self.deployment, self.disruption_budget, self.autoscaler, self.service)
        return [part for part in (*parts, self.ingress) if part is not None]


def workload(application: Application, environment: Environment, record: Record, container: Manifest) -> Workload:
    """Return everything that a project is made of.

    Args:
        application: The project; it must have an image.
        environment: Where it runs.
        record: What is to be written on its Service once the pods are ready.
        container: The application's container, as ``container`` renders it, with what its kind adds.
    """
    autoscaling = application.project.autoscaling
    return Workload(
        service_account=service_account(application, environment),
        deployment=deployment(application, environment, "main", container),
        disruption_budget=disruption_budget(application, environment, "main"),
        autoscaler=autoscaler(application, environment, "main", autoscaling) if autoscaling else None,
        service=service(application, environment, "main", record),
        ingress=ingress(application, environment),
    )


def container(application: Application) -> Manifest:
    """Return the application's container, as restricted as a container can be.

    Raises:
        ValueError: If the application has no image yet.
    """
    project, image = application.project, application.image
    if image is None:
        raise ValueError(f"{application.gitea_name} has no image tag")
    from_pod = {"POD_NAME": "metadata.name", "POD_IP": "status.podIP", "NODE_NAME": "spec.nodeName"}
    return {
        "name": application.name,
        "image": image.reference,
        "imagePullPolicy": "IfNotPresent" if image.digest else "Always",
        "ports": [{"name": "http", "containerPort": project.port, "protocol": "TCP"}],
        "env": [
            *({"name": name, "value": value} for name, value in sorted(project.env.items())),
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in from_pod.items()),
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


def deployment(application: Application, environment: Environment, slot: SlotName, container: Manifest) -> Manifest:
    """Return the Deployment of one slot."""
    project = application.project
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(application, environment, slot_name(application.name, slot), version=True),
        "spec": {
            "replicas": project.replicas,
            "revisionHistoryLimit": _REVISIONS_KEPT,
            "progressDeadlineSeconds": project.rollout.progress_deadline_seconds,
            "minReadySeconds": project.rollout.min_ready_seconds,
            "strategy": _strategy(project),
            "selector": {"matchLabels": selector(application, slot)},
            "template": {
                "metadata": {
                    "labels": {
                        **labels(application, environment.name),
                        **version_label(application),
                        **selector(application, slot),
                    },
                    "annotations": annotations(application),
                },
                "spec": _pod(application, environment, slot, container),
            },
        },
    }


def _pod(application: Application, environment: Environment, slot: SlotName, container: Manifest) -> Manifest:
    project = application.project
    user: Manifest = {"runAsUser": project.run_as_user} if project.run_as_user else {}
    return {
        "serviceAccountName": application.name,
        # An application that needs the API would say so; a stolen token is worth nothing if it isn't there.
        "automountServiceAccountToken": False,
        # The environment variables of old Docker links grow with every Service of the namespace.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": project.shutdown.pre_stop_seconds + project.shutdown.drain_seconds,
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
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": _TEMPORARY_BYTES}}],
    }


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


def service(application: Application, environment: Environment, slot: SlotName, record: Record) -> Manifest:
    """Return the Service: the project's name in the cluster's DNS, and the holder of its record."""
    metadata = _metadata(application, environment, application.name)
    metadata["annotations"] |= {RECORD_ANNOTATION: record.to_annotation(), **SKIP_AWAIT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            "selector": selector(application, slot),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _metadata(application: Application, environment: Environment, name: str, *, version: bool = False) -> Manifest:
    return {
        "name": name,
        "namespace": environment.namespace,
        "labels": {**labels(application, environment.name), **(version_label(application) if version else {})},
        "annotations": annotations(application),
    }
