"""``PackageApp``: a back end as one Pulumi component."""

from components._workload import WorkloadArgs, WorkloadComponent
from manifests.package_app import package_app, package_app_plan
from model.names import COMPONENT_TYPES


class PackageAppArgs(WorkloadArgs):
    """What ``PackageApp`` is told; see ``WorkloadArgs``."""


class PackageApp(WorkloadComponent):
    """A back end with all that it needs: Deployment, Service, Ingress, PodDisruptionBudget, ServiceAccount."""

    component_type = COMPONENT_TYPES["backend"]
    kind = "backend"
    render = staticmethod(package_app)
    plan = staticmethod(package_app_plan)
