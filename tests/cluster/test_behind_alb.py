"""Releases with the ALB's readiness gate on a real cluster and the real engine; the ALB's controller is a stand-in."""

from pathlib import Path

import pytest
import yaml

from release.cluster import Cluster as Namespace
from tests.cluster.alb import AlbStandIn, writing
from tests.cluster.embedded import Cluster
from tests.cluster.program import Program
from tests.cluster.test_strategies import pods_of, record_of

pytestmark = pytest.mark.soak
"""Five updates whose pods settle for ten seconds each; `make soak` runs it."""
PROJECT = "SJZY.Package.Api"
NAME = "sjzy-package-api"


@pytest.fixture
def behind_alb(cluster: Cluster, tmp_path: Path) -> Program:
    """A stack of its own with one project, behind an ALB."""
    program = Program.create(cluster, tmp_path / "copy", "uat")
    file = yaml.safe_load(program.stack_file.read_text())
    environment = file["config"]["package-platform:environment"]
    environment |= {"namespace": "package-alb", "ingress": {"dialect": "alb", "className": "alb"}}
    file["config"]["package-platform:projects"] = {"include": [PROJECT]}
    program.stack_file.write_text(yaml.safe_dump(file, allow_unicode=True, sort_keys=False))
    return program


def weights(controller: AlbStandIn) -> dict[str, int]:
    controller.look()
    latest = controller.looks[NAME][-1]
    return {name.removeprefix(f"{NAME}-"): weight for name, weight in latest.weights.items() if weight}


def test_releases_by_every_strategy_keep_weight_on_ready_pods_only(behind_alb: Program) -> None:
    program, files = behind_alb, behind_alb.projects()
    first = program.tags[PROJECT]
    second = program.other_tag(PROJECT)
    client = Namespace.connect({"kubernetes:kubeconfig": program.cluster.env["KUBECONFIG"]}, program.namespace)
    try:
        with AlbStandIn(client, writing(program.cluster.env["KUBECONFIG"])) as controller:
            program.up()
            assert weights(controller) == {"main": 100}, "the first release does not wait for ever"
            program.append(PROJECT, "strategy: blueGreen\n")
            program.set_tag(PROJECT, second)
            program.up()
            assert weights(controller) == {"blue": 100}
            pods = pods_of(program, NAME)
            program.set_tag(PROJECT, first)
            program.up()
            assert weights(controller) == {"main": 100}, "back to the warm pods"
            assert pods_of(program, NAME) == pods, "a rollback starts none"
            program.restore_projects(files)
            program.append(PROJECT, "strategy: canary\n")
            program.config_set(f'canaries["{PROJECT}"].tag', second)
            program.config_set(f'canaries["{PROJECT}"].weight', "10")
            program.up()
            assert weights(controller) == {"main": 90, "canary": 10}
            assert set(pods_of(program, NAME).values()) == {"main", "canary"}
        assert not controller.failed
        assert record_of(program, NAME).weighted
        later = [look for look in controller.looks[NAME] if look.recorded]
        assert len(later) > 20
        assert [look for look in later if look.emptied] == []
        assert {sum(look.weights.values()) for look in controller.looks[NAME]} == {100}
        assert program.preview("--expect-no-changes").returncode == 0
    finally:
        client.close()
        program.destroy()
