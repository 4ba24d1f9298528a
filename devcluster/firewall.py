"""The host's firewall: machines of one instance may talk to each other over its bridge.

Where bridged packets pass the host's rules (the module br_netfilter, loaded by container engines) and those
drop what they do not know (as container engines make them do), nodes would not reach each other. A host
without such rules is left alone.
"""

import shutil
from pathlib import Path

from devcluster import commands
from devcluster.instance import Instance

BRIDGED_PACKETS = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def open_bridge(instance: Instance) -> None:
    """Let packets pass between the ports of the instance's bridge, when the host has rules in their way."""
    rules = _forward_rules()
    passes = not BRIDGED_PACKETS.exists() or BRIDGED_PACKETS.read_text().strip() == "0"
    if passes or rules in ([], ["-P FORWARD ACCEPT"]) or _own_rules(instance, rules):
        return
    bridge = ["-i", instance.bridge, "-o", instance.bridge]
    commands.run(["iptables", "-w", "-I", "FORWARD", *bridge, "-j", "ACCEPT"])


def close_bridge(instance: Instance) -> None:
    """Take back what `open_bridge` did."""
    for rule in _own_rules(instance, _forward_rules()):
        commands.run(["iptables", "-w", "-D", *rule.split()[1:]])


def _own_rules(instance: Instance, rules: list[str]) -> list[str]:
    return [rule for rule in rules if f"-i {instance.bridge} -o {instance.bridge} " in rule]


def _forward_rules() -> list[str]:
    if shutil.which("iptables", path=SYSTEM_PATH) is None:
        return []
    return commands.attempt(["iptables", "-w", "-S", "FORWARD"]).stdout.splitlines()
