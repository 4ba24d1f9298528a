"""A back end: a .NET service, or any other that speaks HTTP."""

from manifests import Manifest
from manifests.workload import Workload, container, planned, workload
from model.environment import Environment
from model.plan import Plan
from model.project import PORT_VARIABLE
from model.stack import Application


def package_app(application: Application, environment: Environment, plan: Plan) -> Workload:
    """Return all manifests of a back end.

    Args:
        application: The project; it must have an image.
        environment: Where it runs.
        plan: What each of its slots must be.
    """
    return workload(application, environment, plan, _container)


def package_app_plan(application: Application, environment: Environment, now: str = "") -> Plan:
    """Return what each slot of the project must be; see ``manifests.workload.planned``."""
    return planned(application, environment, _container, now)


def _container(application: Application) -> Manifest:
    rendered = container(application)
    if PORT_VARIABLE in application.project.pod_variables:
        rendered["env"].insert(0, {"name": PORT_VARIABLE, "value": str(application.project.port)})
    return rendered
