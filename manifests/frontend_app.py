"""A front end: static files behind nginx."""

from manifests.workload import Workload, container, workload
from model.environment import Environment
from model.release import Record
from model.stack import Application


def frontend_app(application: Application, environment: Environment, record: Record) -> Workload:
    """Return all manifests of a front end.

    Args:
        application: The project; it must have an image.
        environment: Where it runs.
        record: What is to be written on its Service once the pods are ready.
    """
    return workload(application, environment, record, container(application))
