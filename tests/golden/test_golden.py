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
from manifests.frontend_app import frontend_app
from manifests.namespace import namespace
from manifests.package_app import package_app
from manifests.workload import Workload
from model.release import Release, rolled
from model.stack import Application, Stack
from settings import PROGRAM
from tests.conftest import STACKS, committed_stack

KUBERNETES_VERSIONS = ("1.34", "1.35", "1.36", "1.37")
STACK_OF = {name: committed_stack(name) for name in STACKS}
CASES = [(name, each.gitea_name) for name, stack in STACK_OF.items() for each in stack.deployed]


class YamlFiles(SingleFileSnapshotExtension):
    """One readable file per snapshot: ``__snapshots__/test_golden/test/SJZY.Package.Api.yaml``."""

    _write_mode = WriteMode.TEXT
    file_extension = "yaml"

    @classmethod
    def get_location(cls, *, test_location: Any, index: Any) -> str:
        stack, _, project = str(index).partition("/")
        return str(Path(test_location.filepath).parent / "__snapshots__" / "test_golden" / stack / f"{project}.yaml")

    def serialize(self, data: Any, **_: Any) -> str:
        return yaml.safe_dump_all(data, sort_keys=False, allow_unicode=True, width=120)


def rendered(application: Application, stack: Stack) -> Workload:
    assert application.image is not None
    record = rolled(None, Release(tag=application.image.tag, digest=application.image.digest))
    render = package_app if application.project.kind == "backend" else frontend_app
    return render(application, stack.environment, record)


def one(stack: str, project: str) -> tuple[Application, Workload]:
    (application,) = (each for each in STACK_OF[stack].deployed if each.gitea_name == project)
    return application, rendered(application, STACK_OF[stack])


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
        manifests += rendered(application, STACK_OF[stack]).manifests()
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_check_can_fail() -> None:
    _, workload = one("test", "packet")
    workload.deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(workload.deployment, "1.37", strict=True)


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_everything_is_named_by_the_project_and_in_its_namespace(stack: str, project: str) -> None:
    application, workload = one(stack, project)
    for manifest in workload.manifests():
        assert manifest["metadata"]["name"] == application.name
        assert manifest["metadata"]["namespace"] == f"package-{stack}"
        assert manifest["metadata"]["annotations"]["package-platform/gitea-project"] == project


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_no_request_can_be_lost_by_the_form_of_the_deployment(stack: str, project: str) -> None:
    application, workload = one(stack, project)
    spec = workload.deployment["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep > 0
    assert pod["terminationGracePeriodSeconds"] > sleep
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    if application.project.singleton:
        assert spec["strategy"] == {"type": "Recreate"}
        assert spec["replicas"] == 1
    else:
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}
        assert spec["replicas"] >= 2


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_selectors_hold_nothing_that_a_release_changes(stack: str, project: str) -> None:
    application, workload = one(stack, project)
    own = {"app.kubernetes.io/name": application.name, "slot": "main"}
    assert workload.deployment["spec"]["selector"]["matchLabels"] == own
    assert workload.service["spec"]["selector"] == own
    assert workload.disruption_budget["spec"]["selector"]["matchLabels"] == own
    labels: Manifest = workload.deployment["spec"]["template"]["metadata"]["labels"]
    assert own.items() <= labels.items()


@pytest.mark.parametrize(("stack", "project"), CASES)
def test_pods_are_restricted(stack: str, project: str) -> None:
    _, workload = one(stack, project)
    pod = workload.deployment["spec"]["template"]["spec"]
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
    template = workload.deployment["spec"]["template"]
    image = template["spec"]["containers"][0]["image"]
    assert image.startswith("harbor.package.test/back/sjzy.package.api:2022-08-02-16-59@sha256:")
    assert template["metadata"]["labels"]["app.kubernetes.io/version"] == "2022-08-02-16-59"
