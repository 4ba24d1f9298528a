"""``FrontendApp``: a front end as one Pulumi component."""

from components._workload import WorkloadArgs, WorkloadComponent
from manifests.frontend_app import frontend_app, frontend_app_plan
from model.names import COMPONENT_TYPES


class FrontendAppArgs(WorkloadArgs):
    """What ``FrontendApp`` is told; see ``WorkloadArgs``."""


class FrontendApp(WorkloadComponent):
    """A front end with all that it needs: Deployment, Service, Ingress, PodDisruptionBudget, ServiceAccount."""

    component_type = COMPONENT_TYPES["frontend"]
    kind = "frontend"
    render = staticmethod(frontend_app)
    plan = staticmethod(frontend_app_plan)
