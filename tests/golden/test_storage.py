"""Projects with volumes as they would be applied, on VMs and on ACK: stored, and valid for the Kubernetes versions."""

from typing import Any

import kubernetes_validate
import pytest
from syrupy.assertion import SnapshotAssertion

from manifests import Manifest
from manifests.storage import shared_class
from manifests.workload import Workload
from model.environment import Environment
from model.stack import parse_stack
from tests.conftest import rendered
from tests.golden.test_golden import KUBERNETES_VERSIONS, YamlFiles

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "vm": {"nfs": {"server": "10.0.0.9", "share": "/export/packages"}},
    "ack": {"kind": "ack"},
}
PROJECTS: dict[str, dict[str, Any]] = {
    "disk": {"singleton": True, "replicas": 1, "storage": [{"name": "data", "size": "20Gi", "mount": "/data"}]},
    "shared": {
        "migrate": ["migrate"],
        "storage": [{"name": "files", "size": "100Gi", "mount": "/files", "class": "shared", "reclaim": "delete"}],
    },
    "per-pod": {"storage": [{"name": "cache", "size": "20Gi", "mount": "/cache", "perPod": True}]},
}
CASES = [(environment, project) for environment in ENVIRONMENTS for project in PROJECTS]


def made(environment: str, project: str) -> tuple[Environment, Workload]:
    """Return an environment, and the manifests of a sample project with volumes in it."""
    data = {
        "environment": {
            "namespace": "n",
            "domain": "example.com",
            "registry": {"host": "harbor.example.com"},
            "storage": ENVIRONMENTS[environment],
        },
        "tags": {project: "1"},
    }
    files: dict[str, object] = {f"projects/{project}.yaml": {"kind": "backend", **PROJECTS[project]}}
    stack = parse_stack("Pulumi.test.yaml", "test", data, files)
    (application,) = stack.applications
    return stack.environment, rendered(application, stack.environment)


def storage_class(environment: str) -> list[Manifest]:
    found = shared_class(made(environment, "shared")[0])
    return [found] if found else []


@pytest.mark.parametrize(("environment", "project"), CASES)
def test_golden(environment: str, project: str, snapshot: SnapshotAssertion) -> None:
    manifests = made(environment, project)[1].manifests()
    name = f"storage/{environment}-{project}"
    assert manifests == snapshot(name=name, extension_class=YamlFiles)


def test_golden_class(snapshot: SnapshotAssertion) -> None:
    assert storage_class("ack") == []
    assert storage_class("vm") == snapshot(name="storage/vm-class", extension_class=YamlFiles)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize(("environment", "project"), CASES)
def test_valid_for_kubernetes(environment: str, project: str, version: str) -> None:
    for manifest in (*storage_class(environment), *made(environment, project)[1].manifests()):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(("environment", "project"), CASES)
def test_pods_stay_restricted(environment: str, project: str) -> None:
    for slot in made(environment, project)[1].slots:
        pod = slot.deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in pod["containers"])
        kinds = {key for each in pod["volumes"] for key in each if key != "name"}
        assert kinds <= {"emptyDir", "persistentVolumeClaim"}
