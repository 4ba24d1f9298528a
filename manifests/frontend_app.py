"""A front end: static files behind nginx."""

from manifests.workload import Workload, container, planned, workload
from model.environment import Environment
from model.plan import Plan
from model.stack import Application


def frontend_app(application: Application, environment: Environment, plan: Plan) -> Workload:
    """Return all manifests of a front end.

    Args:
        application: The project; it must have an image.
        environment: Where it runs.
        plan: What each of its slots must be.
    """
    return workload(application, environment, plan, container)


def frontend_app_plan(application: Application, environment: Environment, now: str = "") -> Plan:
    """Return what each slot of the project must be; see ``manifests.workload.planned``."""
    return planned(application, environment, container, now)
