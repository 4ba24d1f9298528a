"""Who takes part in the comparison of releases: the same pods for all, and each one's own commands. Pure.

The pods are those that our own manifests describe. What only Pulumi or the command `release` reads is taken out of what
the others apply, so that no one mistakes their objects for a project of the stack.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.generated import declared
from manifests import Manifest
from manifests.labels import SKIP_AWAIT
from manifests.package_app import package_app, package_app_plan
from model.environment import Environment
from model.names import kubernetes_name, slot_name
from model.release import RECORD_ANNOTATION, REVISION_LABEL, Release
from model.stack import NAMESPACE, Application

STACK = "contest"
CLUSTER_NAMESPACE = "package-contest"
HOST = "contest"
DOMAIN = "contest.package.test"
REPOSITORY = "back/sjzy.package.api"
REPLICAS = 2
WARM_SECONDS = 3600
"""How long the old pods of a blue-green release stay: as long for Argo Rollouts as for a project of ours."""
TIMEOUT = "300s"
"""How long each command may wait for the pods."""

Group = Literal["release", "kubectl", "helm", "argo"]
GROUPS: tuple[Group, ...] = ("release", "kubectl", "helm", "argo")
Strategy = Literal["rolling", "blueGreen", "canary"]
Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Contestant:
    """One way of releasing, and the application on which it is shown.

    Args:
        group: Whose commands are used.
        strategy: How traffic goes from the old pods to the new ones.
        title: For people.
        gitea_name: Its application.
        deploy: Its commands for a release, for people.
        rollback: Its commands for going back, for people.
    """

    group: Group
    strategy: Strategy
    title: str
    gitea_name: str
    deploy: str
    rollback: str

    @property
    def name(self) -> str:
        """The application's name in Kubernetes."""
        return kubernetes_name(self.gitea_name)

    @property
    def deployment(self) -> str:
        """Name of its Deployment, or of its Rollout."""
        return slot_name(self.name, "main")

    @property
    def preview_service(self) -> str:
        """Name of the Service in front of the new pods of an Argo Rollouts blue-green release."""
        return f"{self.name}-preview"

    def file(self) -> dict[str, Any]:
        """Return the content of its project file."""
        ours = {"strategy": self.strategy} if self.group == "release" else {}
        return {
            "kind": "backend",
            "description": "made up for measuring",
            "image": REPOSITORY,
            "replicas": REPLICAS,
            "routes": [{"host": HOST, "path": f"/{self.name}"}],
            **ours,
        }


_ARGO = ("`kubectl argo rollouts set image` + `status`", "`kubectl argo rollouts undo` + `status`")
OURS_ROLLING = Contestant(
    "release", "rolling", "release, rolling", "Contest.Rolling", "`release deploy`", "`release rollback`"
)
OURS_BLUE_GREEN = Contestant(
    "release", "blueGreen", "release, blue-green", "Contest.Blue", "`release deploy`", "`release rollback`"
)
KUBECTL_ALONE = Contestant(
    "kubectl",
    "rolling",
    "kubectl",
    "Contest.Kubectl",
    "`kubectl set image` + `rollout status`",
    "`kubectl rollout undo` + `rollout status`",
)
HELM = Contestant("helm", "rolling", "Helm 4", "Contest.Helm", "`helm upgrade --wait`", "`helm rollback --wait`")
ARGO_BLUE_GREEN = Contestant("argo", "blueGreen", "Argo Rollouts, blue-green", "Contest.Argo.Blue", *_ARGO)
ARGO_CANARY = Contestant("argo", "canary", "Argo Rollouts, canary", "Contest.Argo.Canary", *_ARGO)
CONTESTANTS = (OURS_ROLLING, OURS_BLUE_GREEN, KUBECTL_ALONE, HELM, ARGO_BLUE_GREEN, ARGO_CANARY)


@dataclass(frozen=True)
class Programs:
    """Where the contestants' programs are.

    Args:
        release: The command `release`.
        program: Folder of the Pulumi program that it works on.
        helm: Helm 4.
        argo: Argo Rollouts' kubectl plugin.
        charts: Folder with a chart for each contestant that is a chart.
    """

    release: Path
    program: Path
    helm: Path
    argo: Path
    charts: Path


def deploy_commands(contestant: Contestant, programs: Programs, tag: str, image: str) -> Commands:
    """Return what a person or a pipeline runs to release a tag.

    Args:
        contestant: Who.
        programs: Where its programs are.
        tag: What to release.
        image: The same as a whole reference, with its digest.
    """
    scope, name = f"--namespace={CLUSTER_NAMESPACE}", contestant.name
    if contestant.group == "release":
        return (_release(programs, "deploy", contestant.gitea_name, tag),)
    if contestant.group == "helm":
        chart = str(programs.charts / name)
        wait = ("--wait", f"--timeout={TIMEOUT}", f"--set-string=image={image}")
        return ((str(programs.helm), "upgrade", name, chart, scope, *wait),)
    change = f"{name}={image}"
    if contestant.group == "argo":
        return (
            (str(programs.argo), "set", "image", contestant.deployment, change, scope),
            _status(contestant, programs),
        )
    return (("kubectl", "set", "image", scope, _target(contestant), change), _rollout_status(contestant))


def rollback_commands(contestant: Contestant, programs: Programs) -> Commands:
    """Return what a person or a pipeline runs to go back to the release before; see `deploy_commands`."""
    scope = f"--namespace={CLUSTER_NAMESPACE}"
    if contestant.group == "release":
        return (_release(programs, "rollback", contestant.gitea_name),)
    if contestant.group == "helm":
        return ((str(programs.helm), "rollback", contestant.name, scope, "--wait", f"--timeout={TIMEOUT}"),)
    if contestant.group == "argo":
        return ((str(programs.argo), "undo", contestant.deployment, scope), _status(contestant, programs))
    return (("kubectl", "rollout", "undo", scope, _target(contestant)), _rollout_status(contestant))


def _release(programs: Programs, *words: str) -> tuple[str, ...]:
    return (str(programs.release), *words, f"--stack={STACK}", f"--cwd={programs.program}")


def _status(contestant: Contestant, programs: Programs) -> tuple[str, ...]:
    scope = f"--namespace={CLUSTER_NAMESPACE}"
    return (str(programs.argo), "status", contestant.deployment, scope, f"--timeout={TIMEOUT}")


def _rollout_status(contestant: Contestant) -> tuple[str, ...]:
    scope = f"--namespace={CLUSTER_NAMESPACE}"
    return ("kubectl", "rollout", "status", scope, _target(contestant), f"--timeout={TIMEOUT}")


def _target(contestant: Contestant) -> str:
    return f"deployment/{contestant.deployment}"


# What they run.


def stack_data(environment: Mapping[str, Any], tag: str) -> dict[str, Any]:
    """Return our keys of the stack file in which our own contestants are.

    Args:
        environment: As a stack file has it, with the cluster's ingress.
        tag: What they run at first.
    """
    ours = [each.gitea_name for each in CONTESTANTS if each.group == "release"]
    own = {**environment, "namespace": CLUSTER_NAMESPACE, "domain": DOMAIN}
    return {"environment": own, "tags": dict.fromkeys(ours, tag)}


def stack_file(environment: Mapping[str, Any], tag: str) -> str:
    """Return the text of that stack file."""
    config = {f"{NAMESPACE}:{key}": value for key, value in stack_data(environment, tag).items()}
    return yaml.safe_dump({"config": config}, sort_keys=False)


def application(
    contestant: Contestant, environment: Mapping[str, Any], release: Release
) -> tuple[Application, Environment]:
    """Return a contestant's application as the program would read it.

    Args:
        contestant: Whose.
        environment: As for `stack_data`.
        release: What it runs.
    """
    return declared(STACK, stack_data(environment, release.tag), contestant.gitea_name, contestant.file(), release)


@dataclass(frozen=True)
class Objects:
    """What a contestant other than ours applies.

    Args:
        account: The pods' ServiceAccount.
        deployment: The pods.
        service: In front of them.
        ingress: The contestant's own route.
    """

    account: Manifest
    deployment: Manifest
    service: Manifest
    ingress: Manifest

    def all(self) -> list[Manifest]:
        """Return them in the order in which they must be there."""
        return [self.account, self.deployment, self.service, self.ingress]


def plain_objects(contestant: Contestant, environment: Mapping[str, Any], release: Release) -> Objects:
    """Return our manifests of a rolling project as somebody without Pulumi would write them.

    Args:
        contestant: Who applies them.
        environment: As for `stack_data`.
        release: What they run.
    """
    found, where = application(contestant, environment, release)
    rendered = package_app(found, where, package_app_plan(found, where))
    (slot,) = rendered.slots
    if rendered.ingress is None:
        raise ValueError(f"{contestant.gitea_name} has no route")
    parts = (rendered.service_account, slot.deployment, rendered.service, rendered.ingress)
    return Objects(*(_without_ours(each, contestant.group) for each in parts))


def _without_ours(manifest: Manifest, manager: str) -> Manifest:
    plain = copy.deepcopy(manifest)
    metadata = plain["metadata"]
    for name in (RECORD_ANNOTATION, *SKIP_AWAIT):
        metadata["annotations"].pop(name, None)
    described = [metadata]
    if "template" in plain.get("spec", {}):
        described.append(plain["spec"]["template"]["metadata"])
        plain["spec"].pop("revisionHistoryLimit", None)  # theirs go back by the ReplicaSets that Kubernetes keeps
    for each in described:
        each["labels"]["app.kubernetes.io/managed-by"] = manager
        each["labels"].pop(REVISION_LABEL, None)
    return plain


def chart(objects: Objects, name: str) -> dict[str, str]:
    """Return a small Helm chart, as path → text, with the image as its one value.

    Args:
        objects: What it has.
        name: Of the chart.
    """
    deployment = copy.deepcopy(objects.deployment)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    image, container["image"] = container["image"], "{{ .Values.image }}"
    templates = [objects.account, deployment, objects.service, objects.ingress]
    files = {
        "Chart.yaml": {"apiVersion": "v2", "name": name, "version": "1.0.0", "type": "application"},
        "values.yaml": {"image": image},
        **{f"templates/{each['kind'].lower()}.yaml": each for each in templates},
    }
    return {path: yaml.safe_dump(content, sort_keys=False) for path, content in files.items()}


def rollout_objects(contestant: Contestant, objects: Objects) -> list[Manifest]:
    """Return the objects for Argo Rollouts: a Rollout with the same pods in the Deployment's place.

    It gets its best: nobody has to promote, the old pods of blue-green stay warm as ours do, and a canary goes back
    without its steps.

    Args:
        contestant: Whose; its strategy decides.
        objects: With the Deployment.
    """
    given = objects.deployment["spec"]
    same = (
        "replicas",
        "progressDeadlineSeconds",
        "minReadySeconds",
        "selector",
        "template",
    )
    rollout: Manifest = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": objects.deployment["metadata"],
        "spec": {
            **{key: given[key] for key in same},
            "rollbackWindow": {"revisions": 3},
            "strategy": _argo_strategy(contestant, given["strategy"]["rollingUpdate"]),
        },
    }
    preview: list[Manifest] = []
    if contestant.strategy == "blueGreen":
        metadata = {**objects.service["metadata"], "name": contestant.preview_service}
        preview = [{**objects.service, "metadata": metadata}]
    return [objects.account, objects.service, *preview, rollout, objects.ingress]


def _argo_strategy(contestant: Contestant, pace: Mapping[str, Any]) -> Manifest:
    if contestant.strategy == "blueGreen":
        return {
            "blueGreen": {
                "activeService": contestant.name,
                "previewService": contestant.preview_service,
                "autoPromotionEnabled": True,
                "scaleDownDelaySeconds": WARM_SECONDS,
                "scaleDownDelayRevisionLimit": 1,
            }
        }
    return {"canary": {**pace, "steps": [{"setWeight": 50}]}}


def image_loader(objects: Objects, images: Mapping[str, str]) -> Manifest:
    """Return a DaemonSet that has every node fetch all images, so that nobody is measured fetching one.

    Args:
        objects: Of any contestant, for a pod that the namespace admits.
        images: Tag → reference.
    """
    pod = copy.deepcopy(objects.deployment["spec"]["template"]["spec"])
    (template,) = pod["containers"]
    keep = ("securityContext", "imagePullPolicy")
    pod["containers"] = [
        {
            **{key: template[key] for key in keep},
            "name": f"tag-{number}",
            "image": image,
            # They share an address.
            "env": [{"name": "ADDRESS", "value": f":{9000 + number}"}],
        }
        for number, image in enumerate(images.values())
    ]
    for name in ("volumes", "topologySpreadConstraints", "terminationGracePeriodSeconds"):
        pod.pop(name, None)
    pod["serviceAccountName"] = "default"
    labels = {"app.kubernetes.io/name": "contest-images"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "contest-images", "namespace": CLUSTER_NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
