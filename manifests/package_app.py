"""A back end: a .NET service, or any other that speaks HTTP."""

from manifests.workload import Workload, container, workload
from model.environment import Environment
from model.release import Record
from model.stack import Application


def package_app(application: Application, environment: Environment, record: Record) -> Workload:
    """Return all manifests of a back end.

    Args:
        application: The project; it must have an image.
        environment: Where it runs.
        record: What is to be written on its Service once the pods are ready.
    """
    rendered = container(application)
    # ASP.NET Core's own switch for the port to listen on; harmless to anything else.
    # https://learn.microsoft.com/aspnet/core/fundamentals/servers/kestrel/endpoints
    own = {"name": "ASPNETCORE_HTTP_PORTS", "value": str(application.project.port)}
    if own["name"] not in application.project.env:
        rendered["env"].insert(0, own)
    return workload(application, environment, record, rendered)
