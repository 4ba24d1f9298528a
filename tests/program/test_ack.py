"""The stack ``prod`` with a cluster of its own, under mocks: its whole graph of resources, and who enters it how."""

import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pulumi
import pytest

from model.fields import merged
from model.release import INSTRUCTION_VARIABLE, RECORD_ANNOTATION, Instruction, parse_record
from settings import PROGRAM, read_stack_file
from tests.program.conftest import Recording, Run

COMMITTED: dict[str, Any] = read_stack_file(PROGRAM, "prod")
CLUSTER: dict[str, Any] = COMMITTED["cluster"]
PROVIDER = "pulumi:providers:kubernetes"
ENDPOINT = "https://10.20.0.9:6443"
IMPORTS = """
import json, runpy, sys
import pulumi
from pulumi.runtime.config import set_all_config
from tests.program.conftest import Recording
from registry import Registry
from settings import PROGRAM, read_stack_file
Registry.digests = lambda self, images: {{image: "sha256:" + "0" * 64 for image in images}}
names = dict(project="package-platform", stack="{stack}", organization="organization")
pulumi.runtime.set_mocks(Recording(), preview=False, **names)
set_all_config({{f"package-platform:{{k}}": json.dumps(v) for k, v in read_stack_file(PROGRAM, "{stack}").items()}})
pulumi.runtime.test(lambda: runpy.run_path("__main__.py"))()
print(json.dumps(sorted(name for name in sys.modules if name.startswith("pulumi_alicloud"))[:1]))
"""


def cloud(recording: Recording) -> list[Any]:
    return [each for each in recording.declared if each.type.startswith("alicloud:")]


def provider(recording: Recording) -> dict[str, Any]:
    (found,) = (each for each in recording.declared if each.type == PROVIDER)
    return found.inputs


def secret(value: Any) -> Any:
    """Return what is inside of a secret; a plain value fails."""
    assert isinstance(value, dict)
    assert value["4dabf18193072939515e22adb298388d"] == "1b47061264138c4ac30d75fd1eb44270"
    return cast("Any", value)["value"]


@pytest.mark.parametrize("stack", ["test", "uat", "prod"])
def test_only_prod_imports_the_clouds_sdk(stack: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTS.format(stack=stack)],
        cwd=PROGRAM,
        capture_output=True,
        text=True,
        check=True,
    )
    assert bool(json.loads(done.stdout.splitlines()[-1])) == (stack == "prod")


def test_the_whole_graph(run: Run) -> None:
    recording = run("prod")
    kinds = Counter(each.type.removeprefix("alicloud:").partition("/")[0] + ":" + each.type.rsplit(":", 1)[1]
                    for each in cloud(recording))  # fmt: skip
    assert kinds == {
        "vpc:Network": 1, "vpc:Switch": 6, "vpc:NatGateway": 1, "vpc:SnatEntry": 6,
        "ecs:EipAddress": 1, "ecs:EipAssociation": 1, "ecs:SecurityGroup": 1, "ecs:SecurityGroupRule": 3,
        "log:Project": 1, "kms:Key": 1, "alb:LoadBalancer": 1,
        "nas:FileSystem": 1, "nas:AccessGroup": 1, "nas:AccessRule": 6, "nas:MountTarget": 2,
        "cs:ManagedKubernetes": 1, "cs:KubernetesAddon": 4, "cs:AutoscalingConfig": 1, "cs:NodePool": 1,
    }  # fmt: skip
    assert [each.name for each in recording.of("AckCluster")] == ["cluster"]
    by_name = {each.name: each.inputs for each in cloud(recording)}
    plane = by_name["cluster-control-plane"]
    assert plane["vswitchIds"] == [f"cluster-nodes-{letter}-id" for letter in "hij"]
    assert plane["podVswitchIds"] == [f"cluster-pods-{letter}-id" for letter in "hij"]
    assert plane["slbInternetEnabled"] is False
    assert plane["encryptionProviderKey"] == "cluster-key-id"
    assert plane["auditLogConfig"] == {"enabled": True, "slsProjectName": "package-prod-k8s-logs"}
    pool = by_name["cluster-pool-apps"]
    assert pool["clusterId"] == "cluster-control-plane-id"
    assert pool["scalingConfig"] == {"enable": True, "minSize": 3, "maxSize": 12, "type": "cpu"}
    assert by_name["cluster-snat-pods-h"]["snatIp"] == "203.0.113.10"


def test_the_way_in_is_secret_and_identified_by_name(run: Run) -> None:
    recording = run("prod")
    inputs = provider(recording)
    assert inputs["clusterIdentifier"] == "package-prod"
    kubeconfig = json.loads(secret(inputs["kubeconfig"]))
    assert kubeconfig["clusters"][0]["cluster"]["server"] == ENDPOINT
    outputs = recording.outputs["cluster"]
    assert outputs["id"] == "cluster-control-plane-id"
    assert outputs["endpoint"] == ENDPOINT
    assert outputs["vSwitchIds"] == [f"cluster-nodes-{letter}-id" for letter in "hij"]
    assert outputs["address"] == "alb.example.com"
    assert datetime.fromisoformat(outputs["expires"]) > datetime.now(UTC)
    assert recording.secrets == {"kubeconfig"}


def test_the_ingress_takes_the_alb_beside_the_cluster(run: Run) -> None:
    recording = run("prod")
    (config,) = (each.inputs for each in recording.declared if each.inputs.get("kind") == "AlbConfig")
    assert config["spec"]["config"]["id"] == "cluster-load-balancer-id"
    assert "zoneMappings" not in config["spec"]["config"]
    assert [each["port"] for each in config["spec"]["listeners"]] == [80, 443]


def outputs_of(recording: Recording, **cluster: Any) -> dict[str, Any]:
    """Return the stack's outputs as the next run would be told them."""
    return {**recording.outputs, "cluster": {**recording.outputs["cluster"], **cluster}}


def test_a_credential_is_used_while_it_has_half_of_its_life(run: Run) -> None:
    first = run("prod")
    second = run("prod", earlier_outputs=outputs_of(first))
    assert provider(second) == provider(first)
    assert (first.credentials, second.credentials) == (1, 0)
    for old in ({"expires": "2026-01-01T00:00:00+00:00"}, {"expires": ""}, {"id": "another"}):
        assert run("prod", earlier_outputs=outputs_of(first, **old)).credentials == 1


def test_a_plugin_leaves_no_credential_in_the_state(run: Run) -> None:
    recording = run("prod", cluster={**CLUSTER, "credential": "plugin"})
    kubeconfig = json.loads(secret(provider(recording)["kubeconfig"]))
    assert [list(user["user"]) for user in kubeconfig["users"]] == [["exec"]]
    assert "--cluster-id=cluster-control-plane-id" in kubeconfig["users"][0]["user"]["exec"]["args"]
    assert recording.outputs["cluster"]["expires"] == ""
    again = run("prod", cluster={**CLUSTER, "credential": "plugin"}, earlier_outputs=recording.outputs)
    assert provider(again) == provider(recording)


def test_a_cluster_that_is_there_is_read_and_not_made(run: Run) -> None:
    existing = "c" + "1" * 32
    given = {"kind": "ack", "name": "old", "region": "cn-hangzhou", "existing": existing}
    environment = merged(COMMITTED["environment"], {"ingress": {"ha": {"vSwitches": ["vsw-1a", "vsw-1b"]}}})
    recording = run("prod", cluster=given, environment=environment)
    assert [(each.type.rsplit(":", 1)[1], each.name) for each in cloud(recording)] == [
        ("ManagedKubernetes", "cluster-control-plane")
    ]
    assert recording.outputs["cluster"]["id"] == existing
    assert recording.outputs["cluster"]["address"] is None
    assert recording.outputs["cluster"]["loadBalancerId"] is None
    assert len(recording.of("Deployment")) == 8


def instruct(monkeypatch: pytest.MonkeyPatch, first: Recording) -> None:
    (service,) = (each for each in first.of("Service") if each.name == "packet")
    record = parse_record(service.inputs["metadata"]["annotations"][RECORD_ANNOTATION])
    assert record is not None
    instruction = Instruction(project="packet", records={"packet": record})
    monkeypatch.setenv(INSTRUCTION_VARIABLE, instruction.model_dump_json())


def test_a_run_for_one_project_declares_no_cloud_and_enters_as_the_last_one_did(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("prod")
    instruct(monkeypatch, first)
    second = run("prod", earlier_outputs=first.outputs, tags={"packet": "2022-08-03-18-54"})
    assert cloud(second) + second.of("AckCluster") == []
    assert [each for each in second.declared if each.type == "pulumi:providers:alicloud"] == []
    assert provider(second) == provider(first)
    assert second.credentials == 0
    assert second.outputs["cluster"] == first.outputs["cluster"]
    assert "kubeconfig" in second.secrets


def test_a_run_for_one_project_refuses_a_credential_that_is_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("prod")
    instruct(monkeypatch, first)
    with pytest.raises(pulumi.RunError, match="run `pulumi up` of the whole stack first"):
        run("prod")
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    advice = r"--target urn:pulumi:prod::package-platform::pulumi:providers:kubernetes::ack`"
    with pytest.raises(pulumi.RunError, match=advice):
        run("prod", earlier_outputs=outputs_of(first, expires=soon))
    plugin = {**CLUSTER, "credential": "plugin"}
    assert provider(run("prod", cluster=plugin, earlier_outputs=outputs_of(first, expires="")))


def test_a_bad_cluster_stops_the_program_before_anything_is_declared(run: Run) -> None:
    bad = {**CLUSTER, "publicApi": True, "nodePools": {"apps": {**CLUSTER["nodePools"]["apps"], "minimum": 1}}}
    with pytest.raises(pulumi.RunError) as caught:
        run("prod", cluster=bad)
    field = "Pulumi.prod.yaml:package-platform:cluster"
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()[1:]] == [
        f"{field}.nodePools.apps.minimum",
        f"{field}.publicApi",
    ]
