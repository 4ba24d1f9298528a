"""The Ingress of a project, in the dialect of the environment's ingress controller."""

from typing import Protocol

from manifests import Manifest, alb
from manifests.labels import SKIP_AWAIT, labels, object_annotations
from model.environment import Environment
from model.names import slot_service_name
from model.plan import CanaryWish, Plan
from model.project import Route
from model.stack import Application


class Dialect(Protocol):
    """What differs between ingress controllers."""

    def annotations(self, application: Application, environment: Environment, target: Plan) -> dict[str, str]:
        """Return the controller's annotations for a project's Ingress."""
        ...

    def paths(self, application: Application, route: Route) -> list[Manifest]:
        """Return the entries of a route in the project's Ingress, in the order in which they are asked."""
        ...

    def canary(self, application: Application) -> dict[str, str] | None:
        """Return the annotations of the canary's own Ingress; None where the project's Ingress does its work."""
        ...


class NginxDialect:
    """ingress-nginx's annotations, which Traefik's ``kubernetesIngressNGINX`` provider understands too.

    https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary
    """

    def annotations(
        self,
        application: Application,  # noqa: ARG002 - the protocol's signature
        environment: Environment,  # noqa: ARG002 - the protocol's signature
        target: Plan,  # noqa: ARG002 - the protocol's signature
    ) -> dict[str, str]:
        """Return none: the defaults of the controller are right for a plain route."""
        return {}

    def paths(self, application: Application, route: Route) -> list[Manifest]:
        """Return the way to the project's Service, which follows the slot that is live."""
        return [_to_service(application.name, route)]

    def canary(self, application: Application) -> dict[str, str] | None:
        """Return weight and header; a header without a value of its own means ``always`` and ``never``."""
        wish = application.canary or CanaryWish(tag="none")
        prefix = "nginx.ingress.kubernetes.io/canary"
        header = {f"{prefix}-by-header": wish.header} if wish.header else {}
        return {prefix: "true", f"{prefix}-weight": str(wish.weight), **header}


class AlbDialect:
    """Alibaba Cloud's ALB Ingress controller; see ``manifests.alb``."""

    def annotations(self, application: Application, environment: Environment, target: Plan) -> dict[str, str]:
        """Return listeners, health check, weights of all slots, and the canary's header."""
        return alb.annotations(application, environment, target)

    def paths(self, application: Application, route: Route) -> list[Manifest]:
        """Return the way by header, where a canary has one, and that by weights."""
        return alb.paths(application, route)

    def canary(self, application: Application) -> dict[str, str] | None:  # noqa: ARG002 - the protocol's signature
        """Return none: an Ingress with ``canary-weight: "0"`` is in no server group, so its pods never become ready."""
        return None


_DIALECTS: dict[str, Dialect] = {"nginx": NginxDialect(), "alb": AlbDialect()}


def ingress(application: Application, environment: Environment, target: Plan) -> Manifest | None:
    """Return the project's Ingress, None for a project that is called only inside the cluster."""
    if not application.project.routes:
        return None
    dialect = _DIALECTS[environment.ingress.dialect]
    own = dialect.annotations(application, environment, target)
    entries = [(route, dialect.paths(application, route)) for route in _deepest_first(application)]
    return _ingress(application, environment, application.name, own, entries)


def canary_ingress(application: Application, environment: Environment, target: Plan) -> Manifest | None:
    """Return the Ingress of the project's canary, None where strategy, project or dialect know none.

    It is there without a canary too, with the weight 0: taken away, it would race the proxy, which for a moment would
    send requests to pods that are gone.
    """
    if application.project.strategy != "canary" or not application.project.routes:
        return None
    dialect = _DIALECTS[environment.ingress.dialect]
    own = dialect.canary(application)
    if own is None:
        return None
    name = slot_service_name(application.name, "canary")
    own = {**dialect.annotations(application, environment, target), **own}
    entries = [(route, [_to_service(name, route)]) for route in _deepest_first(application)]
    return _ingress(application, environment, name, own, entries)


def _deepest_first(application: Application) -> list[Route]:
    """Return the routes in an order that is right for a controller that takes the first that fits."""
    return sorted(application.project.routes, key=lambda route: -route.depth)


def _to_service(name: str, route: Route) -> Manifest:
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    return {"path": route.path, "pathType": "Prefix", "backend": backend}


def _ingress(
    application: Application,
    environment: Environment,
    name: str,
    own: dict[str, str],
    entries: list[tuple[Route, list[Manifest]]],
) -> Manifest:
    hosts = dict.fromkeys(environment.host(route) for route in application.project.routes)
    rules = {
        host: [each for route, paths in entries if environment.host(route) == host for each in paths] for host in hosts
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": environment.namespace,
            "labels": labels(application, environment.name),
            "annotations": {**object_annotations(application), **own, **SKIP_AWAIT},
        },
        "spec": {
            "ingressClassName": environment.ingress.class_name,
            "rules": [{"host": host, "http": {"paths": paths}} for host, paths in rules.items()],
        },
    }
