"""Bad input: one line for each problem, with file and field, all of them at once."""

from typing import Any

import pytest

from model.problems import SettingsError
from model.stack import Stack, parse_stack

STACK_FILE = "Pulumi.uat.yaml"
ENVIRONMENT: dict[str, Any] = {
    "namespace": "package-uat",
    "domain": "uat.example.com",
    "registry": {"host": "harbor.example.com"},
}
BACKEND: dict[str, Any] = {"kind": "backend", "routes": [{"host": "api"}]}


def check(files: dict[str, Any], **config: Any) -> Stack:
    data = {"environment": ENVIRONMENT, **config}
    paths: dict[str, object] = {f"projects/{name}.yaml": content for name, content in files.items()}
    return parse_stack(STACK_FILE, "uat", data, paths, ["test", "uat", "prod"])


def problems(files: dict[str, Any], **config: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        check(files, **config)
    return str(caught.value).splitlines()


def test_good_input_is_no_problem() -> None:
    stack = check({"Some.Api": BACKEND, "web": {"kind": "frontend"}}, tags={"Some.Api": "1"})
    assert [application.name for application in stack.deployed] == ["some-api"]
    assert [application.name for application in stack.waiting] == ["web"]


@pytest.mark.parametrize(("written", "quantity"), [(0.5, "0.5"), (2, "2"), (0.00001, "0.00001"), ("250m", "250m")])
def test_a_quantity_may_be_a_number(written: object, quantity: str) -> None:
    stack = check({"Some.Api": {**BACKEND, "resources": {"requests": {"cpu": written}}}}, tags={"Some.Api": "1"})
    assert stack.deployed[0].project.resources.requests.cpu == quantity


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            {**BACKEND, "secrets": {"env": ["A"], "files": [{"name": "..a", "path": "/a"}]}},
            (
                "secrets.files.0.name: '..a' is no name of a secret: letters, digits, '.', '_' and '-', not '..' "
                "first, at most 253"
            ),
        ),
        ({**BACKEND, "replica": 2}, "replica: unknown key; did you mean 'replicas'?"),
        ({**BACKEND, "zzz": 2}, "zzz: unknown key"),
        ({**BACKEND, "replicas": "2"}, "replicas: input should be a valid integer (got '2')"),
        ({**BACKEND, "replicas": -1}, "replicas: input should be greater than or equal to 0 (got -1)"),
        (
            {**BACKEND, "autoscaling": {"minReplicas": 2, "maxReplicas": 3}, "resources": {"requests": {"cpu": 0}}},
            "autoscaling goes by the share of resources.requests.cpu that is used: name one",
        ),
        (
            {**BACKEND, "probes": {"startup": {"path": "/", "timeoutSeconds": 60, "failureThreshold": 5}}},
            (
                "probes.startup allows 300 s, which must stay below rollout.progress_deadline_seconds (300), or a slow "
                "start is reported as a hanging release"
            ),
        ),
        ({**BACKEND, "singleton": "yes"}, "singleton: input should be a valid boolean (got 'yes')"),
        ({**BACKEND, "port": 80}, "port: input should be greater than or equal to 1024 (got 80)"),
        (
            {**BACKEND, "resources": {"requests": {"memory": "64MB"}}},
            (
                "resources.requests.memory: '64MB' is no Kubernetes quantity: "
                "a number and a unit, such as 250m, 0.5, 128Mi, 2Gi"
            ),
        ),
        (
            {**BACKEND, "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "512Mi"}}},
            "resources: requests.memory 1Gi is over limits.memory 512Mi",
        ),
        (
            {**BACKEND, "routes": [{"host": "https://api"}]},
            (
                "routes.0.host: 'https://api' is no host name: "
                "lower-case DNS labels joined by '.', no scheme, port or path"
            ),
        ),
        (
            {**BACKEND, "routes": [{"host": "api", "path": "admin"}]},
            "routes.0.path: 'admin' is no URL path: it starts with '/' and has no query, fragment or space",
        ),
        (
            {**BACKEND, "routes": [{"host": "api", "path": "/a/../b"}]},
            "routes.0.path: '/a/../b' is no plain URL path: '//', '%2F', '.' and '..' are not allowed",
        ),
        ({**BACKEND, "routes": [{"path": "/"}]}, "routes.0.host: is required"),
        (
            {**BACKEND, "env": {"1A": "x"}},
            "env.1A: '1A' is no environment variable name: letters, digits and '_', first no digit",
        ),
        ({**BACKEND, "env": {"A": 1}}, "env.A: input should be a valid string (got 1)"),
        ({**BACKEND, "singleton": True}, "a singleton has replicas: 1, not 2"),
        (
            {**BACKEND, "autoscaling": {"minReplicas": 4, "maxReplicas": 3}},
            "autoscaling: minReplicas 4 is over maxReplicas 3",
        ),
        (
            {**BACKEND, "environments": {"uta": {}}},
            "environments.uta: there is no environment 'uta', only prod, test, uat; did you mean 'uat'?",
        ),
        (
            {**BACKEND, "environments": {"prod": {"replicas": "x"}}},
            "environments.prod.replicas: input should be a valid integer (got 'x')",
        ),
        ({**BACKEND, "environments": {"prod": 3}}, "environments.prod: must be a mapping of fields"),
        ([1], "must be a mapping of fields, the first one `kind: backend`"),
        (None, "must be a mapping of fields, the first one `kind: backend`"),
    ],
)
def test_a_bad_project_file(content: Any, line: str) -> None:
    field, _, _ = line.partition(": ")
    separator = ": " if " " in field else ":"
    assert problems({"Some.Api": content}) == [f"projects/Some.Api.yaml{separator}{line}"]


def test_a_kind_that_does_not_exist() -> None:
    (line,) = problems({"Some.Api": {"kind": "back"}})
    assert line.startswith("projects/Some.Api.yaml: input tag 'back' found using 'kind' does not match")
    assert "'backend', 'frontend'" in line


def test_two_projects_with_one_kubernetes_name() -> None:
    web = {"kind": "frontend"}
    assert problems({"packet_label": web, "packet-label": web}) == [
        (
            "projects/packet_label.yaml: shares the Kubernetes name 'packet-label' with projects/packet-label.yaml: "
            "rename one project"
        )
    ]


def test_a_name_that_can_not_become_a_dns_label() -> None:
    assert problems({"9lives": {"kind": "frontend"}}) == [
        "projects/9lives.yaml: '9lives' can't name a Kubernetes Service: its first character must be a letter"
    ]


def test_two_projects_on_one_host_and_path() -> None:
    again = {"kind": "backend", "routes": [{"host": "api.uat.example.com", "path": "/"}]}
    assert problems({"A": BACKEND, "B": again}) == [
        "projects/B.yaml:routes.0: api.uat.example.com/ is taken by projects/A.yaml: change host or path"
    ]


def test_a_route_that_a_project_overrides_away_is_free() -> None:
    moved: dict[str, Any] = {**BACKEND, "environments": {"uat": {"routes": []}}}
    assert check({"A": BACKEND, "B": moved}).applications[1].project.routes == ()


@pytest.mark.parametrize(
    ("tags", "line"),
    [
        ({"A": "latest"}, "A: the tag 'latest' is not allowed in uat, where a release must be repeatable"),
        ({"B": "1"}, "B: there is no project file for it"),
        ({"AB": "1"}, "AB: there is no project file for it; did you mean 'A'?"),
        ({"A": 20220803}, 'A: 20220803 is a number, not a tag: quote it ("20220803")'),
        ({"A": 1.10}, 'A: 1.1 is a number, not a tag: quote it ("1.1")'),
        ({"A": "a:b"}, "A: 'a:b' is no image tag"),
        ({"A": ""}, "A: '' is no image tag"),
        ({"A": None}, "A: input should be a valid string (got None)"),
    ],
)
def test_bad_tags(tags: dict[str, Any], line: str) -> None:
    (problem,) = problems({"A": BACKEND}, tags=tags)
    assert problem.startswith(f"Pulumi.uat.yaml:package-platform:tags.{line}")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"domain": "Uat.Example.com"}, "environment.domain: 'Uat.Example.com' is no host name"),
        ({"registry": {"host": "https://harbor"}}, "environment.registry.host: 'https://harbor' is no registry"),
        ({"ingress": {"dialect": "haproxy"}}, "environment.ingress.dialect: input should be 'nginx' or 'alb'"),
        ({"ingress": {"address": "10.0.0.1"}}, "environment.ingress.address: '10.0.0.1' is no address"),
        ({"nmespace": "x"}, "environment.nmespace: unknown key; did you mean 'namespace'?"),
        ({"namespace": "Package"}, "environment.namespace: 'Package' is no DNS label"),
    ],
)
def test_a_bad_environment(change: dict[str, Any], line: str) -> None:
    (problem,) = problems({"A": BACKEND}, environment={**ENVIRONMENT, **change})
    assert problem.startswith(f"Pulumi.uat.yaml:package-platform:{line}")


def test_an_unknown_key_of_the_stack_file() -> None:
    assert problems({}, tag={"A": "1"}) == ["Pulumi.uat.yaml:package-platform:tag: unknown key; did you mean 'tags'?"]


def test_all_problems_come_at_once() -> None:
    lines = problems(
        {"A": {**BACKEND, "replica": 1, "port": 1}, "B": {"kind": "frontend", "strategy": "big-bang"}, "d": {}},
        tags={"C": "1", "A": "latest", "B": 5, "E": 6},
        nonsense=1,
    )
    assert len(lines) == 10
    assert lines == sorted(lines)


def test_a_problem_is_said_once_though_every_environment_inherits_it() -> None:
    content = {**BACKEND, "replica": 1, "environments": {"test": {"port": 8081}, "prod": {"port": 8082}}}
    assert problems({"A": content}) == ["projects/A.yaml:replica: unknown key; did you mean 'replicas'?"]
