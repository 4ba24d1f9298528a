"""How a node gives its addresses away on purpose, so that no client notices.

A connection lives on one node: whatever is open when an address moves is reset. So before a planned move

1. for ``handOverSeconds`` every answer of the proxy ends its connection (``Connection: close``, in HTTP/2 ``GOAWAY``):
   kept-alive ones are closed by their own clients, who then open new ones;
2. for a moment new connections are not taken: their first packet is dropped, and the client's kernel repeats it a
   second later, to the node that has the address by then; requests under way are answered meanwhile;
3. the address goes.

keepalived's container does this, for only it may touch the node's network; a sidecar tells the proxy.
"""

from string import Template

from manifests import Manifest
from manifests.ingress_objects import BUSYBOX, resources, unprivileged
from model.ingress import VipIngress

ENTRY_POINT_MIDDLEWARE = "open-connections"
"""Every request passes this middleware, which does nothing, or ends the connection with the answer."""
CHECK_FOLDER = "/run/check"
"""Where keepalived's containers speak to each other: ``proxy`` is 0 or 1, ``leaving`` says that the proxy is ending,
``left`` that its addresses are gone, ``over`` that keepalived has ended."""
_HOST_FOLDER = "/run/package-platform-ingress"
_FOLDER = "/run/hand-over"
_VOLUME = "hand-over"
_TICK_MICROSECONDS = 200_000
_TICKS_PER_SECOND = 1_000_000 // _TICK_MICROSECONDS
_HOLD_MICROSECONDS = 700_000
"""With the takeover itself this stays below the second after which a client's kernel repeats a first packet."""
_GONE_TICKS = 3 * _TICKS_PER_SECOND
_CERTIFICATE_TICKS = 2 * _TICKS_PER_SECOND

# Ended by SIGTERM, the shell goes on: its trap only notes it.
# Killed, keepalived leaves its addresses on the interface, and when started again as a backup it does not take them
# away: two nodes would hold one address. Its files with process numbers stay too, and it would not start beside them.
# Without a first answer about the proxy it would count as well.
_AGENT = """\
leave= told= held=
trap 'leave=yes' TERM
tick() { $busybox usleep $tick; }
here() { $busybox ip -4 address show dev $interface | $busybox grep -oE ' ($pattern)/'; }
holds() { here > /dev/null; }
let_in() { /usr/sbin/nft delete table ip package_platform_ingress 2>/dev/null; }
let_in_later() {
  # A first packet that still comes here would be passed on, and refused if the next holder is not there yet.
  $busybox sleep 1
  let_in
}
keep_out() {
  /usr/sbin/nft -f - <<'END' || echo "hand-over: this kernel can't hold new connections back"
table ip package_platform_ingress {
  chain hold {
    type filter hook prerouting priority -300; policy accept;
    ip daddr { $set } tcp flags & (fin | syn | rst | ack) == syn drop
  }
}
END
}
pass_on() {
  # Whoever has not heard of a move yet still sends here, and the node passes it on. Kept in mind, such a connection
  # would be taken for that of a program of this node when the address is here again and the client's port in use again.
  /usr/sbin/nft -f - <<'END' || echo "hand-over: this kernel can't tell whose address it is"
table ip package_platform_passing
delete table ip package_platform_passing
table ip package_platform_passing {
  chain passing {
    type filter hook prerouting priority -300; policy accept;
    iifname "$interface" ip daddr { $set } fib daddr type != local notrack
  }
}
END
}
forget() { /usr/sbin/conntrack --delete --orig-dst "$$1" > /dev/null 2>&1; }
forget_what_left() {
  # Connections that were cut off with their address would go on leading to the proxy's pod of that time.
  now=$$(here)
  for address in $$held; do
    case $$now in *" $$address"*) ;; *) forget "$${address%/}" ;; esac
  done
  held=$$now
}
still_open() { $busybox rm -f $folder/closing $check/leaving $check/left $check/over; }
hand_over() {
  holds || return 0
  if [ -z "$$told" ]; then
    told=yes ticks=0
    echo "hand-over: open connections end with their next answer"
    : > $folder/closing
    while [ "$$ticks" -lt $close_ticks ] && holds; do ticks=$$((ticks + 1)); tick; done
  fi
  holds || return 0
  echo "hand-over: the addresses go"
  keep_out
  $busybox usleep $hold
}

waited=0
while [ ! -e $check/proxy ] && [ "$$waited" -lt 50 ]; do waited=$$((waited + 1)); tick; done
pass_on
for address in $addresses; do
  $busybox ip address del "$$address/32" dev $interface 2>/dev/null
  forget "$$address"
done
let_in
still_open
$busybox rm -f /run/keepalived/*.pid
"$$@" &
program=$$!
while kill -0 "$$program" 2>/dev/null; do
  if [ -n "$$leave" ]; then
    hand_over
    kill -TERM "$$program"
    while kill -0 "$$program" 2>/dev/null; do tick; done
    let_in_later
    forget_what_left
    /usr/sbin/nft delete table ip package_platform_passing
    $busybox rm -f $folder/closing
    : > $check/over
    exit 0
  fi
  if [ -e $check/leaving ] && [ ! -e $check/left ]; then
    hand_over
    : > $check/left
    ticks=0
    while [ "$$ticks" -lt $gone_ticks ] && holds; do ticks=$$((ticks + 1)); tick; done
    let_in_later
  fi
  if [ ! -e $check/leaving ] && [ -e $check/left ]; then
    told=
    still_open
  fi
  forget_what_left
  tick
done
exit 1
"""

_SIDECAR = """\
trap 'exit 0' TERM
said=
say() {
  # By a new file each time, which is never seen half written; Traefik watches the folder.
  echo "{\\"http\\": {\\"middlewares\\": {\\"$middleware\\": {\\"headers\\": {\\"customResponseHeaders\\": $$1}}}}}" \\
    > $dynamic/next && $busybox mv -f $dynamic/next $dynamic/open-connections.yaml
}
tick=0 certificate=
while :; do
  if [ -e $folder/closing ]; then wanted=close; else wanted=keep; fi
  if [ "$$tick" -eq 0 ]; then
    # The files below are not watched: a renewed certificate is a link that leads elsewhere.
    found=$$($busybox readlink $dynamic/routes/..data)
    [ "$$found" = "$$certificate" ] || said=
    certificate=$$found
  fi
  tick=$$(((tick + 1) % $certificate_ticks))
  if [ "$$wanted" != "$$said" ]; then
    case $$wanted in
      close) say '{\"Connection\": \"close\"}' ;;
      keep) say '{\"X-Package-Platform-Nothing\": \"\"}' ;;
    esac
    said=$$wanted
  fi
  $busybox usleep $tick
done
"""


def agent_script(ingress: VipIngress) -> str:
    """Return the script that runs keepalived (its arguments) and hands its addresses over before it ends.

    It also does so when the proxy beside it is ending. A crash is none of its business: keepalived itself sees that.
    """
    addresses = [vip.address for vip in ingress.vips]
    return Template(_AGENT).substitute(
        busybox=BUSYBOX,
        tick=_TICK_MICROSECONDS,
        interface=ingress.interface,
        pattern="|".join(address.replace(".", r"\.") for address in addresses),
        set=", ".join(addresses),
        addresses=" ".join(addresses),
        folder=_FOLDER,
        check=CHECK_FOLDER,
        close_ticks=ingress.hand_over_seconds * _TICKS_PER_SECOND,
        gone_ticks=_GONE_TICKS,
        hold=_HOLD_MICROSECONDS,
    )


def sidecar(image: str, dynamic_volume: str, dynamic_folder: str, routes_mount: Manifest) -> Manifest:
    """Return the container beside the proxy that writes the middleware, and has a renewed certificate loaded.

    It is there before the proxy starts and until it has ended.

    Args:
        image: with busybox in it.
        dynamic_volume: name of the volume that Traefik watches; only this container writes there.
        dynamic_folder: where it is mounted.
        routes_mount: the folder with routes and certificate below it.
    """
    script = Template(_SIDECAR).substitute(
        middleware=ENTRY_POINT_MIDDLEWARE,
        dynamic=dynamic_folder,
        folder=_FOLDER,
        busybox=BUSYBOX,
        certificate_ticks=_CERTIFICATE_TICKS,
        tick=_TICK_MICROSECONDS,
    )
    written = ["test", "-e", f"{dynamic_folder}/open-connections.yaml"]
    return {
        "name": "open-connections",
        "image": image,
        "restartPolicy": "Always",
        "command": [BUSYBOX, "sh", "-c", script],
        # A router whose middleware is missing answers 404: the proxy starts after the first word.
        "startupProbe": {"exec": {"command": [BUSYBOX, *written]}, "periodSeconds": 1, "failureThreshold": 60},
        "resources": resources("10m", "8Mi", "32Mi"),
        "securityContext": unprivileged(),
        "volumeMounts": [
            {"name": dynamic_volume, "mountPath": dynamic_folder},
            routes_mount,
            {**mount(), "readOnly": True},
        ],
    }


def volume() -> Manifest:
    """Return the volume by which keepalived's pod tells the proxy's: a folder of the node, gone with its power."""
    return {"name": _VOLUME, "hostPath": {"path": _HOST_FOLDER, "type": "DirectoryOrCreate"}}


def mount() -> Manifest:
    """Return its place in a container."""
    return {"name": _VOLUME, "mountPath": _FOLDER}
