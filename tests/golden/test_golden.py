"""Every project of every stack as it would be applied: stored, and valid for the Kubernetes versions in use.

To accept a change: ``make golden``, then read the diff.
"""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from manifests import Manifest
from manifests.namespace import namespace
from manifests.workload import Workload
from model.stack import Application
from settings import PROGRAM
from tests.conftest import STACKS, committed_stack, rendered

KUBERNETES_VERSIONS = ("1.34", "1.35", "1.36", "1.37")
STACK_OF = {name: committed_stack(name) for name in STACKS}
CASES = [(name, each.gitea_name) for name, stack in STACK_OF.items() for each in stack.deployed]


class Readable(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)  # pyright: ignore[reportUnknownMemberType]


Readable.add_representer(str, _text)


class YamlFiles(SingleFileSnapshotExtension):
    """One readable file per snapshot: ``__snapshots__/test_golden/test/SJZY.Package.Api.yaml``."""

    _write_mode = WriteMode.TEXT
    file_extension = "yaml"

    @classmethod
    def get_location(cls, *, test_location: Any, index: Any) -> str:
        stack, _, project = str(index).partition("/")
        return str(Path(test_location.filepath).parent / "__snapshots__" / "test_golden" / stack / f"{project}.yaml")

    def serialize(self, data: Any, **_: Any) -> str:
        return yaml.dump_all(data, Dumper=Readable, sort_keys=False, allow_unicode=True, width=120)


def one(stack: str, project: str) -> tuple[Application, Workload]:
    (application,) = (each for each in STACK_OF[stack].deployed if each.gitea_name == project)
    return application, rendered(application, STACK_OF[stack].environment)


def deployment(workload: Workload) -> Manifest:
    (slot,) = workload.slots
    return slot.deployment


def test_every_project_of_every_stack_is_covered() -> None:
    assert len(CASES) == 8 * len(STACKS)
    assert {project for _, project in CASES} == {path.stem for path in (PROGRAM / "projects").glob("*.yaml")}


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_golden(stack: str, project: str, snapshot: SnapshotAssertion) -> None:
    _, workload = one(stack, project)
    assert workload.manifests() == snapshot(name=f"{stack}/{project}", extension_class=YamlFiles)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("stack", STACKS)
def test_valid_for_kubernetes(stack: str, version: str) -> None:
    manifests = [namespace(STACK_OF[stack].environment)]
    for application in STACK_OF[stack].deployed:
        manifests += rendered(application, STACK_OF[stack].environment).manifests()
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_check_can_fail() -> None:
    _, workload = one("test", "packet")
    (slot,) = workload.slots
    slot.deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(slot.deployment, "1.37", strict=True)


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_everything_is_named_by_the_project_and_in_its_namespace(stack: str, project: str) -> None:
    application, workload = one(stack, project)
    for manifest in workload.manifests():
        name = manifest["metadata"]["name"]
        assert name == application.name or name.startswith(f"{application.name}-")
        assert manifest["metadata"]["namespace"] == f"package-{stack}"
        assert manifest["metadata"]["annotations"]["package-platform/gitea-project"] == project


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_no_request_can_be_lost_by_the_form_of_the_deployment(stack: str, project: str) -> None:
    application, workload = one(stack, project)
    spec = deployment(workload)["spec"]
    pod = spec["template"]["spec"]
    for container in pod["containers"]:
        sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleep > 0
        assert pod["terminationGracePeriodSeconds"] > sleep
        assert "readinessProbe" in container
    assert {"startupProbe", "livenessProbe"} <= pod["containers"][0].keys()
    if application.project.singleton:
        assert spec["strategy"] == {"type": "Recreate"}
        assert spec["replicas"] == 1
    else:
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}
        assert spec["replicas"] >= 2


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_selectors_hold_nothing_that_a_release_changes(stack: str, project: str) -> None:
    application, workload = one(stack, project)
    slot = "main" if application.project.strategy == "rolling" else "blue"
    own = {"app.kubernetes.io/name": application.name, "slot": slot}
    assert deployment(workload)["spec"]["selector"]["matchLabels"] == own
    assert workload.slots[0].disruption_budget["spec"]["selector"]["matchLabels"] == own
    labels: Manifest = deployment(workload)["spec"]["template"]["metadata"]["labels"]
    assert own.items() <= labels.items()
    followed: Manifest = workload.service["spec"]["selector"]
    assert followed.items() <= labels.items()
    assert followed.keys() == {"app.kubernetes.io/name", "slot" if slot == "main" else "release"}


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_pods_are_restricted(stack: str, project: str) -> None:
    _, workload = one(stack, project)
    pod = deployment(workload)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_images_run_by_digest_and_show_their_tag() -> None:
    _, workload = one("test", "SJZY.Package.Api")
    template = deployment(workload)["spec"]["template"]
    image = template["spec"]["containers"][0]["image"]
    assert image.startswith("harbor.package.test/back/sjzy.package.api:2022-08-02-16-59@sha256:")
    assert template["metadata"]["labels"]["app.kubernetes.io/version"] == "2022-08-02-16-59"
