"""What Kubernetes would refuse in the middle of a release, or never let work, is refused in the project file."""

from typing import Any

import pytest

from model.problems import SettingsError
from model.project import BackendProject, FrontendProject, parse_project
from model.stack import parse_stack
from tests.unit.test_bad_input import ENVIRONMENT, STACK_FILE, problems

FILE = "projects/x.yaml"
ROUTED: dict[str, Any] = {"routes": [{"host": "api"}]}
VOLUME: dict[str, Any] = {"name": "data", "mount": "/data", "size": "1Gi", "class": "shared"}
KEY: dict[str, Any] = {"name": "key", "path": "/data/key"}


def parsed(
    fields: dict[str, Any], kind: str = "backend", environment: str = "test"
) -> BackendProject | FrontendProject:
    return parse_project(FILE, {"kind": kind, **fields}, environment)


def refused(fields: dict[str, Any], kind: str = "backend") -> str:
    with pytest.raises(SettingsError) as caught:
        parsed(fields, kind)
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(FILE)


@pytest.mark.parametrize("kind", [["backend"], {"a": 1}, 3, None])
def test_a_kind_that_is_no_word(kind: object) -> None:
    with pytest.raises(SettingsError, match=r"projects/x\.yaml.*kind"):
        parse_project(FILE, {"kind": kind}, "test")


@pytest.mark.parametrize("name", ["POD_NAME", "POD_IP", "NODE_NAME"])
def test_the_pods_own_variables_are_taken(name: str) -> None:
    said = f": {name} is a variable that every pod has of its own: choose another name"
    assert refused({"env": {name: "x"}}) == said
    assert refused({"secrets": {"env": [name]}}) == said


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"secrets": {"files": [{"name": "k", "path": "/tmp"}]}}, ("/tmp", "/tmp")),
        ({"storage": [VOLUME], "secrets": {"files": [KEY]}}, ("/data", "/data/key")),
        ({"storage": [VOLUME], "config": {"secretFiles": [{"file": "k", "path": "/data"}]}}, ("/data", "/data")),
        ({"config": {"mount": "/app/config", "files": ["a", {"file": "b", "path": "/app"}]}}, ("/app/config", "/app")),
        ({"secrets": {"files": [{"name": "a", "path": "/a"}, {"name": "b", "path": "/a/b"}]}}, ("/a", "/a/b")),
    ],
)
def test_paths_inside_each_other(fields: dict[str, Any], paths: tuple[str, str]) -> None:
    said = refused(fields)
    assert "are inside each other: change one" in said
    assert all(path in said for path in paths)


def test_the_asset_bridges_folder_is_a_front_ends_alone() -> None:
    volume = {**VOLUME, "mount": "/etc/asset-bridge"}
    assert "the asset bridge" in refused({"storage": [volume]}, "frontend")
    assert parsed({"storage": [volume]}).storage


def test_the_asset_bridges_port() -> None:
    assert "port 8079 is that of the nginx before it" in refused({"port": 8079}, "frontend")
    assert parsed({"port": 8079, "assets": []}, "frontend").port == 8079
    assert parsed({"port": 8079}).port == 8079


def test_an_asset_path_can_not_end_nginxs_statement() -> None:
    assert "assets.0" in refused({"assets": ["/a;b"]}, "frontend")


def test_a_pod_must_be_ready_in_time() -> None:
    said = ".rollout: minReadySeconds 400 must be below progressDeadlineSeconds 300"
    assert refused({"rollout": {"minReadySeconds": 400}}).replace(":rollout", ".rollout") == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"replicas": 0}, "replicas 0 is not from 1 to autoscaling.maxReplicas 5"),
        ({"replicas": 9}, "replicas 9 is not from 1 to autoscaling.maxReplicas 5"),
        ({"resources": {"requests": {"cpu": None}}}, "autoscaling goes by the share of resources.requests.cpu"),
    ],
)
def test_autoscaling_that_never_works(fields: dict[str, Any], said: str) -> None:
    assert said in refused({"autoscaling": {"maxReplicas": 5}, **fields})


def test_all_that_does_not_fit_together_is_told_at_once_here_and_in_an_environment() -> None:
    wrong = {
        "singleton": True,
        "replicas": 2,
        "env": {"POD_NAME": "x"},
        "routes": [{"host": "a"}, {"host": "a"}],
        "probes": {"startup": {"periodSeconds": 100, "failureThreshold": 3}},
    }
    told = [
        "a singleton has replicas: 1, not 2",
        "probes.startup allows 300 s, which must stay below rollout.progress_deadline_seconds (300), or a slow start "
        "is reported as a hanging release",
        "POD_NAME is a variable that every pod has of its own: choose another name",
        "routes has a/ twice",
    ]
    for field, fields in (("", wrong), (":environments.test", {"environments": {"test": wrong}})):
        with pytest.raises(SettingsError) as caught:
            parsed(fields)
        assert str(caught.value).splitlines() == sorted(f"{FILE}{field}: {line}" for line in told)


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ({"host": "10.0.0.1"}, "'10.0.0.1' is an address: an Ingress knows hosts by name only"),
        ({"host": "api", "path": "/a%2Fb"}, "is no plain URL path"),
    ],
)
def test_routes_that_an_ingress_refuses(route: dict[str, Any], said: str) -> None:
    assert said in refused({"routes": [route]})


def test_a_user_that_kubernetes_can_not_have() -> None:
    assert "runAsUser" in refused({"runAsUser": 3_000_000_000})


def test_one_probe_or_limit_can_be_named_alone() -> None:
    project = parsed({"probes": {"startup": {"path": "/up"}}, "resources": {"limits": {"cpu": "2"}}})
    assert (project.probes.startup.path, project.probes.startup.failure_threshold) == ("/up", 120)
    assert project.probes.readiness.path == "/healthz/ready"
    assert (project.resources.limits.cpu, project.resources.limits.memory) == ("2", "512Mi")
    assert project.resources.requests.memory == "64Mi"


def test_what_is_null_is_taken_away() -> None:
    assert parsed({"resources": {"limits": {"memory": None}}}).resources.limits.memory is None


def test_an_environment_changes_one_request_and_keeps_the_rest() -> None:
    fields = {
        "probes": {"readiness": {"path": "/r"}},
        "environments": {"prod": {"resources": {"requests": {"cpu": "500m"}}, "probes": {"liveness": {"path": "/l"}}}},
    }
    project = parsed(fields, environment="prod")
    assert (project.resources.requests.cpu, project.resources.requests.memory) == ("500m", "64Mi")
    assert (project.probes.readiness.path, project.probes.liveness.path) == ("/r", "/l")
    assert parsed(fields, environment="test").resources.requests.cpu == "50m"


def test_a_name_of_our_own() -> None:
    assert "a container beside a front end's own" in problems({"asset-bridge": {"kind": "frontend"}})[0]


CANARY = {"kind": "backend", "strategy": "canary"}


def test_a_canary_is_not_called_latest_where_no_release_is() -> None:
    said = problems({"api": {**CANARY, **ROUTED}}, canaries={"api": {"tag": "latest", "weight": 10}})
    assert said == [
        f"{STACK_FILE}:package-platform:canaries.api.tag: the tag 'latest' is not allowed in uat, where a release must "
        "be repeatable: name the tag that latest stands for"
    ]


def test_a_canary_without_a_route_can_not_have_a_share() -> None:
    (said,) = problems({"api": CANARY}, canaries={"api": {"tag": "2", "weight": 10}})
    assert "projects/api.yaml has no routes" in said
    data = {"environment": ENVIRONMENT, "canaries": {"api": {"tag": "2"}}}
    assert parse_stack(STACK_FILE, "uat", data, {"projects/api.yaml": CANARY}, ["uat"])
