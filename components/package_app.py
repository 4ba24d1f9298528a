"""``PackageApp``: a back end as one Pulumi component."""

from components._workload import WorkloadArgs, WorkloadComponent
from manifests.package_app import package_app, package_app_plan


class PackageAppArgs(WorkloadArgs):
    """What ``PackageApp`` is told; see ``WorkloadArgs``."""


class PackageApp(WorkloadComponent):
    """A back end with all that it needs: Deployment, Service, Ingress, PodDisruptionBudget, ServiceAccount."""

    component_type = "package-platform:index:PackageApp"
    kind = "backend"
    render = staticmethod(package_app)
    plan = staticmethod(package_app_plan)
