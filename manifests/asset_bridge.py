"""The asset bridge of a blue-green front end: a file that one group of pods lacks is asked of the others.

A page that was loaded before a switch names assets of the old release, and for a moment after the switch a page of the
new release may have its assets asked of an old pod. So a second nginx (of the project's own image) stands before the
project's own one in every pod, and asks the other slots for what that one answers with 404.
"""

import copy
import hashlib
from string import Template

from manifests import Manifest
from model.names import ASSET_BRIDGE, ASSET_BRIDGE_HEADER, SlotName, slot_service_name
from model.project import ASSET_BRIDGE_FOLDER, ASSET_BRIDGE_PORT, FrontendProject, Project
from model.stack import Application

SLOTS: tuple[SlotName, ...] = ("main", "blue", "green")
"""Who is asked. ``main`` has the old pods of a project that was released pod by pod before."""
_FILE = "nginx.conf"

_CONFIG = """\
worker_processes 1;
pid /tmp/asset-bridge.pid;
error_log stderr error;

events {
    worker_connections 4096;
}

http {
    access_log off;
    server_tokens off;
    client_body_temp_path /tmp/asset-bridge-body;
    proxy_temp_path /tmp/asset-bridge-proxy;
    fastcgi_temp_path /tmp/asset-bridge-fastcgi;
    uwsgi_temp_path /tmp/asset-bridge-uwsgi;
    scgi_temp_path /tmp/asset-bridge-scgi;

    # Longer than the 90 s after which common proxies drop an idle connection.
    keepalive_timeout 180s;
    # The project's own nginx has the say over sizes and times.
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    # Event streams pass at once, and no large answer to a slow reader goes to the node's disk.
    proxy_buffering off;
    proxy_buffer_size 32k;
    proxy_buffers 4 32k;
    proxy_read_timeout 3600s;
    proxy_send_timeout 3600s;
    proxy_set_header Host $$http_host;
    proxy_set_header Upgrade $$http_upgrade;
    proxy_set_header Connection $$kept;

    map $$http_upgrade $$kept {
        default upgrade;
        "" "";
    }
    # Asked once only: what comes from another bridge, and all that is not just reading.
    map $$request_method$$http_$variable $$final {
        GET 0;
        HEAD 0;
        default 1;
    }

    upstream own {
        server 127.0.0.1:$port;
    }
    upstream others {
$others
    }

    server {
        listen $bridge;

$assets
        location @others {
            proxy_set_header Host $$http_host;
            proxy_set_header $header 1;
            proxy_connect_timeout 1s;
            proxy_read_timeout 5s;
            proxy_next_upstream error timeout http_404 http_502;
            proxy_pass http://others;
            proxy_intercept_errors on;
            error_page 404 500 502 503 504 = @own;
        }
        # The project's own answer, whatever it is.
        location @own {
            proxy_pass http://own;
        }
    }
}
"""

_PLAIN = """
        location / {
            proxy_pass http://own;
        }
"""

_ASSETS = """
        location ^~ $path {
            # A status that no server has: a jump that leaves method and body as they are.
            if ($$final) {
                return 418;
            }
            error_page 418 = @own;
            error_page 404 = @others;
            proxy_intercept_errors on;
            recursive_error_pages on;
            proxy_pass http://own;
        }
"""


def bridged(project: Project) -> bool:
    """Tell whether a project's pods have the bridge."""
    return isinstance(project, FrontendProject) and project.bridged


def configuration(application: Application) -> str:
    """Return the bridge's nginx.conf."""
    project = application.project
    paths = dict.fromkeys(project.assets if isinstance(project, FrontendProject) else ())
    plain = "" if "/" in paths else _PLAIN
    others = (f"        server {slot_service_name(application.name, slot)}:80 max_fails=0;" for slot in SLOTS)
    return Template(_CONFIG).substitute(
        port=project.port,
        bridge=ASSET_BRIDGE_PORT,
        header=ASSET_BRIDGE_HEADER,
        variable=ASSET_BRIDGE_HEADER.lower().replace("-", "_"),
        others="\n".join(others),
        assets=plain + "".join(Template(_ASSETS).substitute(path=path) for path in paths),
    )


def config_map_name(application: Application) -> str:
    """Return the name of the ConfigMap with the bridge's configuration, with its content's hash."""
    digest = hashlib.sha256(configuration(application).encode()).hexdigest()[:10]
    return f"{config_map_prefix(application)}{digest}"


def config_map_prefix(application: Application) -> str:
    """Return how the names of such ConfigMaps of a project begin."""
    return f"{application.name}-assets-"


def config_map_data(application: Application) -> dict[str, str]:
    """Return what the ConfigMap holds."""
    return {_FILE: configuration(application)}


def put_before(application: Application, pod: Manifest) -> None:
    """Put the bridge into a rendered pod: it takes over the port's name ``http``, which Services ask for."""
    (own,) = pod["containers"]
    own["ports"][0]["name"] = "own"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        own[probe]["httpGet"]["port"] = "own"
    pod["containers"].append(_container(copy.deepcopy(own)))
    pod["volumes"].append({"name": ASSET_BRIDGE, "configMap": {"name": config_map_name(application)}})


def _container(own: Manifest) -> Manifest:
    ready = {**own["readinessProbe"], "httpGet": {**own["readinessProbe"]["httpGet"], "port": "http"}}
    return {
        "name": ASSET_BRIDGE,
        # A front end's image is an nginx: nothing else has to be pulled, and nothing else to be kept up to date.
        "image": own["image"],
        "imagePullPolicy": own["imagePullPolicy"],
        "command": ["nginx"],
        "args": ["-e", "stderr", "-c", f"{ASSET_BRIDGE_FOLDER}/{_FILE}", "-g", "daemon off;"],
        "ports": [{"name": "http", "containerPort": ASSET_BRIDGE_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "readinessProbe": ready,
        **({"lifecycle": own["lifecycle"]} if "lifecycle" in own else {}),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": own["securityContext"],
        "volumeMounts": [
            {"name": ASSET_BRIDGE, "mountPath": ASSET_BRIDGE_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the container
        ],
    }
