"""Projects that are made up for measuring: as many as asked for, mixed like the real ones. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from model.environment import Environment
from model.names import kubernetes_name, slot_name
from model.release import Release
from model.stack import NAMESPACE, Application, parse_stack

STACK = "bench"
CLUSTER_NAMESPACE = "package-bench"
REPOSITORIES = {"backend": "back/sjzy.package.api", "frontend": "front/packet"}
"""Kind of project → a sample image of that kind, which all generated projects of the kind run."""
_MIX = 8
_BACK_ENDS_IN_MIX = 3


@dataclass(frozen=True)
class GeneratedProject:
    """One made-up Gitea project.

    Args:
        number: 0 and up. Of eight in a row three are back ends and five are front ends.
    """

    number: int

    @property
    def mark(self) -> str:
        """The part of all its names, tags and paths by which it differs from others."""
        return f"p{self.number:03}"

    @property
    def kind(self) -> Literal["backend", "frontend"]:
        """Its kind."""
        return "backend" if self.number % _MIX < _BACK_ENDS_IN_MIX else "frontend"

    @property
    def gitea_name(self) -> str:
        """Its name in Gitea."""
        return f"Bench.{self.mark.upper()}.Api" if self.kind == "backend" else f"bench_{self.mark}"

    @property
    def deployment(self) -> str:
        """Name of its Deployment."""
        return slot_name(kubernetes_name(self.gitea_name), "main")

    @property
    def container(self) -> str:
        """Name of the container in its pods."""
        return kubernetes_name(self.gitea_name)

    @property
    def repository(self) -> str:
        """Its image below the registry."""
        return REPOSITORIES[self.kind]

    @property
    def first_tag(self) -> str:
        """The tag that it is created with: one of its own, so that the registry is asked once for each project."""
        return f"bench-{self.mark}"

    @property
    def urn(self) -> str:
        """Its component in the stack, as `--target` wants it."""
        component = "PackageApp" if self.kind == "backend" else "FrontendApp"
        return f"urn:pulumi:{STACK}::{NAMESPACE}::{NAMESPACE}:index:{component}::{self.gitea_name}"

    def file(self, replicas: int = 0) -> str:
        """Return the text of its project file.

        Args:
            replicas: Pods; none by default, so that they cost nothing.
        """
        return yaml.safe_dump(self.content(replicas), sort_keys=False)

    def content(self, replicas: int = 0) -> dict[str, Any]:
        """Return what is in its project file; see `file`."""
        return {
            "kind": self.kind,
            "description": "made up for measuring",
            "image": self.repository,
            "replicas": replicas,
            # A front end's own strategy would put hashes of what differs between projects into names: no state of one
            # could be copied for another.
            "strategy": "rolling",
            "routes": [{"host": "bench", "path": f"/{self.mark}"}],
        }

    def declared(self, digest: str, config: Mapping[str, Any]) -> tuple[Application, Environment]:
        """Return it with its first release as the program would read it, and where it runs.

        Args:
            digest: Of its image.
            config: Of the stack, as its stack file has it; its tags don't matter.
        """
        data = {key.removeprefix(f"{NAMESPACE}:"): value for key, value in config.items()}
        release = Release(tag=self.first_tag, digest=digest)
        return declared(STACK, data, self.gitea_name, self.content(), release)


def projects(count: int) -> list[GeneratedProject]:
    """Return so many projects."""
    return [GeneratedProject(number) for number in range(count)]


def stack_config(tags: dict[str, str], registry_host: str, ingress_address: str) -> dict[str, Any]:
    """Return the config of the stack that runs them, as its stack file has it.

    Args:
        tags: Gitea project → image tag.
        registry_host: As image references name it.
        ingress_address: `ip:port` of the ingress.
    """
    return {
        f"{NAMESPACE}:environment": {
            "namespace": CLUSTER_NAMESPACE,
            "domain": "bench.package.test",
            "registry": {"host": registry_host},
            "ingress": {"address": ingress_address},
        },
        f"{NAMESPACE}:tags": tags,
    }


def declared(
    stack: str, data: Mapping[str, Any], name: str, content: Mapping[str, Any], release: Release
) -> tuple[Application, Environment]:
    """Return a project with a release as the program would read it, and where it runs.

    Args:
        stack: The stack.
        data: Our keys of its stack file; their tags don't matter.
        name: The Gitea project.
        content: Of its project file.
        release: What it runs.
    """
    files = {f"projects/{name}.yaml": content}
    found = parse_stack(f"Pulumi.{stack}.yaml", stack, {**data, "tags": {name: release.tag}}, files)
    (application,) = found.applications
    return application.running(release), found.environment
