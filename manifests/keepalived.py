"""keepalived: its configuration, and the DaemonSet that runs it beside the proxies.

VRRP version 3 (RFC 5798) has no authentication any more; adverts are taken only from the declared peers, by unicast,
and the network between the nodes must be one that strangers can't send on.
"""

import hashlib
from collections.abc import Iterable
from string import Template

from manifests import Manifest, hand_over, ingress_objects
from manifests.hand_over import CHECK_FOLDER
from manifests.ingress_objects import BUSYBOX, field, metadata, resources, unprivileged
from model.environment import Environment
from model.ingress import HTTP_PORT, HTTPS_PORT, IngressNode, Vip, VipIngress

HEALTH_HOST = "health.package-platform.internal"
"""The host name of the proxy's health answer; it resolves nowhere."""
COMPONENT = "keepalived"
_HIGHEST_PRIORITY = 150
_PRIORITIES = 100
_ADVERT_SECONDS = "0.2"
"""Without an advert for three times this and a little, another node takes over: 0.6 to 0.7 s."""
_PREEMPT_DELAY_SECONDS = 30
_MARGIN_SECONDS = 15
"""To end in, after the addresses were handed over."""
_CONFIG_FILE = "/etc/keepalived/keepalived.conf"

_GLOBAL = """\
global_defs {
    vrrp_version 3
    # Whoever missed the first announcement of a move learns of it within seconds.
    vrrp_garp_master_delay 1
    vrrp_garp_master_refresh 5
    vrrp_garp_master_repeat 3
    # After a split: the one that stays tells everybody again, at once.
    vrrp_garp_lower_prio_repeat 3
    vrrp_garp_lower_prio_delay 0
    vrrp_higher_prio_send_advert true
}

# Written several times a second by the container "check": 0 while the proxy answers, 1 while it does not.
track_file proxy {
    file "$folder/proxy"
    weight 0
}
"""

_INSTANCE = """
vrrp_instance vip_$id {
    state BACKUP
    $preemption
    interface $interface
    virtual_router_id $id
    version 3
    advert_int $advert
$priorities
$sources
    unicast_peer {
$peers
    }
    check_unicast_src
    track_file {
        proxy
    }
    virtual_ipaddress {
        $address/32 dev $interface
    }
}
"""

_VIRTUAL_SERVER = """
virtual_server $address $port {
    delay_loop 1
    lvs_method $mode
    lvs_sched $scheduler
    protocol TCP
$persistence$servers
}
"""

_REAL_SERVER = """\
    real_server $address $port {
        weight 1
        inhibit_on_failure
        HTTP_GET {
            url {
                path /
                virtualhost $host
                status_code 200
            }
            connect_port $check_port
            connect_timeout 1
            retry 1
            delay_before_retry 1
        }
    }"""

# Debian's busybox crashes on wget's own -T. A proxy that is ending answers 503 and goes on serving: its addresses are
# handed over first. One that does not answer loses them at once.
_CHECK = """\
well=0 ending=0 dead=0
say() {
  # By a new file each time, which is never seen half written.
  echo "$$1" > $folder/next && $busybox mv -f $folder/next $folder/proxy
}
while [ ! -e $folder/over ]; do
  said=$$($busybox timeout 1 $busybox wget -q -O /dev/null --header "Host: $host" "http://$$NODE_ADDRESS/" 2>&1)
  case $$?:$$said in
    0:*) well=$$((well + 1)) ending=0 dead=0 ;;
    *' 503 '*) well=0 ending=$$((ending + 1)) dead=0 ;;
    *) well=0 ending=0 dead=$$((dead + 1)) ;;
  esac
  if [ "$$well" -ge 2 ]; then
    say 0
    $busybox rm -f $folder/leaving
  elif [ "$$dead" -ge 2 ]; then
    say 1
  elif [ "$$ending" -ge 2 ]; then
    : > $folder/leaving
    if [ -e $folder/left ] || [ ! -e $folder/proxy ]; then say 1; else $busybox touch $folder/proxy; fi
  fi
  $busybox usleep 200000
done
"""

_IS_FRESH = f"""\
age=$(( $({BUSYBOX} date +%s) - $({BUSYBOX} stat -c %Y {CHECK_FOLDER}/proxy) ))
[ "$age" -lt 10 ]
"""

# The process that speaks VRRP sleeps and wakes several times a second, for its adverts or those of others. One that is
# stopped, stuck or running in circles does not, and keeps its addresses while another node takes them over.
_GOES_ON = f"""\
now=$({BUSYBOX} grep ^voluntary_ctxt_switches /proc/$({BUSYBOX} cat /run/keepalived/vrrp.pid)/status)
[ -n "$now" ] && [ "$now" != "$({BUSYBOX} cat /run/keepalived/wakes 2>/dev/null)" ] || exit 1
echo "$now" > /run/keepalived/wakes
"""

_HAS_IPVS = """\
if [ ! -e /proc/net/ip_vs ]; then
  echo "ingress.ha.lvs needs IPVS, which the kernel of $NODE_NAME lacks: load the module ip_vs there, or remove lvs" >&2
  exit 1
fi
"""


def configuration(ingress: VipIngress) -> str:
    """Return keepalived.conf, one for all nodes: lines that begin with ``@<node>`` are that node's only."""
    parts = [
        Template(_GLOBAL).substitute(folder=CHECK_FOLDER),
        *(_instance(ingress, index, vip) for index, vip in enumerate(ingress.vips)),
    ]
    if ingress.lvs:
        ports = (HTTP_PORT, HTTPS_PORT) if ingress.tls else (HTTP_PORT,)
        parts += [_virtual_server(ingress, vip, port) for vip in ingress.vips for port in ports]
    return "".join(parts)


def _instance(ingress: VipIngress, index: int, vip: Vip) -> str:
    first = index % len(ingress.nodes)
    order = [*ingress.nodes[first:], *ingress.nodes[:first]]
    # Far apart: a backup waits the longer the lower its priority is, and must hear the one before it meanwhile.
    step = max(1, _PRIORITIES // len(order))
    priorities = {node.name: _HIGHEST_PRIORITY - step * place for place, node in enumerate(order)}
    return Template(_INSTANCE).substitute(
        id=vip.router_id,
        address=vip.address,
        interface=ingress.interface,
        advert=_ADVERT_SECONDS,
        # Each move breaks open connections: the address stays where it is unless it is asked to go back.
        preemption=f"preempt_delay {_PREEMPT_DELAY_SECONDS}" if ingress.preempt else "nopreempt",
        priorities=_lines(f"    @{node.name} priority {priorities[node.name]}" for node in ingress.nodes),
        sources=_lines(f"    @{node.name} unicast_src_ip {node.address}" for node in ingress.nodes),
        peers=_lines(f"        @^{node.name} {node.address}" for node in ingress.nodes),
    )


def _virtual_server(ingress: VipIngress, vip: Vip, port: int) -> str:
    lvs = ingress.lvs
    if lvs is None:
        raise ValueError("there is no lvs to render")
    persistence = f"    persistence_timeout {lvs.persistence_seconds}\n" if lvs.persistence_seconds else ""
    return Template(_VIRTUAL_SERVER).substitute(
        address=vip.address,
        port=port,
        mode=lvs.mode,
        scheduler=lvs.scheduler,
        persistence=persistence,
        servers=_lines(_real_server(node, port) for node in ingress.nodes),
    )


def _real_server(node: IngressNode, port: int) -> str:
    return Template(_REAL_SERVER).substitute(address=node.address, port=port, host=HEALTH_HOST, check_port=HTTP_PORT)


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def config_map(environment: Environment, ingress: VipIngress) -> Manifest:
    """Return the ConfigMap with keepalived.conf: immutable, its content's hash in the name.

    The name is a plain value, so a new content makes a second ConfigMap and a rolling update of the pods.
    """
    text = configuration(ingress)
    name = f"{COMPONENT}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(environment, ingress.namespace, name, COMPONENT),
        "immutable": True,
        "data": {"keepalived.conf": text},
    }


def daemon_set(environment: Environment, ingress: VipIngress) -> Manifest:
    """Return the DaemonSet of keepalived, which runs on the ingress nodes that the stack file lists and no other."""
    pod = _pod(environment, ingress)
    return ingress_objects.daemon_set(environment, ingress.namespace, COMPONENT, pod, min_ready_seconds=3)


def image_of(environment: Environment, ingress: VipIngress) -> str:
    """Return keepalived's image, which also has the shell and the small programs of all scripts."""
    return f"{environment.registry.host}/{ingress.keepalived_image}"


def _pod(environment: Environment, ingress: VipIngress) -> Manifest:
    image = image_of(environment, ingress)
    name = config_map(environment, ingress)["metadata"]["name"]
    return {
        "serviceAccountName": COMPONENT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": "system-node-critical",
        # The addresses belong to the node's own network, and VRRP is spoken there.
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": ingress.hand_over_seconds + _MARGIN_SECONDS,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _listed(ingress)}},
        **({"initContainers": [_ipvs_check(image)]} if ingress.lvs else {}),
        "containers": [_check_container(image), _keepalived_container(image, ingress)],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": "check", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            hand_over.volume(),
        ],
    }


def _listed(ingress: VipIngress) -> Manifest:
    """Return what admits the listed nodes only; they need the label as well.

    On another node the configuration has no peer that knows it: it would hear no advert and take addresses that are
    held. A proxy there does no harm: no address ever leads to it.
    """
    # One term for each node: a requirement of a node's name takes exactly one value, and one term has to fit.
    names = [{"key": "metadata.name", "operator": "In", "values": [node.name]} for node in ingress.nodes]
    return {"nodeSelectorTerms": [{"matchFields": [name]} for name in names]}


def _ipvs_check(image: str) -> Manifest:
    return {
        "name": "kernel-has-ipvs",
        "image": image,
        "command": [BUSYBOX, "sh", "-c", _HAS_IPVS],
        "env": [field("NODE_NAME", "spec.nodeName")],
        "resources": resources("10m", "8Mi", "32Mi"),
        "securityContext": unprivileged(),
    }


def _check_container(image: str) -> Manifest:
    """Return the container that asks the proxy the way a request goes: host port, redirect, entry point, router."""
    script = Template(_CHECK).substitute(busybox=BUSYBOX, host=HEALTH_HOST, folder=CHECK_FOLDER)
    return {
        "name": "check",
        "image": image,
        "command": [BUSYBOX, "sh", "-c", script],
        "env": [field("NODE_ADDRESS", "status.hostIP")],
        "resources": resources("50m", "8Mi", "32Mi"),
        "securityContext": unprivileged(),
        # An answer that is no longer written anew is worth nothing.
        "livenessProbe": {
            "exec": {"command": [BUSYBOX, "sh", "-c", _IS_FRESH]},
            "periodSeconds": 5,
            "failureThreshold": 2,
            "timeoutSeconds": 5,
        },
        "volumeMounts": [{"name": "check", "mountPath": CHECK_FOLDER}],
    }


def _keepalived_container(image: str, ingress: VipIngress) -> Manifest:
    return {
        "name": COMPONENT,
        "image": image,
        "command": [BUSYBOX, "sh", "-c", hand_over.agent_script(ingress), "agent"],
        "args": [
            "/usr/sbin/keepalived",
            "--dont-fork",
            "--log-console",
            "--no-syslog",
            f"--use-file={_CONFIG_FILE}",
            "--config-id=$(NODE_NAME)",
            "--pid=/run/keepalived/parent.pid",
            "--vrrp_pid=/run/keepalived/vrrp.pid",
            "--checkers_pid=/run/keepalived/checkers.pid",
        ],
        "env": [field("NODE_NAME", "spec.nodeName")],
        # It needs next to nothing, but at once, also while the node starts everything else: this is its weight there,
        # and a backup that reads the adverts late takes over an address that is well.
        "resources": resources("100m", "16Mi", "64Mi"),
        "securityContext": {
            # VRRP's raw sockets and the node's addresses are root's; what else root could do is dropped.
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        },
        # The parent restarts what it can; this is for a program that neither works nor ends.
        "livenessProbe": {
            "exec": {"command": [BUSYBOX, "sh", "-c", _GOES_ON]},
            "initialDelaySeconds": 3,
            "periodSeconds": 5,
            "failureThreshold": 3,
            "timeoutSeconds": 5,
            # It hands nothing over any more.
            "terminationGracePeriodSeconds": 2,
        },
        # A rolling update goes on to the next node only when this one could take an address.
        "readinessProbe": {
            "exec": {"command": [BUSYBOX, "grep", "-qx", "0", f"{CHECK_FOLDER}/proxy"]},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/keepalived", "readOnly": True},
            {"name": "check", "mountPath": CHECK_FOLDER},
            {"name": "run", "mountPath": "/run/keepalived"},
            hand_over.mount(),
        ],
    }
