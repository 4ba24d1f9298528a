"""The Ingress of a project, in the dialect of the environment's ingress controller."""

from typing import Protocol

from manifests import Manifest
from manifests.labels import SKIP_AWAIT, annotations, labels
from model.environment import Environment
from model.stack import Application


class Dialect(Protocol):
    """What differs between ingress controllers."""

    def annotations(self, environment: Environment) -> dict[str, str]:
        """Return the controller's annotations for a project's Ingress."""
        ...


class NginxDialect:
    """ingress-nginx's annotations, which Traefik's ``kubernetesIngressNGINX`` provider understands too."""

    def annotations(self, environment: Environment) -> dict[str, str]:  # noqa: ARG002 - the protocol's signature
        """Return none: the defaults of the controller are right for a plain route."""
        return {}


class AlbDialect:
    """Alibaba Cloud's ALB Ingress controller.

    https://www.alibabacloud.com/help/en/ack/serverless-kubernetes/user-guide/alb-ingress-configuration-dictionary
    """

    def annotations(self, environment: Environment) -> dict[str, str]:
        """Return the ports to listen on, which the controller otherwise takes from the AlbConfig's order."""
        port = {"http": "HTTP", "https": "HTTPS"}[environment.ingress.scheme]
        number = {"http": 80, "https": 443}[environment.ingress.scheme]
        return {"alb.ingress.kubernetes.io/listen-ports": f'[{{"{port}": {number}}}]'}


_DIALECTS: dict[str, Dialect] = {"nginx": NginxDialect(), "alb": AlbDialect()}


def ingress(application: Application, environment: Environment) -> Manifest | None:
    """Return the project's Ingress, None for a project that is called only inside the cluster."""
    routes = application.project.routes
    if not routes:
        return None
    hosts = dict.fromkeys(environment.host(route) for route in routes)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": application.name,
            "namespace": environment.namespace,
            "labels": labels(application, environment.name),
            "annotations": {
                **annotations(application),
                **_DIALECTS[environment.ingress.dialect].annotations(environment),
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
                                "backend": {"service": {"name": application.name, "port": {"name": "http"}}},
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
