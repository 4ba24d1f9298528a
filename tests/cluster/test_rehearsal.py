"""The stack ``prod`` from nothing to serving, released, changed and defended: ``make rehearse-prod``.

The cloud is the stand-in, and the managed cluster is the embedded one; all else is what production would run. The
embedded cluster has no ALB: AlbConfig is a kind without a controller, a stand-in opens the gates of pods that wait for
the load balancer, and projects are asked through their Services.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manifests.ack_cluster import ack_cluster
from model.ack import AckSettings
from release.cluster import Cluster as Client
from settings import read_stack_file
from tests.cluster.alb import AlbStandIn, writing
from tests.cluster.cloud import change, changed, counts, variables
from tests.cluster.embedded import Cluster
from tests.cluster.program import Program, purge
from tests.cluster.releasing import Release

pytestmark = pytest.mark.soak
ALB_CONFIG: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "albconfigs.alibabacloud.com"},
    "spec": {
        "group": "alibabacloud.com",
        "scope": "Cluster",
        "names": {"kind": "AlbConfig", "plural": "albconfigs", "singular": "albconfig"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""What the add-on brings to a managed cluster: here any content is taken."""
RELEASED = "SJZY.Package.Output.Api"
SERVICE = "sjzy-package-output-api"


@pytest.fixture
def prod(cluster: Cluster, tmp_path: Path) -> Iterator[Program]:
    """The stack with nothing made yet."""
    purge(cluster)
    definition = tmp_path / "albconfig.json"
    definition.write_text(json.dumps(ALB_CONFIG))
    cluster.kubectl("apply", f"--filename={definition}")
    more = variables(cluster.env["PATH"], tmp_path / "cloud", cluster.instance.kubeconfig)
    program = Program.create(cluster, tmp_path / "copy", "prod", more)
    client = Client.connect({"kubernetes:kubeconfig": str(cluster.instance.kubeconfig)}, program.namespace)
    # Nobody else opens the readiness gates of pods that wait for an ALB.
    with AlbStandIn(client, writing(str(cluster.instance.kubeconfig))):
        yield program
    cluster.kubectl("delete", f"--filename={definition}", "--wait", "--timeout=60s")
    purge(cluster)


def step(text: str) -> None:
    """Tell whoever watches the rehearsal."""
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()


def tree(program: Program) -> str:
    """Return the stack's resources below each other, those of the cloud with what they cost, roughly."""
    cluster = AckSettings.model_validate_json(json.dumps(read_stack_file(program.folder, "prod")["cluster"]))
    costs = {f"cluster-{each.name}": each.cost for each in ack_cluster(cluster)}
    below: dict[str, list[str]] = {}
    for each in program.resources():
        below.setdefault(each.get("parent", ""), []).append(each["urn"])

    def lines(urn: str, depth: int) -> list[str]:
        kind, name = urn.split("::")[2].rsplit(":", 1)[-1], urn.rsplit("::", 1)[-1]
        own = f"{'  ' * depth}{kind} {name}"
        cost = costs.get(name, "")
        return [
            f"{own:<60} {cost}".rstrip(),
            *(line for child in below.get(urn, []) for line in lines(child, depth + 1)),
        ]

    return "\n".join(line for urn in below[""] for line in lines(urn, 0))


def tag_in_cluster(program: Program) -> str:
    """Return the tag that a project's Service answers with."""
    path = f"/api/v1/namespaces/{program.namespace}/services/{SERVICE}:http/proxy/"
    return json.loads(program.cluster.kubectl("get", "--raw", path))["tag"]


def test_from_nothing_to_serving_and_back(prod: Program, tmp_path: Path) -> None:
    step("preview of nothing")
    previewed = counts(prod.preview().stdout)
    assert previewed.keys() == {"create"}

    step("pulumi up --stack prod: network, cluster, node pools, credential, projects")
    prod.up()
    prod.wait_until_settled()
    assert len([each for each in prod.get("deployments") if each["status"].get("readyReplicas")]) == len(prod.tags)
    before = tag_in_cluster(prod)
    assert before == prod.tags[RELEASED]
    sys.stdout.write(tree(prod) + "\n")

    step("again: nothing changes")
    prod.up("--expect-no-changes")

    step("a release, with the credential that the stack gives out")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(prod.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout)
    release = Release(prod)
    release.variables["KUBECONFIG"] = str(kubeconfig)
    release("deploy", RELEASED, prod.other_tag(RELEASED))
    assert tag_in_cluster(prod) == prod.other_tag(RELEASED)

    step("a rollback")
    release("rollback", RELEASED)
    assert tag_in_cluster(prod) == before

    step("a node pool grows: nothing else changes")
    pools = read_stack_file(prod.folder, "prod")["cluster"]["nodePools"]
    pools["apps"]["maximum"] += 3
    change(prod, cluster={"nodePools": pools})
    assert changed(prod) == ["update NodePool cluster-pool-apps"]

    step("a new credential: nothing is replaced")
    prod.wait_until_settled()  # the pods that the rollback has replaced take their time to leave
    uids = {name: each["uid"] for name, each in prod.identities().items()}
    change(prod, cluster={"credentialMinutes": 600})
    assert changed(prod) == ["update kubernetes ack"]
    assert {name: each["uid"] for name, each in prod.identities().items()} == uids

    step("pulumi destroy: refused, and nothing is touched")
    refused = prod.pulumi("destroy", "--yes", "--color=never", check=False)
    assert refused.returncode != 0
    assert "protected" in refused.stdout + refused.stderr
    assert {name: each["uid"] for name, each in prod.identities().items()} == uids
