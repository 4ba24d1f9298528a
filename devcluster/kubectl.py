"""Running kubectl against an instance."""

import json
import subprocess
from typing import Any

from devcluster import commands
from devcluster.instance import Instance

REQUEST_SECONDS = 5


def command(instance: Instance, *arguments: str) -> list[str]:
    """Return the command line of kubectl against the instance. Pure."""
    return [str(instance.binaries / "kubectl"), f"--kubeconfig={instance.kubeconfig}", *arguments]


def run(instance: Instance, *arguments: str, text: str = "", timeout: float = commands.TIMEOUT_SECONDS) -> str:
    """Run kubectl and return what it prints.

    Args:
        instance: the cluster.
        arguments: of kubectl.
        text: given to its standard input.
        timeout: in seconds.

    Raises:
        SetupError: it failed.
    """
    return commands.run(command(instance, *arguments), text=text, timeout=timeout)


def attempt(instance: Instance, *arguments: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run kubectl where a failure is an answer too."""
    return commands.attempt(command(instance, *arguments), timeout=timeout)


def items(instance: Instance, *arguments: str) -> list[dict[str, Any]] | None:
    """Return the objects that `kubectl get <arguments>` lists, or nothing when the API does not answer."""
    limit = f"--request-timeout={REQUEST_SECONDS}s"
    answer = attempt(instance, "get", *arguments, "--output=json", limit)
    return json.loads(answer.stdout)["items"] if answer.returncode == 0 else None
