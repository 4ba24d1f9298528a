"""All objects of a cluster's ingress, in the form that the environment asks for."""

from dataclasses import dataclass, replace
from typing import assert_never

from manifests import Manifest, keepalived, traefik
from manifests.ingress_objects import metadata
from manifests.labels import SKIP_AWAIT
from manifests.secrets import pull_secret
from model.environment import Environment
from model.ingress import HTTP_PORT, HTTPS_PORT, AlbIngress, HaIngressSettings, NlbIngress, VipIngress
from model.secrets import ClusterSecrets

_NO_SECRETS = ClusterSecrets()
ALB_CONTROLLER = "ingress.k8s.alibabacloud/alb"


@dataclass(frozen=True)
class HaIngressManifests:
    """What there is to apply.

    Attributes:
        namespace: of what lies in one; None where the cloud is the proxy.
        first: what the rest refers to, in any order.
        workloads: what is rolled out, one after another as far as Pulumi waits (provider 4.x).
        last: what sends traffic to them.
    """

    namespace: Manifest | None
    first: tuple[Manifest, ...]
    workloads: tuple[Manifest, ...] = ()
    last: tuple[Manifest, ...] = ()

    def manifests(self) -> list[Manifest]:
        """Return all, in the order of their creation."""
        return [*([self.namespace] if self.namespace else []), *self.first, *self.workloads, *self.last]


def ha_ingress(
    environment: Environment, ingress: HaIngressSettings, secrets: ClusterSecrets = _NO_SECRETS
) -> HaIngressManifests:
    """Return the objects of a cluster's ingress.

    Args:
        environment: the one that owns it.
        ingress: how clients come in.
        secrets: what it is given of the stack's secrets.
    """
    match ingress:
        case VipIngress():
            objects = _vips(environment, ingress)
        case AlbIngress():
            return _alb(environment, ingress)
        case NlbIngress():
            objects = _nlb(environment, ingress)
        case _:
            assert_never(ingress)
    return replace(objects, first=(*_secrets(environment, ingress, secrets), *objects.first))


def _secrets(environment: Environment, ingress: traefik.ProxyIngress, secrets: ClusterSecrets) -> list[Manifest]:
    found = [pull_secret(environment, ingress.namespace, secrets.registry)] if secrets.registry else []
    return found + ([traefik.tls_secret(environment, ingress, secrets.certificate)] if secrets.certificate else [])


def _vips(environment: Environment, ingress: VipIngress) -> HaIngressManifests:
    namespace = ingress.namespace
    return HaIngressManifests(
        # keepalived needs the host's network, NET_ADMIN and NET_RAW, and the proxy host ports: only the level
        # "privileged" admits them. The proxy's own pod would pass "restricted" but for its host ports.
        namespace=_namespace(environment, namespace, "privileged"),
        first=(
            *_proxy_objects(environment, ingress),
            traefik.service_account(environment, namespace, keepalived.COMPONENT),
            keepalived.config_map(environment, ingress),
            _class(environment, traefik.CONTROLLER),
        ),
        workloads=(traefik.daemon_set(environment, ingress), keepalived.daemon_set(environment, ingress)),
        last=(_metrics_service(environment, namespace),),
    )


def _nlb(environment: Environment, ingress: NlbIngress) -> HaIngressManifests:
    return HaIngressManifests(
        namespace=_namespace(environment, ingress.namespace, "restricted"),
        first=(
            *_proxy_objects(environment, ingress),
            _class(environment, traefik.CONTROLLER),
        ),
        workloads=(_proxy_deployment(environment, ingress),),
        last=(_load_balancer(environment, ingress),),
    )


def _alb(environment: Environment, ingress: AlbIngress) -> HaIngressManifests:
    """https://www.alibabacloud.com/help/en/ack/serverless-kubernetes/user-guide/use-albconfigs-to-configure-alb-listeners."""
    reference = {"apiGroup": "alibabacloud.com", "kind": "AlbConfig", "name": ingress.name, "scope": "Cluster"}
    return HaIngressManifests(
        namespace=None,
        first=(_alb_config(environment, ingress), _class(environment, ALB_CONTROLLER, reference)),
    )


def _alb_config(environment: Environment, ingress: AlbIngress) -> Manifest:
    switches = [{"vSwitchId": switch} for switch in ingress.v_switches]
    own: Manifest = {
        "idleTimeout": ingress.idle_seconds,
        "requestTimeout": ingress.request_seconds,
        # Off unless asked for; the proxies on VMs send both. Without them an application takes the ALB for its client,
        # and https for http. https://github.com/alibaba/alibaba-load-balancer-controller/blob/main/docs/usage.md
        "xForwardedForConfig": {"XForwardedForEnabled": True, "XForwardedForProtoEnabled": True},
    }
    listeners: list[Manifest] = [{"port": HTTP_PORT, "protocol": "HTTP", **own}]
    if ingress.certificate_ids:
        certificates = [
            {"CertificateId": identifier, "IsDefault": index == 0}
            for index, identifier in enumerate(ingress.certificate_ids)
        ]
        listeners.append({"port": HTTPS_PORT, "protocol": "HTTPS", "certificates": certificates, **own})
    return {
        "apiVersion": "alibabacloud.com/v1",
        "kind": "AlbConfig",
        "metadata": metadata(environment, None, ingress.name, "alb"),
        "spec": {
            "config": {
                "name": ingress.name,
                "addressType": ingress.address_type,
                "edition": ingress.edition,
                **({"zoneMappings": switches} if switches else {}),
            },
            "listeners": listeners,
        },
    }


def _namespace(environment: Environment, name: str, level: str) -> Manifest:
    described = metadata(environment, None, name, "ingress")
    described["labels"] |= {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": described}


def _proxy_objects(environment: Environment, ingress: traefik.ProxyIngress) -> tuple[Manifest, ...]:
    return (
        traefik.service_account(environment, ingress.namespace, traefik.PROXY),
        traefik.cluster_role(environment),
        traefik.cluster_role_binding(environment, ingress.namespace),
        traefik.config_map(environment, ingress),
        traefik.disruption_budget(environment, ingress),
    )


def _class(environment: Environment, controller: str, parameters: Manifest | None = None) -> Manifest:
    described = metadata(environment, None, environment.ingress.class_name, "ingress")
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": described,
        "spec": {"controller": controller, **({"parameters": parameters} if parameters else {})},
    }


def _proxy_deployment(environment: Environment, ingress: NlbIngress) -> Manifest:
    labels = metadata(environment, ingress.namespace, traefik.PROXY, traefik.PROXY)
    selector = {"matchLabels": {"app.kubernetes.io/name": traefik.PROXY}}
    spread = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector,
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in environment.spread_over
    ]
    pod = traefik.pod(environment, ingress)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": labels,
        "spec": {
            "replicas": ingress.replicas,
            "revisionHistoryLimit": 5,
            "minReadySeconds": 5,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": selector,
            "template": {
                "metadata": {"labels": labels["labels"]},
                "spec": {**pod, "topologySpreadConstraints": spread},
            },
        },
    }


def _metrics_service(environment: Environment, namespace: str) -> Manifest:
    """Return the Service by which a Prometheus finds the proxies."""
    described = metadata(environment, namespace, traefik.PROXY, traefik.PROXY)
    described["annotations"] = dict(SKIP_AWAIT)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": described,
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": {"app.kubernetes.io/name": traefik.PROXY},
            "ports": [{"name": "metrics", "port": traefik.METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"}],
        },
    }


def _load_balancer(environment: Environment, ingress: NlbIngress) -> Manifest:
    """https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/nlb-service-configuration."""
    prefix = "service.beta.kubernetes.io/alibaba-cloud-loadbalancer"
    annotations = {
        f"{prefix}-zone-maps": ",".join(ingress.zones),
        f"{prefix}-address-type": ingress.address_type,
        f"{prefix}-health-check-flag": "on",
        f"{prefix}-health-check-type": "http",
        f"{prefix}-health-check-uri": "/",
        f"{prefix}-health-check-domain": keepalived.HEALTH_HOST,
        f"{prefix}-health-check-method": "GET",
        # Twice in 4 s it has seen that a proxy is ending, which goes on accepting for longer (acceptSeconds); by
        # default it looks every 10 s. A check by HTTP needs all of these.
        f"{prefix}-health-check-interval": "2",
        f"{prefix}-health-check-connect-timeout": "2",
        f"{prefix}-healthy-threshold": "2",
        f"{prefix}-unhealthy-threshold": "2",
        # The listener of 443 would ask in plain text where TLS is spoken. Pods are its servers (Terway): their port.
        **({f"{prefix}-health-check-connect-port": str(traefik.WEB_PORT)} if ingress.tls else {}),
        f"{prefix}-connection-drain": "on",
        f"{prefix}-connection-drain-timeout": "30",
        f"{prefix}-proxy-protocol": "on",
    }
    described = metadata(environment, ingress.namespace, traefik.PROXY, traefik.PROXY)
    described["annotations"] = {**annotations, **SKIP_AWAIT}
    ports = [("web", HTTP_PORT), *([("websecure", HTTPS_PORT)] if ingress.tls else [])]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": described,
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": "alibabacloud.com/nlb",
            # The client's address stays, and a zone's balancer asks only nodes that have a proxy.
            "externalTrafficPolicy": "Local",
            "selector": {"app.kubernetes.io/name": traefik.PROXY},
            "ports": [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in ports],
        },
    }
