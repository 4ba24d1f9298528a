"""Traefik with its provider for the nginx annotations: the proxy of a cluster's ingress.

https://doc.traefik.io/traefik/v3.7/reference/install-configuration/configuration-options/
"""

import hashlib
import json
from typing import Any

from manifests import Manifest, hand_over, ingress_objects, keepalived
from manifests.ingress_objects import APP_LABEL, USER, metadata
from manifests.keepalived import HEALTH_HOST
from manifests.labels import SKIP_AWAIT
from manifests.secrets import fixed_secret, image_pull
from model.environment import Environment
from model.ingress import HTTP_PORT, HTTPS_PORT, NlbIngress, VipIngress
from model.secrets import TlsCertificate

PROXY = "traefik"
CONTROLLER = "k8s.io/ingress-nginx"
WEB_PORT = 8000
SECURE_PORT = 8443
# Not 8080, where the applications listen: after a power cut a proxy may get the address that an application's pod had,
# and would answer 404 in its place for as long as that is still listed as an endpoint.
METRICS_PORT = 9180
# Seconds. Traefik's own four (0.1, 0.3, 1.2, 5) are too far apart to tell a canary's p99 from a limit.
_BUCKETS = "0.005,0.01,0.025,0.05,0.1,0.2,0.3,0.5,0.75,1,1.5,2.5,5,10"
_DYNAMIC_FOLDER = "/etc/traefik/dynamic"
_ROUTES_FOLDER = f"{_DYNAMIC_FOLDER}/routes"
_ROUTES = {"name": "routes", "mountPath": _ROUTES_FOLDER, "readOnly": True}
_DYNAMIC = {"name": "dynamic", "mountPath": _DYNAMIC_FOLDER}
_MARGIN_SECONDS = 5
# An API server that lost its power is noticed within 5 s, so that the endpoints are watched by another one (or by the
# same, back again); client-go's own values make that 45 s, in which the proxy knows only the pods of before.
# https://pkg.go.dev/k8s.io/apimachinery/pkg/util/net, readIdleTimeoutSeconds and pingTimeoutSeconds
_WATCH_ENVIRONMENT = {"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "3", "HTTP2_PING_TIMEOUT_SECONDS": "2"}
# Above every router that an Ingress makes (their priority is the length of the rule) and below Traefik's own.
_REDIRECT_PRIORITY = 1_000_000
_HEALTH_PRIORITY = 2_000_000
_WATCH = ["list", "watch"]

ProxyIngress = VipIngress | NlbIngress


def arguments(ingress: ProxyIngress, class_name: str) -> list[str]:
    """Return Traefik's command line.

    Args:
        ingress: how clients come in.
        class_name: the IngressClass whose Ingresses it serves.
    """
    return [
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        "--log.level=INFO",
        *_entry_points(ingress),
        *_provider(ingress, class_name),
        *_access_log(ingress),
        # Health is a router of its own, so that it is asked the way a request comes.
        "--ping=true",
        "--ping.manualrouting=true",
        "--ping.terminatingstatuscode=503",
        "--providers.file.watch=true",
        f"--providers.file.directory={_watched(ingress)}",
        f"--entrypoints.metrics.address=:{METRICS_PORT}",
        "--metrics.prometheus=true",
        "--metrics.prometheus.entrypoint=metrics",
        "--metrics.prometheus.addrouterslabels=true",
        f"--metrics.prometheus.buckets={_BUCKETS}",
    ]


def _watched(ingress: ProxyIngress) -> str:
    """Return the folder whose changes Traefik sees; it does not watch those below, though it reads them.

    With VIPs the sidecar writes there, also when the certificate below has changed.
    """
    return _DYNAMIC_FOLDER if isinstance(ingress, VipIngress) else _ROUTES_FOLDER


def _entry_points(ingress: ProxyIngress) -> list[str]:
    proxy = ingress.proxy
    lines: list[str] = []
    for name, port in (("web", WEB_PORT), *((("websecure", SECURE_PORT),) if ingress.tls else ())):
        point = f"--entrypoints.{name}"
        lines += [
            f"{point}.address=:{port}",
            f"{point}.transport.lifecycle.requestacceptgracetimeout={proxy.accept_seconds}s",
            f"{point}.transport.lifecycle.gracetimeout={proxy.drain_seconds}s",
            f"{point}.transport.respondingtimeouts.readtimeout={proxy.read_seconds}s",
            f"{point}.transport.respondingtimeouts.writetimeout=0s",
            f"{point}.transport.respondingtimeouts.idletimeout={proxy.idle_seconds}s",
        ]
        if isinstance(ingress, VipIngress):
            lines.append(f"{point}.http.middlewares={hand_over.ENTRY_POINT_MIDDLEWARE}@file")
        if proxy.trusted_proxies:
            lines.append(f"{point}.forwardedheaders.trustedips={','.join(proxy.trusted_proxies)}")
        if isinstance(ingress, NlbIngress):
            # The load balancer tells the client's address by the PROXY protocol; from anyone else it is ignored.
            lines.append(f"{point}.proxyprotocol.trustedips={','.join(proxy.trusted_proxies)}")
    if ingress.tls:
        lines.append("--entrypoints.websecure.http.tls=true")
    if ingress.tls and ingress.tls.redirect:
        redirect = "--entrypoints.web.http.redirections.entrypoint"
        lines += [
            f"{redirect}.to=:{HTTPS_PORT}",
            f"{redirect}.scheme=https",
            f"{redirect}.priority={_REDIRECT_PRIORITY}",
        ]
    return lines


def _provider(ingress: ProxyIngress, class_name: str) -> list[str]:
    proxy, provider = ingress.proxy, "--providers.kubernetesingressnginx"
    lines = [
        f"{provider}=true",
        f"{provider}.ingressclass={class_name}",
        f"{provider}.controllerclass={CONTROLLER}",
        f"{provider}.httpentrypoint=web",
        # How soon a changed endpoint is seen: one change at once, more of them bundled.
        f"{provider}.throttleduration=100ms",
        "--providers.providersthrottleduration=100ms",
        # Whole seconds only; a node that is gone answers "no route to host" sooner (docs/how-to/vm-cluster.md).
        f"{provider}.proxyconnecttimeout=1",
        f"{provider}.proxyreadtimeout={proxy.backend_read_seconds}",
        f"{provider}.proxysendtimeout={proxy.backend_read_seconds}",
        f"{provider}.proxynextupstream={_tried_again(ingress)}",
        f"{provider}.proxynextupstreamtries={proxy.tries}",
        f"{provider}.proxynextupstreamtimeout={proxy.tries_seconds}",
    ]
    if proxy.body_bytes:
        # Traefik enforces the limit while it buffers, in memory first and then in /tmp.
        lines += [f"{provider}.proxyrequestbuffering=true", f"{provider}.proxybodysize={proxy.body_bytes}"]
    if ingress.tls:
        lines.append(f"{provider}.httpsentrypoint=websecure")
    if isinstance(ingress, VipIngress):
        lines.append(f"{provider}.publishstatusaddress={','.join(vip.address for vip in ingress.vips)}")
    else:
        lines.append(f"{provider}.publishservice={ingress.namespace}/{PROXY}")
    return lines


def _tried_again(ingress: ProxyIngress) -> str:
    """Return what is tried again: what was not sent yet, and what failed after that when it is idempotent.

    The latter keeps each request's body, in a buffer as large as the limit: with a limit it is left out.
    """
    return "error timeout" if ingress.proxy.body_bytes else "error timeout http_502 http_504"


def _access_log(ingress: ProxyIngress) -> list[str]:
    if ingress.proxy.access_log == "off":
        return []
    lines = ["--accesslog=true", "--accesslog.format=json", "--accesslog.fields.headers.defaultmode=drop"]
    if ingress.proxy.access_log == "problems":
        lines += [
            "--accesslog.filters.statuscodes=400-599",
            "--accesslog.filters.retryattempts=true",
            "--accesslog.filters.minduration=1s",
        ]
    return lines


def dynamic_configuration(ingress: ProxyIngress) -> str:
    """Return what Traefik reads from its folder: the health answer, and the certificate that is there by default."""
    quiet: dict[str, Any] = {"accessLogs": False, "metrics": False, "tracing": False}
    content: dict[str, Any] = {
        "http": {
            "routers": {
                "health": {
                    "entryPoints": ["web"],
                    "rule": f"Host(`{HEALTH_HOST}`)",
                    "priority": _HEALTH_PRIORITY,
                    "service": "ping@internal",
                    "observability": quiet,
                }
            }
        }
    }
    if ingress.tls:
        files = {"certFile": f"{_ROUTES_FOLDER}/tls.crt", "keyFile": f"{_ROUTES_FOLDER}/tls.key"}
        content["tls"] = {"stores": {"default": {"defaultCertificate": files}}}
    # JSON is YAML, and always quotes what has to be quoted.
    return json.dumps(content, indent=2) + "\n"


def config_map(environment: Environment, ingress: ProxyIngress) -> Manifest:
    """Return the ConfigMap with Traefik's own routes: immutable, its content's hash in the name."""
    text = dynamic_configuration(ingress)
    name = f"{PROXY}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(environment, ingress.namespace, name, PROXY),
        "immutable": True,
        "data": {"dynamic.yaml": text},
    }


def service_account(environment: Environment, namespace: str, name: str) -> Manifest:
    """Return a ServiceAccount; its token is mounted only where a pod asks for it."""
    account = metadata(environment, namespace, name, name)
    account["annotations"] = dict(SKIP_AWAIT)
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": account,
        "automountServiceAccountToken": False,
        **image_pull(environment.registry.pull_secret),
    }


def tls_secret(environment: Environment, ingress: ProxyIngress, certificate: TlsCertificate) -> Manifest:
    """Return the Secret with the ingress's certificate, which the proxies take up anew when it changes."""
    name = ingress.tls.secret if ingress.tls else ""
    texts = {"tls.crt": certificate.certificate, "tls.key": certificate.key.get_secret_value()}
    return fixed_secret(metadata(environment, ingress.namespace, name, PROXY), "kubernetes.io/tls", texts)


def cluster_role(environment: Environment) -> Manifest:
    """Return what the provider needs: it lists and watches, and writes the addresses into the Ingresses' status.

    It can't be told to leave Secrets and ConfigMaps alone: its watch waits until it has listed both. It could be held
    to some namespaces (``watchNamespaceSelector``), but reads which ones only when it starts: a new environment would
    need all proxies to be rolled.
    """
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": metadata(environment, None, f"package-platform-{PROXY}", PROXY),
        "rules": [
            {"apiGroups": [""], "resources": ["services", "secrets", "configmaps"], "verbs": _WATCH},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _WATCH},
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": _WATCH},
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update"]},
        ],
    }


def cluster_role_binding(environment: Environment, namespace: str) -> Manifest:
    """Return the binding of that role to Traefik's ServiceAccount."""
    name = f"package-platform-{PROXY}"
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata(environment, None, name, PROXY),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": PROXY, "namespace": namespace}],
    }


def disruption_budget(environment: Environment, ingress: ProxyIngress) -> Manifest:
    """Return the PodDisruptionBudget of the proxies; a sick one may always be evicted."""
    # Kubernetes reckons ``maxUnavailable``, and percentages, from the number that the pods' owner says it wants. A
    # DaemonSet says none (it has no scale): such a budget would admit no eviction at all and stay in error.
    # https://kubernetes.io/docs/tasks/run-application/configure-pdb/#arbitrary-controllers-and-selectors
    if isinstance(ingress, VipIngress):
        allowed: Manifest = {"minAvailable": len(ingress.nodes) - 1}
    else:
        allowed = {"maxUnavailable": f"{ingress.max_unavailable}%"}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(environment, ingress.namespace, PROXY, PROXY),
        "spec": {
            **allowed,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {APP_LABEL: PROXY}},
        },
    }


def pod(environment: Environment, ingress: ProxyIngress) -> Manifest:
    """Return the pod's ``spec``, without what ties it to nodes."""
    proxy = ingress.proxy
    retries = [{"name": "net.ipv4.tcp_retries2", "value": str(proxy.tcp_retries)}] if proxy.tcp_retries else []
    return {
        "serviceAccountName": PROXY,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": proxy.accept_seconds + proxy.drain_seconds + _MARGIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
            **({"sysctls": retries} if retries else {}),
        },
        **({"initContainers": [_sidecar(environment, ingress)]} if isinstance(ingress, VipIngress) else {}),
        "containers": [_container(environment, ingress)],
        "volumes": [
            {"name": "routes", "projected": {"sources": _sources(environment, ingress)}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            *(_hand_over_volumes() if isinstance(ingress, VipIngress) else []),
        ],
    }


def daemon_set(environment: Environment, ingress: VipIngress) -> Manifest:
    """Return the proxies of the ingress nodes."""
    # Long enough for keepalived's check to see the new one well before the next one goes.
    return ingress_objects.daemon_set(
        environment, ingress.namespace, PROXY, pod(environment, ingress), min_ready_seconds=5
    )


def _sidecar(environment: Environment, ingress: VipIngress) -> Manifest:
    image = keepalived.image_of(environment, ingress)
    return hand_over.sidecar(image, _DYNAMIC["name"], _DYNAMIC_FOLDER, _ROUTES)


def _hand_over_volumes() -> list[Manifest]:
    return [{"name": _DYNAMIC["name"], "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, hand_over.volume()]


def _sources(environment: Environment, ingress: ProxyIngress) -> list[Manifest]:
    """Return what lies in one folder: routes of our own, and the certificate."""
    name = config_map(environment, ingress)["metadata"]["name"]
    sources: list[Manifest] = [{"configMap": {"name": name}}]
    if ingress.tls:
        sources.append({"secret": {"name": ingress.tls.secret}})
    return sources


def _container(environment: Environment, ingress: ProxyIngress) -> Manifest:
    resources = ingress.proxy.resources
    probe = {"httpGet": {"path": "/", "port": "web", "httpHeaders": [{"name": "Host", "value": HEALTH_HOST}]}}
    return {
        "name": PROXY,
        "image": f"{environment.registry.host}/{ingress.proxy.image}",
        "args": arguments(ingress, environment.ingress.class_name),
        "env": [{"name": name, "value": value} for name, value in _WATCH_ENVIRONMENT.items()],
        "ports": _ports(ingress),
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 2},
        "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 2, "timeoutSeconds": 2},
        # Later than keepalived's checks, which have moved the traffic away by then; not while it drains.
        "livenessProbe": {
            "tcpSocket": {"port": "web"},
            "periodSeconds": 10,
            "failureThreshold": 3,
            "timeoutSeconds": 5,
        },
        "resources": {
            "requests": {"cpu": resources.cpu, "memory": resources.memory},
            "limits": {"memory": resources.memory_limit},
        },
        # Ports above 1024 inside and the node's below by the CNI plugin: no capability is needed, not even
        # NET_BIND_SERVICE.
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            *([_DYNAMIC] if isinstance(ingress, VipIngress) else []),
            _ROUTES,
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
        ],
    }


def _ports(ingress: ProxyIngress) -> list[Manifest]:
    wanted = [("web", WEB_PORT, HTTP_PORT), *([("websecure", SECURE_PORT, HTTPS_PORT)] if ingress.tls else [])]
    on_host = isinstance(ingress, VipIngress)
    ports: list[Manifest] = [
        {"name": name, "containerPort": port, **({"hostPort": host} if on_host else {}), "protocol": "TCP"}
        for name, port, host in wanted
    ]
    return [*ports, {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
