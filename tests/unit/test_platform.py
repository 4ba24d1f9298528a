"""What a stack has made beside its projects, and can't move."""

import json
from typing import Any

import pytest

from model.environment import Environment
from model.platform import namespace_problems
from model.release import namespaces_of
from tests.unit.test_ingress_model import KEEPALIVED

OWN = "urn:pulumi:uat::package-platform::kubernetes:core/v1:Namespace::package-uat"
ITS = "urn:pulumi:uat::package-platform::package-platform:index:HaIngress$kubernetes:core/v1:Namespace::ingress-ns"


def resources(**names: str) -> dict[str, Any]:
    urns = {"own": OWN, "its": ITS}
    made: dict[str, Any] = {
        urns[each]: {"type": "kubernetes:core/v1:Namespace", "outputs": {"metadata": {"name": name}}}
        for each, name in names.items()
    }
    return {**made, "urn:pulumi:uat::p::kubernetes:core/v1:Service::x": {"type": "kubernetes:core/v1:Service"}}


def told(environment: dict[str, Any], *, platform: bool = True, **names: str) -> list[str]:
    fields = {"name": "uat", "domain": "example.com", "registry": {"host": "harbor.example.com"}, **environment}
    given = Environment.model_validate_json(json.dumps(fields), by_alias=True, by_name=False)
    made = namespaces_of(resources(**names))
    return [str(each) for each in namespace_problems("Pulumi.uat.yaml", "p:", given, platform=platform, made=made)]


def test_a_namespace_stays_with_the_stack_that_made_it() -> None:
    same = {"namespace": "package-uat"}
    assert told(same, own="package-uat", its="package-ingress") == []
    assert told(same) == []
    (line,) = told(same, platform=False, own="package-uat")
    assert line.startswith(
        "Pulumi.uat.yaml:p:platform: the stack made namespace package-uat, and would delete it with all"
    )
    assert f"`pulumi state move --source … --dest … '{OWN}'`" in line
    (line,) = told({"namespace": "other"}, own="package-uat")
    assert line.startswith("Pulumi.uat.yaml:p:environment.namespace: the stack made namespace package-uat, and would")


@pytest.mark.parametrize(("namespace", "refused"), [("package-ingress", False), ("edge", True)])
def test_the_proxies_stay_in_their_namespace(namespace: str, refused: object) -> None:
    environment = {"namespace": "package-uat", "ingress": {"ha": {**KEEPALIVED, "namespace": namespace}}}
    lines = told(environment, own="package-uat", its="package-ingress")
    assert bool(lines) is refused
    if refused:
        assert lines[0].startswith(
            "Pulumi.uat.yaml:p:environment.ingress.ha.namespace: the proxies are in package-ingress"
        )


def test_an_ingress_that_is_taken_out_is_no_move() -> None:
    assert told({"namespace": "package-uat"}, own="package-uat", its="package-ingress") == []
