"""``FrontendApp``: a front end as one Pulumi component."""

import pulumi

from components._workload import WorkloadArgs, WorkloadComponent
from manifests.frontend_app import frontend_app


class FrontendAppArgs(WorkloadArgs):
    """What ``FrontendApp`` is told; see ``WorkloadArgs``."""


class FrontendApp(WorkloadComponent):
    """A front end with all that it needs: Deployment, Service, Ingress, PodDisruptionBudget, ServiceAccount."""

    def __init__(self, name: str, args: FrontendAppArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the project's resources.

        Args:
            name: The Gitea project: ``SJZY.Package.Api``. It is the component's name in the stack.
            args: The project, where it runs, and what it ran before.
            opts: Pulumi's options; a provider given here is inherited by all children.

        Raises:
            ValueError: If the project is of another kind or has no image.
        """
        super().__init__("package-platform:index:FrontendApp", name, {}, opts)
        if args.application.project.kind != "frontend":
            raise ValueError(f"{name} is a {args.application.project.kind}, which is no FrontendApp")
        self._build(name, args, frontend_app(args.application, args.environment, args.wanted_record()), opts)
