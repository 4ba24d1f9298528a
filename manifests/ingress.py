"""The Ingress of a project, in the dialect of the environment's ingress controller."""

from typing import Protocol

from manifests import Manifest
from manifests.labels import SKIP_AWAIT, annotations, labels
from model.environment import Environment
from model.ingress import HTTP_PORT, HTTPS_PORT
from model.names import slot_service_name
from model.plan import CanaryWish
from model.stack import Application

_ALWAYS = "always"
"""Value of the canary's header that asks for it."""


class Dialect(Protocol):
    """What differs between ingress controllers."""

    def annotations(self, environment: Environment) -> dict[str, str]:
        """Return the controller's annotations for a project's Ingress."""
        ...

    def canary(self, wish: CanaryWish) -> dict[str, str]:
        """Return the annotations of a canary's Ingress, beside those of every Ingress."""
        ...


class NginxDialect:
    """ingress-nginx's annotations, which Traefik's ``kubernetesIngressNGINX`` provider understands too.

    https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary
    """

    def annotations(self, environment: Environment) -> dict[str, str]:  # noqa: ARG002 - the protocol's signature
        """Return none: the defaults of the controller are right for a plain route."""
        return {}

    def canary(self, wish: CanaryWish) -> dict[str, str]:
        """Return weight and header; a header without a value of its own means ``always`` and ``never``."""
        prefix = "nginx.ingress.kubernetes.io/canary"
        header = {f"{prefix}-by-header": wish.header} if wish.header else {}
        return {prefix: "true", f"{prefix}-weight": str(wish.weight), **header}


class AlbDialect:
    """Alibaba Cloud's ALB Ingress controller.

    https://www.alibabacloud.com/help/en/ack/serverless-kubernetes/user-guide/alb-ingress-configuration-dictionary
    """

    def annotations(self, environment: Environment) -> dict[str, str]:
        """Return the ports to listen on, which the controller otherwise takes from the AlbConfig's order.

        With HTTPS, plain HTTP is answered with a redirect to it, as the proxy on the VMs does.
        """
        prefix = "alb.ingress.kubernetes.io"
        if environment.ingress.scheme == "http":
            return {f"{prefix}/listen-ports": f'[{{"HTTP": {HTTP_PORT}}}]'}
        ports = f'[{{"HTTP": {HTTP_PORT}}}, {{"HTTPS": {HTTPS_PORT}}}]'
        return {f"{prefix}/listen-ports": ports, f"{prefix}/ssl-redirect": "true"}

    def canary(self, wish: CanaryWish) -> dict[str, str]:
        """Return header or weight: here the two can't share an Ingress, and a header is the stronger wish."""
        prefix = "alb.ingress.kubernetes.io/canary"
        if wish.header:
            return {prefix: "true", f"{prefix}-by-header": wish.header, f"{prefix}-by-header-value": _ALWAYS}
        return {prefix: "true", f"{prefix}-weight": str(wish.weight)}


_DIALECTS: dict[str, Dialect] = {"nginx": NginxDialect(), "alb": AlbDialect()}


def ingress(application: Application, environment: Environment) -> Manifest | None:
    """Return the project's Ingress, None for a project that is called only inside the cluster."""
    return _ingress(application, environment, application.name, {}) if application.project.routes else None


def canary_ingress(application: Application, environment: Environment) -> Manifest | None:
    """Return the Ingress of the project's canary, None where the strategy or the project knows none.

    It is there without a canary too, with the weight 0: taken away, it would race the proxy, which for a moment would
    send requests to pods that are gone.
    """
    if application.project.strategy != "canary" or not application.project.routes:
        return None
    wish = application.canary or CanaryWish(tag="none")
    own = _DIALECTS[environment.ingress.dialect].canary(wish)
    return _ingress(application, environment, slot_service_name(application.name, "canary"), own)


def _ingress(application: Application, environment: Environment, name: str, own: dict[str, str]) -> Manifest:
    routes = application.project.routes
    hosts = dict.fromkeys(environment.host(route) for route in routes)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": environment.namespace,
            "labels": labels(application, environment.name),
            "annotations": {
                **annotations(application),
                **_DIALECTS[environment.ingress.dialect].annotations(environment),
                **own,
                **SKIP_AWAIT,
            },
        },
        "spec": {
            "ingressClassName": environment.ingress.class_name,
            "rules": [
                {
                    "host": host,
                    "http": {
                        "paths": [
                            {
                                "path": route.path,
                                "pathType": "Prefix",
                                "backend": {"service": {"name": name, "port": {"name": "http"}}},
                            }
                            for route in routes
                            if environment.host(route) == host
                        ]
                    },
                }
                for host in hosts
            ],
        },
    }
