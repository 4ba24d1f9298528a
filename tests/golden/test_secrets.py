"""Secrets as they would be applied: stored, and valid for the Kubernetes versions in use. The values are made up."""

from typing import Any

import kubernetes_validate
import pytest
from pydantic import SecretBytes
from syrupy.assertion import SnapshotAssertion

from manifests import Manifest
from manifests.secrets import pull_secret
from model.configuration import Content, digest_of
from model.release import ConfigRef
from model.stack import parse_stack
from tests.conftest import rendered
from tests.golden.test_golden import KUBERNETES_VERSIONS, YamlFiles

PROJECT: dict[str, Any] = {
    "kind": "backend",
    "config": {
        "mount": "/app/config",
        "files": ["appsettings.json"],
        "secretFiles": ["appsettings.secrets.json", {"file": "id", "path": "/app/id"}],
        "env": ".env",
        "secretEnv": "secrets.env",
    },
    "secrets": {"env": ["Db__Main"], "files": [{"name": "signing.pem", "path": "/app/signing.pem"}]},
}


def manifests() -> list[Manifest]:
    """Return all manifests of a project with every kind of secret, and the Secret that its images are pulled with."""
    registry = {"host": "harbor.example.com", "pullSecret": "registry"}
    data = {
        "environment": {"namespace": "n", "domain": "example.com", "registry": registry},
        "tags": {"Some.Api": "1"},
        "secretKey": "k" * 32,
        "secrets": {"Some.Api": {"Db__Main": "a", "signing.pem": "b"}},
        "registryCredentials": {"username": "robot", "password": "c"},
    }
    stack = parse_stack("Pulumi.test.yaml", "test", data, {"projects/Some.Api.yaml": PROJECT})
    files, env = {"appsettings.json": b"{}\n"}, {"REGION": "north"}
    ref = ConfigRef(revision="a" * 40, digest=digest_of(files, env), secrets="0123456789abcdef")
    secret_files = {"appsettings.secrets.json": SecretBytes(b"{}\n"), "id": SecretBytes(b"\x00\xff")}
    content = Content(ref=ref, files=files, env=env, secret_files=secret_files, secret_env={"TOKEN": SecretBytes(b"d")})
    (application,) = stack.applications
    application = application.model_copy(update={"config": ref, "contents": {ref.key: content}})
    credentials = stack.cluster_secrets.registry
    assert credentials
    own = pull_secret(stack.environment, "n", credentials)
    return [own, *rendered(application, stack.environment).manifests()]


def test_golden(snapshot: SnapshotAssertion) -> None:
    assert manifests() == snapshot(name="secrets/Some.Api", extension_class=YamlFiles)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_valid_for_kubernetes(version: str) -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)
