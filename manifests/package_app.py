"""A back end: a .NET service, or any other that speaks HTTP."""

from manifests import Manifest
from manifests.workload import Workload, container, planned, workload
from model.environment import Environment
from model.plan import Plan
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
    # ASP.NET Core's own switch for the port to listen on; harmless to anything else.
    # https://learn.microsoft.com/aspnet/core/fundamentals/servers/kestrel/endpoints
    own = {"name": "ASPNETCORE_HTTP_PORTS", "value": str(application.project.port)}
    project = application.project
    if own["name"] not in (*project.env, *(project.secrets.env if project.secrets else ())):
        rendered["env"].insert(0, own)
    return rendered
