"""An environment: where the projects run. It is the part ``package-platform:environment`` of a stack file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from model.ack import LabelKey
from model.fields import Address, DnsLabel, Frozen, HostName, RegistryHost, Seconds
from model.ingress import HTTP_PORT, HTTPS_PORT, AlbIngress, HaIngressSettings, NlbIngress, VipIngress
from model.names import LABEL_LIMIT
from model.project import ProjectBase, Route
from model.storage import StorageSettings

_HOST_LIMIT = 253
_DOMAIN_LIMIT = _HOST_LIMIT - LABEL_LIMIT - len(".")


def _domain(value: str) -> str:
    if len(value) > _DOMAIN_LIMIT:
        raise ValueError(f"{len(value)} characters leave no room for the host of a route: at most {_DOMAIN_LIMIT}")
    return value


def _each_once(keys: tuple[str, ...]) -> tuple[str, ...]:
    again = [key for index, key in enumerate(keys) if key in keys[:index]]
    if again:
        raise ValueError(f"{again[0]} is there twice: remove one")
    return keys


Domain = Annotated[HostName, AfterValidator(_domain)]
"""A host name below which there is room for one more label."""
LabelKeys = Annotated[tuple[LabelKey, ...], Field(min_length=1), AfterValidator(_each_once)]
"""Keys of labels, each once."""


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
    """How clients call it; part of the printed URLs. ``https`` at proxies of our own needs their ``ha.tls``, or the
    ``address`` of what ends TLS in front of them."""
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
        own = self.ha if isinstance(self.ha, VipIngress | NlbIngress) else None
        if own and self.scheme == "https" and not own.tls and not self.address:
            raise ValueError(
                "scheme: https needs ha.tls, without which nothing listens at port 443; where something in front ends "
                "TLS, name its address"
            )
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
    domain: Domain
    """Below it the routes' short host names are put: ``api`` → ``api.<domain>``."""
    registry: Registry
    """The image registry."""
    ingress: Ingress = Ingress()
    """The way in."""
    storage: StorageSettings = StorageSettings()
    """Where volumes come from."""
    allow_latest: bool = False
    """Whether the tag ``latest`` may be deployed; not where a release has to be repeatable."""
    spread_over: LabelKeys = ("kubernetes.io/hostname",)
    """Node labels over which a project's pods are spread evenly: nodes, and zones where there are any."""

    node_lost_seconds: Seconds = 10
    """Seconds that pods stay on a node after Kubernetes has noticed that it is not ready or unreachable; then they
    are replaced on other nodes. Kubernetes' own default is 300. It notices after ``--node-monitor-grace-period`` of
    its controller manager, 50 s by default. Each project can have its own."""

    unschedulable_seconds: Seconds = 10
    """Seconds that ``release`` waits for a node with room for a new pod before it calls the release hopeless: where
    nodes are added on demand as long as that takes, some minutes. ``rollout.progressDeadlineSeconds`` ends the wait,
    too."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        ha = self.ingress.ha
        if isinstance(ha, VipIngress | NlbIngress) and ha.namespace == self.namespace:
            raise ValueError(
                f"namespace and ingress.ha.namespace are both {ha.namespace}: the ingress needs one of its own"
            )
        return self

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
