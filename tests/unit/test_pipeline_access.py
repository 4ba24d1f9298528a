"""What a job may do in the cluster: all that its own project's objects need, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from kubernetes_validate import validate  # pyright: ignore[reportUnknownVariableType]
from typer.testing import CliRunner

from model.names import GITEA_PROJECT, SLOTS, kubernetes_name, slot_service_name
from pipeline import access
from pipeline.__main__ import app

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "__snapshots__" / "test_golden"
RENDERED = sorted(
    f"{path.parent.name}/{path.name}" for path in GOLDEN.glob("*/*.yaml") if f"{GITEA_PROJECT}:" in path.read_text()
)
PLURALS = {"Ingress": "ingresses"}


def allowed(name: str, verb: str, manifest: dict[str, Any]) -> bool:
    """Answer as the API server would."""
    group = manifest["apiVersion"].rpartition("/")[0]
    resource = PLURALS.get(manifest["kind"], f"{manifest['kind'].lower()}s")
    return any(
        group in rule["apiGroups"]
        and resource in rule["resources"]
        and verb in rule["verbs"]
        and (not rule.get("resourceNames") or manifest["metadata"]["name"] in rule["resourceNames"])
        for rule in access.rules(name)
    )


@pytest.mark.parametrize("file", RENDERED)
def test_every_object_of_a_project_is_its_jobs_and_no_other_jobs(file: str) -> None:
    documents: list[Any] = [each for each in yaml.safe_load_all((GOLDEN / file).read_text()) if each]
    manifests: list[dict[str, Any]] = []
    for document in documents:
        manifests += cast("list[dict[str, Any]]", document if isinstance(document, list) else [document])
    # A golden file may begin with what is the stack's own.
    manifests = [each for each in manifests if GITEA_PROJECT in each["metadata"].get("annotations", {})]
    assert manifests
    for manifest in manifests:
        name = kubernetes_name(manifest["metadata"]["annotations"][GITEA_PROJECT])
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == name
        for verb in ("get", "create", "patch", "delete"):
            assert allowed(name, verb, manifest), (verb, manifest["kind"], manifest["metadata"]["name"])
        if manifest["kind"] not in {"ConfigMap", "Job", "PersistentVolumeClaim", "Secret"}:
            assert not allowed("another", "patch", manifest)
            assert not allowed("another", "delete", manifest)


def test_what_is_printed_is_valid_and_in_the_stacks_namespace() -> None:
    result = CliRunner().invoke(app, ["access", "--stack", "uat", "--cwd", str(ROOT)])
    assert result.exit_code == 0
    printed = list(yaml.safe_load_all(result.output))
    assert {each["metadata"].get("namespace", "package-uat") for each in printed} == {"package-uat"}
    accounts = [each["metadata"]["name"] for each in printed if each["kind"] == "ServiceAccount"]
    assert len(accounts) == len(list((ROOT / "projects").glob("*.yaml")))
    assert "release-sjzy-package-api" in accounts
    for each in printed:
        validate(each, "1.37", strict=True)


def test_no_job_may_give_itself_more() -> None:
    for rule in access.rules("packet"):
        assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not {"roles", "rolebindings", "serviceaccounts/token", "pods/exec"} & set(rule["resources"])
        if "secrets" in rule["resources"]:
            # The provider watches one that it deletes: 2.0.0 fails without that, and 4.x never ends.
            assert {"list", "watch", "delete"} <= set(rule["verbs"])
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
        if "pods" in rule["resources"]:
            assert rule["verbs"] == ["get", "list", "watch"]


def test_a_job_may_ask_the_pods_of_its_own_slots_and_of_no_others() -> None:
    """Smoke checks get ``services/proxy`` of ``<service>:<port>``, and nothing else is asked by that way."""

    def proxied(name: str, verb: str) -> set[str]:
        rules = [rule for rule in access.rules(name) if "services/proxy" in rule["resources"] and verb in rule["verbs"]]
        assert all(rule["apiGroups"] == [""] and rule["resourceNames"] for rule in rules)
        return {each for rule in rules for each in rule["resourceNames"]}

    for slot in SLOTS:
        assert f"{slot_service_name('packet', slot)}:http" in proxied("packet", "get")
    assert "packet-blue:http" in proxied("packet", "get")
    assert not proxied("packet", "get") & proxied("packet-label", "get")
    for verb in ("create", "update", "patch", "delete"):
        assert not proxied("packet", verb)


def test_a_stack_without_namespace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.uat.yaml").write_text("config: {}\n")
    result = CliRunner().invoke(app, ["access", "--stack", "uat", "--cwd", str(tmp_path)])
    assert "environment.namespace: is required" in str(result.exception)
