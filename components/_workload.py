"""The resources of a project, in the order in which a release must touch them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.autoscaling.v2 import HorizontalPodAutoscaler
from pulumi_kubernetes.core.v1 import Service, ServiceAccount
from pulumi_kubernetes.networking.v1 import Ingress
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget

from components._apply import apply
from manifests.workload import Workload
from model.environment import Environment
from model.names import Kind
from model.release import RECORD_ANNOTATION, Record, Release, parse_record, rolled
from model.stack import Application

_AWAIT_MARGIN_SECONDS = 60


@dataclass(frozen=True)
class WorkloadArgs:
    """What a project's component is told.

    Attributes:
        application: The project with the image to run, and what its last release recorded.
        environment: Where it runs.
    """

    application: Application
    environment: Environment

    def wanted_record(self) -> Record:
        """Return the record of the release that these arguments ask for.

        Raises:
            ValueError: If the application has no image.
        """
        image = self.application.image
        if image is None:
            raise ValueError(f"{self.application.gitea_name} has no image tag: a project without one is not deployed")
        return rolled(self.application.record, Release(tag=image.tag, digest=image.digest))


class WorkloadComponent(pulumi.ComponentResource):
    """Base of ``PackageApp`` and ``FrontendApp``: the same resources, from manifests of their own kind."""

    component_type: ClassVar[str]
    """Type of the component in the state; changing it replaces every project."""
    kind: ClassVar[Kind]
    """Kind of the projects that it is for."""
    render: ClassVar[Callable[[Application, Environment, Record], Workload]]
    """Makes the manifests."""

    url: pulumi.Output[str | None]
    """What a person types to reach it; None for a project without routes."""
    service_name: pulumi.Output[str]
    """Name of its Service, which is its name in the cluster's DNS."""
    tag: pulumi.Output[str]
    """The tag that runs, from the record as it was applied."""
    release: pulumi.Output[dict[str, str | None]]
    """What runs, from the record as it was applied: ``slot``, ``tag``, ``digest``."""

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the project's resources.

        Args:
            name: The Gitea project: ``SJZY.Package.Api``. It is the component's name in the stack.
            args: The project, where it runs, and what it ran before.
            opts: Pulumi's options; a provider given here is inherited by all children.

        Raises:
            ValueError: If the project is of another kind or has no image.
        """
        super().__init__(self.component_type, name, {}, opts)
        kind = args.application.project.kind
        if kind != self.kind:
            raise ValueError(f"{name} is a {kind}, which is no {type(self).__name__}")
        render = type(self).render
        self._declare(name, args, render(args.application, args.environment, args.wanted_record()), opts)

    def _declare(self, name: str, args: WorkloadArgs, workload: Workload, opts: pulumi.ResourceOptions | None) -> None:
        # Pulumi waits for a component's `depends_on` only when it registers the component itself: hand it on.
        child = pulumi.ResourceOptions(parent=self, depends_on=opts.depends_on if opts else None)
        account = apply(ServiceAccount, name, workload.service_account, child)
        deployment = apply(Deployment, f"{name}-main", workload.deployment, self._deployment_options(args, account))
        apply(PodDisruptionBudget, f"{name}-main", workload.disruption_budget, child)
        if workload.autoscaler:
            after = pulumi.ResourceOptions(parent=self, depends_on=[deployment])
            apply(HorizontalPodAutoscaler, f"{name}-main", workload.autoscaler, after)
        # The record is written, and traffic is moved, only after the pods are ready.
        after = pulumi.ResourceOptions(parent=self, depends_on=[deployment])
        service = apply(Service, name, workload.service, after)
        if workload.ingress:
            apply(Ingress, name, workload.ingress, pulumi.ResourceOptions(parent=self, depends_on=[service]))
        self._export(args, service)

    def _deployment_options(self, args: WorkloadArgs, account: ServiceAccount) -> pulumi.ResourceOptions:
        seconds = args.application.project.rollout.progress_deadline_seconds + _AWAIT_MARGIN_SECONDS
        return pulumi.ResourceOptions(
            parent=self,
            depends_on=[account],
            # Longer than the Deployment's own deadline, so that the message is Kubernetes' and not a bare time-out.
            custom_timeouts=pulumi.CustomTimeouts(create=f"{seconds}s", update=f"{seconds}s"),
            # The autoscaler owns the number after creation; leaving the field out would reset it to 1.
            ignore_changes=["spec.replicas"] if args.application.project.autoscaling else None,
        )

    def _export(self, args: WorkloadArgs, service: Service) -> None:
        routes = args.application.project.routes
        self.url = pulumi.Output.from_input(args.environment.url(routes[0]) if routes else None)
        self.service_name = service.metadata.apply(lambda metadata: str(metadata.name))
        self.release = service.metadata.apply(
            lambda metadata: _view((metadata.annotations or {}).get(RECORD_ANNOTATION, ""))
        )
        self.tag = self.release.apply(lambda release: release.get("tag") or "")
        self.register_outputs(
            {"url": self.url, "serviceName": self.service_name, "tag": self.tag, "release": self.release}
        )


def _view(annotation: str) -> dict[str, str | None]:
    record = parse_record(annotation)
    return {"slot": record.live, "tag": record.release.tag, "digest": record.release.digest} if record else {}
