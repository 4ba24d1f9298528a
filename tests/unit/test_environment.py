"""An environment as it is written: what is refused, what becomes of its name, and which stack makes what is shared."""

import runpy
from typing import Any

import pulumi
import pytest

import settings
from components import _apply, storage
from manifests import Manifest
from manifests.ingress_objects import metadata
from model.environment import Environment, Registry
from model.problems import SettingsError
from model.stack import Stack, parse_stack
from model.storage import NfsServer, StorageSettings

FILE = "Pulumi.test.yaml"
WAYS_IN: dict[str, dict[str, Any]] = {
    "keepalived": {
        "network": "10.0.0.0/24",
        "nodes": [{"name": "n1", "address": "10.0.0.11"}, {"name": "n2", "address": "10.0.0.12"}],
        "vips": [{"address": "10.0.0.100", "routerId": 51}],
    },
    "nlb": {
        "zones": ["cn-hangzhou-h:vsw-bp1a", "cn-hangzhou-i:vsw-bp1b"],
        "proxy": {"trustedProxies": ["10.20.0.0/20"]},
    },
}
ENVIRONMENT = Environment(
    name="test", namespace="package-test", domain="example.com", registry=Registry(host="harbor.example.com")
)


def parse(**fields: Any) -> Environment:
    own = {"namespace": "package-test", "domain": "example.com", "registry": {"host": "harbor.example.com"}}
    return parse_stack(FILE, "test", {"environment": {**own, **fields}}, {}).environment


def refused(**fields: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(**fields)
    return str(caught.value).removeprefix(f"{FILE}:package-platform:environment")


@pytest.mark.parametrize("kind", WAYS_IN)
def test_the_ingress_has_a_namespace_of_its_own(kind: str) -> None:
    ha = {"kind": kind, **WAYS_IN[kind]}
    assert refused(ingress={"ha": {**ha, "namespace": "package-test"}}) == (
        ": namespace and ingress.ha.namespace are both package-test: the ingress needs one of its own"
    )
    assert refused(ingress={"ha": ha}, namespace="package-ingress").startswith(": namespace and ingress.ha.namespace")
    assert parse(ingress={"ha": ha})


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"spreadOver": []}, ".spreadOver: tuple should have at least 1 item after validation, not 0"),
        ({"spreadOver": ["zone", "host", "zone"]}, ".spreadOver: zone is there twice: remove one"),
        ({"spreadOver": ["a zone", "host"]}, ".spreadOver.0: 'a zone' is no key of a Kubernetes label"),
        (
            {"domain": ".".join(["a" * 63] * 3)},
            ".domain: 191 characters leave no room for the host of a route: at most 189",
        ),
    ],
)
def test_what_is_refused(fields: dict[str, Any], line: str) -> None:
    assert refused(**fields) == line


def test_every_short_host_fits_below_the_longest_domain() -> None:
    environment = parse(domain=".".join(["a" * 63, "b" * 63, "c" * 61]))
    assert len(f"{'h' * 63}.{environment.domain}") == 253


def test_a_long_name_makes_a_label_that_kubernetes_takes() -> None:
    environment = ENVIRONMENT.model_copy(update={"name": "e" * 60})
    label = metadata(environment, "package-ingress", "keepalived", "keepalived")["labels"]["app.kubernetes.io/instance"]
    assert label == f"keepalived-{'e' * 52}"


@pytest.mark.parametrize("platform", [True, False])
def test_only_the_stack_with_the_namespace_makes_the_class_of_the_nfs_server(
    platform: bool,  # noqa: FBT001 - a case
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nfs = StorageSettings(nfs=NfsServer(server="10.0.0.9", share="/export"))
    stack = Stack(environment=ENVIRONMENT.model_copy(update={"storage": nfs}), applications=(), platform=platform)
    made: list[str] = []

    def apply(_: str, manifest: Manifest, __: object) -> pulumi.Resource:
        made.append(manifest["kind"])
        return object.__new__(pulumi.Resource)

    monkeypatch.setattr(settings, "load_stack", lambda: stack)
    monkeypatch.setattr(_apply, "apply", apply)
    monkeypatch.setattr(storage, "apply", apply)
    monkeypatch.setattr(pulumi, "export", dict[str, object]().setdefault)
    runpy.run_path(str(settings.PROGRAM / "__main__.py"))
    assert made == (["Namespace", "StorageClass"] if platform else [])
