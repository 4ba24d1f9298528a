"""An environment: where the projects run. It is the part ``package-platform:environment`` of a stack file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from model.fields import Address, DnsLabel, Frozen, HostName, RegistryHost, Seconds
from model.ingress import HTTP_PORT, HTTPS_PORT, AlbIngress, HaIngressSettings, VipIngress
from model.project import ProjectBase, Route
from model.storage import StorageSettings


class Registry(Frozen):
    """The image registry (Harbor)."""

    host: RegistryHost
    """Begins every image reference: ``harbor.example.com``."""
    pin_digests: bool = True
    """Ask the registry for each tag's digest and run that: a tag that is missing is an error before anything
    changes, and a tag that is pushed anew can't change what runs. False only where the registry can't be reached
    from where ``pulumi`` runs."""

    pull_secret: DnsLabel | None = None
    """Secret with which the cluster pulls images, named by every ServiceAccount: made from
    ``package-platform:registryCredentials``, or there already. None where anybody may pull."""


class Ingress(Frozen):
    """The way in from outside the cluster."""

    dialect: Literal["nginx", "alb"] = "nginx"
    """Annotations of the ingress controller: ``nginx`` (also Traefik in its compatible mode) or ``alb`` (ACK)."""
    class_name: DnsLabel = "nginx"
    """``ingressClassName`` of every Ingress."""
    scheme: Literal["http", "https"] = "http"
    """How clients call it; part of the printed URLs."""
    address: Address | None = None
    """``ip:port`` to connect to where the host names don't resolve; printed with the URLs. By default the first VIP of
    ``ha``."""
    ha: HaIngressSettings | None = None
    """The cluster's own way in, declared by exactly one stack of each cluster; the others name its class and
    address."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.ha is not None and (self.ha.kind == "alb") != (self.dialect == "alb"):
            wanted = "alb" if self.ha.kind == "alb" else "nginx"
            raise ValueError(f"ha is of kind {self.ha.kind}, which needs dialect: {wanted}")
        if isinstance(self.ha, AlbIngress) and self.scheme == "https" and not self.ha.certificate_ids:
            raise ValueError("scheme: https needs ha.certificateIds, which the ALB's HTTPS listener answers with")
        return self

    @property
    def entry(self) -> str | None:
        """What to connect to where the host names don't resolve, ``ip:port``; None when it is not known."""
        if self.address is None and isinstance(self.ha, VipIngress):
            return f"{self.ha.entry}:{HTTPS_PORT if self.scheme == 'https' else HTTP_PORT}"
        return self.address


class Environment(Frozen):
    """Where a stack puts its projects."""

    name: DnsLabel
    """Name of the environment, by default the stack's: ``test``, ``uat``, ``prod``."""
    namespace: DnsLabel
    """Namespace of all its projects."""
    domain: HostName
    """Below it the routes' short host names are put: ``api`` → ``api.<domain>``."""
    registry: Registry
    """The image registry."""
    ingress: Ingress = Ingress()
    """The way in."""
    storage: StorageSettings = StorageSettings()
    """Where volumes come from."""
    allow_latest: bool = False
    """Whether the tag ``latest`` may be deployed; not where a release has to be repeatable."""
    spread_over: tuple[str, ...] = Field(default=("kubernetes.io/hostname",), min_length=1)
    """Node labels over which a project's pods are spread evenly: nodes, and zones where there are any."""

    node_lost_seconds: Seconds = 10
    """Seconds that pods stay on a node after Kubernetes has noticed that it is not ready or unreachable; then they
    are replaced on other nodes. Kubernetes' own default is 300. It notices after ``--node-monitor-grace-period`` of
    its controller manager, 50 s by default. Each project can have its own."""

    def weighs(self, project: ProjectBase) -> bool:
        """Tell whether requests from outside reach a project's slots by weights in its Ingress.

        So it is behind ALB. Elsewhere they follow the project's Service.
        """
        return self.ingress.dialect == "alb" and bool(project.routes)

    def host(self, route: Route) -> str:
        """Return a route's full host name."""
        return route.host if "." in route.host else f"{route.host}.{self.domain}"

    def url(self, route: Route) -> str:
        """Return what a person types to reach a route."""
        return f"{self.ingress.scheme}://{self.host(route)}{route.path}"
