"""A job's own account on a real cluster: it releases its project, and is denied everything of another."""

import json
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.names import JOB_ACCOUNT_PREFIX
from pipeline.access import objects
from tests.cluster.embedded import Cluster
from tests.cluster.program import Program
from tests.cluster.releasing import Release

OWN, OTHER = "packet", "packet-label"
FORBIDDEN = "is forbidden"
"""kubectl writes the word before it with and without a capital."""
VERSIONS = {"Deployment": "apps/v1", "HorizontalPodAutoscaler": "autoscaling/v2", "PodDisruptionBudget": "policy/v1"}
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}

pytestmark = pytest.mark.soak


@pytest.fixture
def account(program: Program, cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig with a token of the job ``packet``, as a Jenkins credential would hold it; then its rights go."""
    rights = tmp_path / "access.yaml"
    rights.write_text(yaml.safe_dump_all(objects(program.namespace, [OWN])))
    cluster.kubectl("apply", f"--filename={rights}")
    try:
        token = cluster.kubectl(
            "create", "token", f"{JOB_ACCOUNT_PREFIX}{OWN}", f"--namespace={program.namespace}"
        ).strip()
        admin = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
        admin["users"] = [{"name": admin["users"][0]["name"], "user": {"token": token}}]
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(admin))
        yield file
    finally:
        # The policy binds the whole cluster, and other tests go on in it.
        cluster.kubectl("delete", f"--filename={rights}", "--ignore-not-found")


def tried(cluster: Cluster, account: Path, tmp_path: Path, *words: str, body: object = None) -> str:
    """Return what kubectl says as that account: "" when it was done, its refusal otherwise."""
    command = [str(cluster.instance.binaries / "kubectl"), f"--kubeconfig={account}", *words]
    if body is not None:
        file = tmp_path / "body.json"
        file.write_text(json.dumps(body))
        command.append(f"--filename={file}")
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if finished.returncode == 0 else finished.stderr


def page_tag(program: Program, project: str) -> str:
    """Return the tag that a front end's page names."""
    answer = program.answer(project)
    assert answer.status_code == 200, answer.text[:300]
    return answer.text.split('<meta name="tag" content="')[1].split('"')[0]


def test_a_job_releases_its_own_project_and_is_denied_the_others(
    program: Program, cluster: Cluster, account: Path, tmp_path: Path
) -> None:
    namespace = f"--namespace={program.namespace}"
    release = Release(program)
    release.variables["KUBECONFIG"] = str(account)
    before, after = program.tags["packet"], program.other_tag("packet")
    assert release("deploy", "packet", after).said["live"] == after
    assert release("rollback", "packet").said["live"] == before
    runs = page_tag(program, "packet_label")
    refused = release("deploy", "packet_label", program.other_tag("packet_label"), code=None)
    assert refused.code
    assert FORBIDDEN in json.dumps(refused.said) + refused.progress
    assert page_tag(program, "packet_label") == runs

    def patched(kind: str, name: str) -> str:
        return tried(cluster, account, tmp_path, namespace, "annotate", "--overwrite", kind, name, "tried=yes")

    for kind in ("service", "ingress"):
        assert not patched(kind, OWN)
        assert FORBIDDEN in patched(kind, OTHER)
    assert FORBIDDEN in tried(cluster, account, tmp_path, namespace, "delete", "service", OTHER)
    # What role-based access control can't refuse: an object that is new, or whose name it can't know.
    for name, label, right in (
        ("free", OTHER, False),
        ("packet-config-1", OWN, True),
        (f"{OTHER}-config-1", OTHER, False),
    ):
        metadata = {"name": name, "labels": {"app.kubernetes.io/name": label}}
        said = tried(cluster, account, tmp_path, namespace, "create", body={**CONFIG_MAP, "metadata": metadata})
        assert (not said) == right, said
        assert right or "own project's" in said
    unlabelled = {**CONFIG_MAP, "metadata": {"name": "unlabelled"}}
    assert "own project's" in tried(cluster, account, tmp_path, namespace, "create", body=unlabelled)
    stolen = tried(
        cluster, account, tmp_path, namespace, "label", "--overwrite", "service", OWN, f"app.kubernetes.io/name={OTHER}"
    )
    assert "own project's" in stolen
    for words in (
        ("get", "roles"),
        ("get", "pods", "--all-namespaces"),
        ("create", "token", f"{JOB_ACCOUNT_PREFIX}{OWN}"),
    ):
        scope = () if "--all-namespaces" in words else (namespace,)
        assert FORBIDDEN in tried(cluster, account, tmp_path, *scope, *words)
    assert not tried(cluster, account, tmp_path, namespace, "delete", "configmap", "packet-config-1")


def test_a_job_replaces_a_secret_of_its_project_and_becomes_no_other_account(
    program: Program, cluster: Cluster, account: Path, tmp_path: Path
) -> None:
    program.append(OWN, "strategy: rolling\nsecrets: {env: [PASSWORD]}\n")
    program.config_set_secret("secretKey", secrets.token_hex(32))
    program.config_set_secret(f'secrets["{OWN}"].PASSWORD', "first")
    program.up()
    (before,) = (each for each in program.get("secrets") if each["metadata"]["name"].startswith(f"{OWN}-secrets-"))
    program.config_set_secret(f'secrets["{OWN}"].PASSWORD', "second")
    release = Release(program)
    release.variables["KUBECONFIG"] = str(account)
    assert release("deploy", OWN, program.other_tag(OWN)).said["live"] == program.other_tag(OWN)
    names = {each["metadata"]["name"] for each in program.get("secrets")}
    assert before["metadata"]["name"] not in names, "the old one goes with the release that no longer needs it"

    def created(kind: str, metadata: Mapping[str, Any] | None = None, **fields: Any) -> str:
        described = {"name": "packet-tried", "labels": {"app.kubernetes.io/name": OWN}, **(metadata or {})}
        groups = {
            "Deployment": "apps/v1",
            "HorizontalPodAutoscaler": "autoscaling/v2",
            "PodDisruptionBudget": "policy/v1",
        }
        version = groups.get(kind, "v1")
        body = {"apiVersion": version, "kind": kind, "metadata": described, **fields}
        return tried(cluster, account, tmp_path, f"--namespace={program.namespace}", "create", body=body)

    token = {"annotations": {"kubernetes.io/service-account.name": f"{JOB_ACCOUNT_PREFIX}{OWN}"}}
    assert "of type Opaque only" in created("Secret", token, type="kubernetes.io/service-account-token")
    (deployment,) = (each for each in program.get("deployments") if each["metadata"]["name"] == OWN)
    pods = deployment["spec"]["template"]
    theirs = {"name": "theirs", "persistentVolumeClaim": {"claimName": "sjzy-package-api-data"}}
    mounting = {**pods, "spec": {**pods["spec"], "volumes": [*pods["spec"]["volumes"], theirs]}}
    selected = {"matchLabels": pods["metadata"]["labels"]}
    spec = {"replicas": 0, "selector": selected, "template": mounting}
    assert "have the volumes of their own project" in created("Deployment", spec=spec)
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "name": OTHER}
    said = created("HorizontalPodAutoscaler", spec={"scaleTargetRef": scaled, "maxReplicas": 1})
    assert "scales its own project's pods" in said
    budget = {"maxUnavailable": 0, "selector": {"matchLabels": {"app.kubernetes.io/name": OTHER}}}
    assert "is of its own project's pods" in created("PodDisruptionBudget", spec=budget)
    for changed in (
        {**pods, "spec": {**pods["spec"], "serviceAccountName": OTHER}},
        {**pods, "metadata": {"labels": {**pods["metadata"]["labels"], "app.kubernetes.io/name": OTHER}}},
    ):
        spec = {"replicas": 0, "selector": {"matchLabels": changed["metadata"]["labels"]}, "template": changed}
        assert "run as its own project's account, and carry its name" in created("Deployment", spec=spec)
    ports = [{"port": 80}]
    for spec in (
        {"selector": {"app.kubernetes.io/name": OTHER}, "ports": ports},
        {"selector": {"app.kubernetes.io/name": OWN}, "ports": ports, "externalIPs": ["203.0.113.1"]},
        {"selector": {"app.kubernetes.io/name": OWN}, "ports": ports, "type": "NodePort"},
        {"ports": ports},
    ):
        assert "selects its own project's pods" in created("Service", spec=spec)


def test_a_job_asks_its_own_slots_through_the_api_server_and_no_others(
    program: Program, cluster: Cluster, account: Path, tmp_path: Path
) -> None:
    """As the smoke checks do. What is allowed and not there is not found; what is not allowed is forbidden first."""

    def asked(service: str, *words: str) -> str:
        path = f"/api/v1/namespaces/{program.namespace}/services/{service}/proxy/"
        return tried(cluster, account, tmp_path, *(words or ("get",)), f"--raw={path}")

    for name in (OWN, *(f"{OWN}-{slot}" for slot in ("blue", "green"))):
        assert FORBIDDEN not in asked(f"{name}:http"), name
        # By another port it would reach what no check is about.
        assert FORBIDDEN in asked(name), name
        assert FORBIDDEN in asked(f"{name}:http", "create", "--filename=/dev/null"), name
    for name in (OTHER, *(f"{OTHER}-{slot}" for slot in ("blue", "green"))):
        assert FORBIDDEN in asked(f"{name}:http"), name
