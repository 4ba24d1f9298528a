"""Projects with configuration as they would be applied: stored, and valid for the Kubernetes versions in use."""

from typing import Any

import kubernetes_validate
import pytest
from syrupy.assertion import SnapshotAssertion

from manifests.workload import Workload
from model.configuration import Content, digest_of
from model.release import ConfigRef
from model.stack import parse_stack
from tests.conftest import rendered
from tests.golden.test_golden import KUBERNETES_VERSIONS, YamlFiles

CONFIG: dict[str, dict[str, Any]] = {
    "Some.Api": {"mount": "/app/config", "files": ["appsettings.json", "certificates/ca.der"], "env": ".env"},
    "some_web": {
        "files": [
            {"file": "env.js", "path": "/usr/share/nginx/html/env.js"},
            {"file": "nginx/default.conf", "path": "/etc/nginx/conf.d/default.conf"},
        ]
    },
}
FILES = {
    "Some.Api": {"appsettings.json": b'{\n  "Region": "north"\n}\n', "certificates.ca.der": b"\x30\x82\x00\xff"},
    "some_web": {"env.js": b"window.env = {};\n", "nginx.default.conf": b"server { listen 8080; }\n"},
}
ENV = {"Some.Api": {"REGION": "north", "DOLLAR": "$(HOME)"}, "some_web": dict[str, str]()}


def workload(project: str) -> Workload:
    """Return the manifests of a sample project with configuration."""
    data = {
        "environment": {"namespace": "n", "domain": "example.com", "registry": {"host": "harbor.example.com"}},
        "tags": {project: "1"},
    }
    kind = "backend" if project == "Some.Api" else "frontend"
    stack = parse_stack(
        "Pulumi.test.yaml", "test", data, {f"projects/{project}.yaml": {"kind": kind, "config": CONFIG[project]}}
    )
    ref = ConfigRef(revision="a" * 40, digest=digest_of(FILES[project], ENV[project]))
    content = Content(ref=ref, files=FILES[project], env=ENV[project])
    (application,) = stack.applications
    return rendered(
        application.model_copy(update={"config": ref, "contents": {ref.digest: content}}), stack.environment
    )


@pytest.mark.parametrize("project", list(CONFIG))
def test_golden(project: str, snapshot: SnapshotAssertion) -> None:
    assert workload(project).manifests() == snapshot(name=f"configuration/{project}", extension_class=YamlFiles)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("project", list(CONFIG))
def test_valid_for_kubernetes(project: str, version: str) -> None:
    for manifest in workload(project).manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_bridge_of_a_front_end_has_none_of_the_files() -> None:
    (slot,) = workload("some_web").slots
    own, bridge = slot.deployment["spec"]["template"]["spec"]["containers"]
    assert [each["mountPath"] for each in own["volumeMounts"] if each["name"] == "config"] == [
        "/usr/share/nginx/html/env.js",
        "/etc/nginx/conf.d/default.conf",
    ]
    assert all(each["readOnly"] for each in own["volumeMounts"] if each["name"] == "config")
    assert "config" not in {each["name"] for each in bridge["volumeMounts"]}
