"""The embedded cluster as tests use it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from devcluster import environment, kubectl
from devcluster.instance import Instance

COMMAND_SECONDS = 600.0


def devcluster(instance: Instance, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return _run(
        [sys.executable, "-m", "devcluster", "--id", str(instance.id), *arguments], instance, os.environ, check=check
    )


@dataclass(frozen=True)
class Cluster:
    """A running embedded cluster.

    Args:
        instance: its names, addresses and paths.
    """

    instance: Instance

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What `python -m devcluster facts --json` tells."""
        return environment.facts(self.instance)

    @cached_property
    def env(self) -> dict[str, str]:
        """A whole environment in which kubectl and pulumi work on it."""
        path = os.pathsep.join([*environment.path_entries(self.instance), os.environ["PATH"]])
        return {**os.environ, **environment.variables(self.instance), "PATH": path}

    def devcluster(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `python -m devcluster` on it."""
        return devcluster(self.instance, *arguments, check=check)

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl and return what it prints."""
        return _run(kubectl.command(self.instance, *arguments), self.instance, self.env, check=check).stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what `kubectl get` finds, as JSON values."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def pulumi(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run pulumi in the repository's root."""
        program = str(self.instance.binaries / "pulumi")
        return _run([program, *arguments, "--non-interactive"], self.instance, self.env, check=check)


def _run(
    command: list[str], instance: Instance, variables: Mapping[str, str], *, check: bool
) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(
        command,
        cwd=instance.root,
        env=variables,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if check:
        assert finished.returncode == 0, f"{' '.join(command)}\n{finished.stdout[-3000:]}\n{finished.stderr[-3000:]}"
    return finished
