"""Provider 4.x applies on the server's side; the embedded provider 2.0.0 does not. So the API server itself is asked.

A manifest that server-side apply can't hold (a list with one key twice) or that the namespace's Pod Security Standard
would turn away is refused or warned of here, and what is applied twice must not change the second time.
"""

from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from devcluster import commands, kubectl
from manifests import Manifest
from manifests.namespace import namespace
from model.project import Autoscaling
from model.stack import Application
from tests.cluster.embedded import Cluster
from tests.conftest import committed_stack, rendered

STACK = committed_stack("test")
ENVIRONMENT = STACK.environment.model_copy(update={"namespace": "server-side-apply"})


def manifests(application: Application) -> list[Manifest]:
    """Return a project's manifests without pods: it is the objects that are under test."""
    assert application.image is not None
    quiet = application.project.model_copy(update={"replicas": 0})
    return rendered(application.model_copy(update={"project": quiet}), ENVIRONMENT).manifests()


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    apply(cluster, [namespace(ENVIRONMENT)])
    yield cluster
    cluster.kubectl("delete", "namespace", ENVIRONMENT.namespace, "--wait=false")


def apply(cluster: Cluster, objects: list[Manifest]) -> str:
    """Apply as provider 4.x does and return what the API server had to say."""
    finished = attempt(cluster, objects)
    assert finished.returncode == 0, finished.stderr
    return finished.stderr


def attempt(cluster: Cluster, objects: list[Manifest], *options: str) -> CompletedProcess[str]:
    command = kubectl.command(
        cluster.instance, "apply", "--server-side", "--field-manager=pulumi-kubernetes", *options, "-f", "-"
    )
    return commands.attempt(command, text=yaml.safe_dump_all(objects))


def generations(cluster: Cluster) -> dict[str, Any]:
    kinds = "configmaps,serviceaccounts,deployments,services,ingresses,poddisruptionbudgets"
    listed = cluster.get(kinds, "--namespace", ENVIRONMENT.namespace)
    return {
        f"{item['kind']}/{item['metadata']['name']}": (item["metadata"]["uid"], item["metadata"].get("generation"))
        for item in listed["items"]
    }


def test_the_api_server_takes_every_manifest_without_a_warning_and_twice_without_a_change(prepared: Cluster) -> None:
    objects = [manifest for application in STACK.deployed for manifest in manifests(application)]
    assert "Warning" not in apply(prepared, objects)
    before = generations(prepared)
    assert len(before) >= len(objects)
    assert "Warning" not in apply(prepared, objects)
    assert generations(prepared) == before


def test_a_release_changes_the_deployment_and_replaces_nothing(prepared: Cluster) -> None:
    application = STACK.deployed[0]
    apply(prepared, manifests(application))
    before = generations(prepared)
    assert application.image is not None
    newer = application.model_copy(update={"image": application.image.model_copy(update={"tag": "2022-08-03-18-54"})})
    apply(prepared, manifests(newer))
    after = generations(prepared)
    assert {name for name in before if before[name] != after[name]} == {f"Deployment/{application.name}"}
    assert {name: uid for name, (uid, _) in after.items()} == {name: uid for name, (uid, _) in before.items()}


def test_the_check_can_fail(prepared: Cluster) -> None:
    deployment = next(each for each in manifests(STACK.deployed[0]) if each["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["securityContext"]["allowPrivilegeEscalation"] = True
    assert "would violate PodSecurity" in apply(prepared, [deployment])
    container["ports"].append({**container["ports"][0], "name": "again", "hostIP": "10.0.0.1"})
    refused = attempt(prepared, [deployment])
    assert refused.returncode != 0
    assert "duplicate entries for key" in refused.stderr


def test_a_number_that_an_autoscaler_owns_can_be_set_by_a_release(prepared: Cluster) -> None:
    project = STACK.deployed[0].project.model_copy(update={"autoscaling": Autoscaling(max_replicas=8)})
    application = STACK.deployed[0].model_copy(update={"project": project})
    (deployment,) = [each for each in manifests(application) if each["kind"] == "Deployment"]
    deployment["metadata"]["name"] = name = "scaled"
    paused = {**deployment, "spec": {**deployment["spec"], "paused": True}}
    apply(prepared, [paused])
    scope = f"--namespace={ENVIRONMENT.namespace}"
    # By the subresource `scale`, as an autoscaler does it; without a pod, as nothing is rolled out while it is paused.
    prepared.kubectl("scale", scope, f"deployment/{name}", "--replicas=3")
    again = {**paused, "spec": {**paused["spec"], "replicas": 2}}
    stopped = attempt(prepared, [again])
    assert ".spec.replicas" in stopped.stderr
    assert "conflict" in stopped.stderr
    # Provider 4.x forces where the object says so.
    assert deployment["metadata"]["annotations"]["pulumi.com/patchForce"] == "true"
    assert attempt(prepared, [again], "--force-conflicts").returncode == 0
    assert prepared.get("deployment", name, scope)["spec"]["replicas"] == 2
