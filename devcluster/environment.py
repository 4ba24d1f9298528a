"""What other programs need to know of an instance: environment variables, and facts as JSON."""

import shlex
from typing import Any

from devcluster import pki, toolchain
from devcluster.instance import CONTEXT, KUBERNETES_VERSION, REGISTRY_NAME, Instance

PASSPHRASE = "package-platform-dev"  # noqa: S105 - protects nothing but the embedded setup


def variables(instance: Instance) -> dict[str, str]:
    """Return the variables with which the stock commands (kubectl, pulumi) work on the instance."""
    # The built provider is found on PATH; a `pulumi` of the user's own downloads the one that it wants.
    own = {} if toolchain.uses_system_pulumi() else {"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true"}
    return {
        **own,
        "KUBECONFIG": str(instance.kubeconfig),
        "PULUMI_HOME": str(instance.root / ".dev" / "pulumi"),
        "PULUMI_BACKEND_URL": f"file://{instance.state / 'pulumi-state'}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(instance.state / "passphrase"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PACKAGE_PLATFORM_REGISTRY": instance.registry_endpoint,
        "DEVCLUSTER_ID": str(instance.id),
    }


def path_entries(instance: Instance) -> list[str]:
    """Return what the commands need first on PATH. Pure."""
    return [str(instance.binaries), str(instance.root / ".venv" / "bin"), str(instance.root / "bin")]


def script(instance: Instance) -> str:
    """Return a shell script to be sourced: `. .dev/env`.

    Sourcing it twice adds nothing twice to PATH.
    """
    entries = ":".join(path_entries(instance))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables(instance).items()]
    path = f'case ":$PATH:" in *:{shlex.quote(entries)}:*) ;; *) export PATH={shlex.quote(entries)}:"$PATH" ;; esac'
    return "\n".join([path, *lines]) + "\n"


def write(instance: Instance) -> None:
    """Write the script `env` of the instance and what it refers to; instance 0 also gets `.dev/env`."""
    (instance.state / "pulumi-state").mkdir(parents=True, exist_ok=True)
    (instance.root / ".dev" / "pulumi").mkdir(parents=True, exist_ok=True)
    pki.write_private(instance.state / "passphrase", PASSPHRASE.encode())
    content = script(instance).encode()
    pki.write_private(instance.state / "env", content)
    if instance.id == 0:
        pki.write_private(instance.root / ".dev" / "env", content)


def facts(instance: Instance) -> dict[str, Any]:
    """Return everything that other programs need to know of the instance, as JSON values. Pure."""
    return {
        "id": instance.id,
        "kubernetes": KUBERNETES_VERSION,
        "context": CONTEXT,
        "kubeconfig": str(instance.kubeconfig),
        "api": instance.api_server,
        "nodes": {node.name: str(node.address) for node in instance.nodes},
        "hub": str(instance.hub.address),
        "host": str(instance.host_address),
        "network": str(instance.network),
        "virtualAddresses": [str(instance.network[part]) for part in range(100, 120)],
        "bridge": instance.bridge,
        "podNetwork": str(instance.pod_network),
        "serviceNetwork": str(instance.service_network),
        "dns": str(instance.dns_address),
        "registry": {"name": REGISTRY_NAME, "endpoint": instance.registry_endpoint},
        "ingress": {"class": "nginx", "addresses": list(instance.ingress_addresses)},
        "root": str(instance.root),
        "state": str(instance.state),
        "binaries": str(instance.binaries),
        "environment": str(instance.state / "env"),
        "logs": str(instance.logs),
    }
