"""The cloud's part of the stack ``prod`` on Pulumi's real engine, with a stand-in for the cloud; needs no cluster."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from devcluster import toolchain
from devcluster.instance import Instance
from devcluster.progress import Progress
from manifests.ack_cluster import ack_cluster
from settings import read_stack_file
from tests.cluster.cloud import change, changed, counts, variables
from tests.cluster.embedded import Cluster
from tests.cluster.program import Program
from tests.conftest import committed_stack

TOOLS = ("pulumi", "pulumi-language-python", "pulumi-resource-kubernetes")
TOKEN = "only-for-this-test"  # noqa: S105 - what must not be found in the state
BESIDE = ("Stack", "AckCluster", "alicloud", "kubernetes")
"""What is declared besides the cloud's resources: the stack, the component and two providers."""
OWN_PROVIDER = "pulumi"
"""Of the questions that the program asks about its own state."""
NO_CHANGES = "--expect-no-changes"
KUBECONFIG = {
    "clusters": [{"name": "k", "cluster": {"server": "https://192.0.2.1:6443"}}],
    "users": [{"name": "u", "user": {"token": TOKEN}}],
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "current-context": "c",
}


@pytest.fixture(scope="module")
def prod(reserved: Instance, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The stack without projects, and nothing made yet."""
    toolchain.ensure(TOOLS, Progress())
    folder = tmp_path_factory.mktemp("prod")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    cluster = Cluster(reserved)
    more = {**variables(cluster.env["PATH"], folder / "cloud", kubeconfig), "PULUMI_CONFIG_PASSPHRASE": "x"}
    program = Program.create(cluster, folder / "copy", "prod", more)
    environment = read_stack_file(program.folder, "prod")["environment"]
    del environment["ingress"]["ha"]
    change(program, tags=None, platform=False, environment=environment)
    return program


@pytest.fixture(scope="module")
def previewed(prod: Program) -> str:
    """What a preview says while there is nothing at all."""
    return prod.preview().stdout


@pytest.fixture(scope="module")
def made(prod: Program, previewed: str) -> Program:
    """The stack with its cluster made."""
    assert previewed
    prod.up()
    return prod


def wanted() -> dict[str, str]:
    cluster = committed_stack("prod").cluster
    assert cluster is not None
    return {f"cluster-{each.name}": each.kind.split(".")[1] for each in ack_cluster(cluster)}


def test_a_preview_of_nothing_shows_the_whole_tree(previewed: str) -> None:
    assert counts(previewed) == {"create": len(wanted()) + len(BESIDE)}
    for name in wanted():
        assert f"::{name}]" in previewed
    assert "[unknown]" in previewed, "what only the cloud knows is unknown, and stops nothing"


def test_all_is_made_and_again_nothing_changes(made: Program) -> None:
    found = {each["urn"].rsplit("::", 1)[1]: each["type"].rsplit(":", 1)[1] for each in made.resources()}
    assert {name: kind for name, kind in found.items() if name in wanted()} == wanted()
    assert sorted(kind for name, kind in found.items() if name not in wanted()) == sorted((*BESIDE, OWN_PROVIDER))
    outputs = made.outputs()["cluster"]
    assert outputs["endpoint"] == "https://192.0.2.1:6443"
    assert len(outputs["vSwitchIds"]) == 3
    made.up(NO_CHANGES)


def test_no_credential_is_readable_in_the_state(made: Program) -> None:
    kept = [path for path in (made.folder / "state").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    assert TOKEN in made.pulumi("stack", "output", "--json", "--show-secrets").stdout, "it is there, but encrypted"


@pytest.mark.soak
def test_a_new_credential_replaces_nothing(made: Program) -> None:
    change(made, cluster={"credentialMinutes": 600})
    assert changed(made) == ["update kubernetes ack"]


@pytest.mark.soak
def test_a_node_pool_changes_alone(made: Program) -> None:
    pools = yaml.safe_load(made.stack_file.read_text())["config"]["package-platform:cluster"]["nodePools"]
    pools["apps"]["maximum"] += 3
    change(made, cluster={"nodePools": pools})
    assert changed(made) == ["update NodePool cluster-pool-apps"]


@pytest.mark.soak
def test_destruction_is_refused(made: Program) -> None:
    before = made.resources()
    refused = made.pulumi("destroy", "--yes", "--color=never", check=False)
    assert refused.returncode != 0
    assert "protected" in refused.stdout + refused.stderr
    assert made.resources() == before


@pytest.mark.soak
def test_a_lost_state_comes_back_from_its_backup(made: Program, tmp_path: Path) -> None:
    backup = tmp_path / "prod.json"
    made.pulumi("stack", "export", f"--file={backup}")
    assert TOKEN not in backup.read_text()
    shutil.rmtree(made.folder / "state")
    (made.folder / "state").mkdir()
    assert made.pulumi("stack", "export", check=False).returncode != 0, "it is lost"
    made.pulumi("stack", "init", "prod")
    made.pulumi("stack", "import", f"--file={backup}")
    made.preview(NO_CHANGES)
    kept = json.loads(backup.read_text())["deployment"]["resources"]
    # Secrets are encrypted anew, so their ciphertext is another one.
    assert [(each["urn"], each.get("id")) for each in kept] == [
        (each["urn"], each.get("id")) for each in made.resources()
    ]
