"""A copy of the program with made-up projects, and the commands that are timed on it."""

import json
import os
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from bench import checkpoint, processes
from bench.figures import Profile, Sample, phases_of
from bench.generated import CLUSTER_NAMESPACE, STACK, GeneratedProject, stack_config
from devcluster import deploy
from devcluster.instance import REGISTRY_NAME, Instance

COMMAND_SECONDS = 1800.0
ROLLOUT_SECONDS = 300
_SHOWN_CHARACTERS = 3000
_STREAM = {"PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true"}
_PATCH_FORCE = {"PULUMI_K8S_ENABLE_PATCH_FORCE": "true"}
"""`kubectl set image` takes the field over; with server-side apply (4.x) Pulumi is to take it back, not to refuse."""


class CommandError(Exception):
    """A command that is to be timed failed; the message has its last lines."""


@dataclass(frozen=True)
class Workspace:
    """The folder with the copied program, and where it deploys to.

    Args:
        folder: It is made by `create`.
        variables: The whole environment of its commands.
        ingress: `ip:port` of the ingress.
    """

    folder: Path
    variables: Mapping[str, str]
    ingress: str

    @classmethod
    def create(cls, instance: Instance, provider: Path | None) -> "Workspace":
        """Copy the program below the instance's state, with a Pulumi backend of its own; nothing is deployed yet.

        Args:
            instance: The cluster; it is up.
            provider: Another `pulumi-resource-kubernetes` to run with.
        """
        folder = instance.state / "bench"
        variables = copy_program(instance, folder, provider)
        return cls(folder, variables, instance.ingress_addresses[0])

    def init(self) -> None:
        """Make the stack, empty; what an earlier run left in the cluster is removed first."""
        self.timed(["kubectl", "delete", "namespace", CLUSTER_NAMESPACE, "--ignore-not-found", "--wait"])
        self.declare({}, {})
        self.timed(["pulumi", "stack", "init", STACK, "--non-interactive"])

    def remove(self) -> None:
        """Take what was deployed out of the cluster."""
        self.output(["kubectl", "delete", "namespace", CLUSTER_NAMESPACE, "--ignore-not-found", "--timeout=600s"])

    def declare(self, replicas: Mapping[GeneratedProject, int], tags: Mapping[GeneratedProject, str]) -> None:
        """Write project files and the stack file.

        Args:
            replicas: Project → pods.
            tags: Project → image tag.
        """
        for project, count in replicas.items():
            (self.folder / "projects" / f"{project.gitea_name}.yaml").write_text(project.file(count))
        path = self.folder / f"Pulumi.{STACK}.yaml"
        content = cast("dict[str, Any]", yaml.safe_load(path.read_text())) if path.exists() else {}
        by_name = {project.gitea_name: tag for project, tag in tags.items()}
        # What `pulumi stack init` added, the salt of the stack's secrets, is kept.
        content["config"] = stack_config(by_name, REGISTRY_NAME, self.ingress)
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def preview(self) -> Sample:
        """Time `pulumi preview` of a stack in which nothing changed."""
        return self.timed(["pulumi", "preview", "--stack", STACK, "--expect-no-changes", "--non-interactive"])

    def up(self, target: GeneratedProject | None = None) -> Sample:
        """Time `pulumi up` of what is declared.

        Args:
            target: The one project whose component is named by `--target`; all when it is None.
        """
        return self.timed(["pulumi", *_UP, "--suppress-outputs", *_only(target)])

    def startup(self) -> dict[str, Sample]:
        """Time what every `pulumi up` begins with, each alone: part, for people → what it took."""
        python = str(self.folder / ".venv" / "bin" / "python")
        return {
            "`pulumi version`": self.timed(["pulumi", "version"]),
            "`python -m pip list -v` (how the language host finds plugins)": self.timed([python, *_PIP_LIST]),
            "Python without imports": self.timed([python, "-c", "pass"]),
            "Python with all imports of the program": self.timed([python, "-c", "import components, settings"]),
            "the same without `components` (no pulumi-kubernetes)": self.timed([python, "-c", "import settings"]),
        }

    def profile(self, projects: int, target: GeneratedProject | None = None) -> Profile:
        """Run the same as `up` and look into it.

        Args:
            projects: Projects of the stack, for the report.
            target: As for `up`.
        """
        command = ["pulumi", *_UP, "--json", *_only(target)]
        watched = processes.watch(command, self.folder, {**self.variables, **_STREAM}, COMMAND_SECONDS)
        if watched.code != 0:
            raise CommandError(f"`pulumi up` failed:\n{watched.errors[-_SHOWN_CHARACTERS:]}")
        events = [(at, kind) for at, line in watched.lines for kind in event_kinds(line)]
        program_start = min(part.start_seconds for part in watched.parts if part.name == processes.PROGRAM)
        phases = phases_of(events, program_start, watched.seconds)
        name = "`pulumi up --target`" if target else "`pulumi up`"
        return Profile(name, projects, watched.seconds, phases, watched.parts)

    def set_image(self, project: GeneratedProject, image: str) -> Sample:
        """Time `kubectl set image` and `kubectl rollout status`, together.

        Args:
            project: The project.
            image: `repository:tag@digest` below the registry, as Pulumi would run it.
        """
        scope = f"--namespace={CLUSTER_NAMESPACE}"
        target = f"deployment/{project.deployment}"
        change = ["kubectl", "set", "image", scope, target, f"{project.container}={REGISTRY_NAME}/{image}"]
        wait = ["kubectl", "rollout", "status", scope, target, f"--timeout={ROLLOUT_SECONDS}s"]
        return self.timed(change) + self.timed(wait)

    def live_image(self, project: GeneratedProject) -> str:
        """Return the image that the project's Deployment names."""
        path = "jsonpath={.spec.template.spec.containers[0].image}"
        scope = f"--namespace={CLUSTER_NAMESPACE}"
        command = ["kubectl", "get", scope, f"deployment/{project.deployment}", f"--output={path}"]
        return self.output(command).strip()

    def adopt(self, added: Sequence[GeneratedProject]) -> None:
        """Make further projects part of the stack without `pulumi up`: their objects by kubectl, their state copied."""
        state: dict[str, Any] = json.loads(self.output(["pulumi", "stack", "export", "--stack", STACK]))
        config = stack_config({}, REGISTRY_NAME, self.ingress)
        resources = [each for project in added for each in checkpoint.copied_resources(state, project, config)]
        objects = self.folder / "objects.json"
        objects.write_text(json.dumps(checkpoint.manifests(resources)))
        self.output(["kubectl", "apply", "--server-side", f"--filename={objects}"])
        copy = self.folder / "state.json"
        copy.write_text(json.dumps(checkpoint.with_copies(state, resources)))
        self.output(["pulumi", "stack", "import", "--stack", STACK, "--file", str(copy), "--non-interactive"])

    def state(self) -> tuple[int, int]:
        """Return how many resources the stack has, and how many bytes its state as a backend keeps it, not indented."""
        state = json.loads(self.output(["pulumi", "stack", "export", "--stack", STACK]))
        kept = json.dumps(state, separators=(",", ":"), ensure_ascii=False)
        return len(state["deployment"].get("resources", [])), len(kept.encode())

    def output(self, command: Sequence[str]) -> str:
        """Run a command that is not timed, and return what it prints.

        Raises:
            CommandError: It failed.
        """
        code, out, errors = processes.run(command, self.folder, self.variables, COMMAND_SECONDS)
        if code != 0:
            said = (out + errors)[-_SHOWN_CHARACTERS:]
            raise CommandError(f"`{' '.join(command[:3])}` failed (exit code {code}):\n{said}")
        return out

    def timed(self, command: Sequence[str]) -> Sample:
        """Time a command; commands are run one at a time, so the children's CPU time is its own."""
        started, cpu = time.monotonic(), children_cpu_seconds()
        self.output(command)
        return Sample(time.monotonic() - started, children_cpu_seconds() - cpu)


def copy_program(instance: Instance, folder: Path, provider: Path | None) -> dict[str, str]:
    """Copy the program without projects and stacks, with a Pulumi backend of its own; an earlier copy is removed.

    Args:
        instance: The cluster; it is up.
        folder: Of the copy.
        provider: Another `pulumi-resource-kubernetes` to run with.

    Returns:
        The whole environment of commands on it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "projects").mkdir(parents=True)
    (folder / ".state").mkdir()
    deploy.copy_program(instance.root, folder)
    variables = {**deploy.variables(instance), **_PATCH_FORCE, "PULUMI_BACKEND_URL": f"file://{folder / '.state'}"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # without it, as it is in most places, Python compiles a file once
    if provider:
        (folder / ".bin").mkdir()
        (folder / ".bin" / "pulumi-resource-kubernetes").symlink_to(provider)
        variables["PATH"] = os.pathsep.join([str(folder / ".bin"), variables["PATH"]])
    return variables


def children_cpu_seconds() -> float:
    """Return the CPU time of all ended children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_PIP_LIST = ("-m", "pip", "list", "-v", "--format", "json")
_UP = ("up", "--stack", STACK, "--yes", "--skip-preview", "--non-interactive")


def _only(target: GeneratedProject | None) -> list[str]:
    return ["--target", target.urn, "--target-dependents"] if target else []


def event_kinds(line: str) -> list[str]:
    """Return the kind of engine event that a line of `pulumi up --json` tells; none when it is something else. Pure."""
    try:
        event: object = json.loads(line)
    except ValueError:
        return []
    keys = cast("dict[str, object]", event) if isinstance(event, dict) else {}
    return [key for key in keys if key.endswith("Event")]
