"""What a component tells Pulumi beside the manifests: order, and what is left to others."""

from typing import Any

import pulumi
import pytest

from components import PackageApp, PackageAppArgs, _workload
from model.plan import Action, CanaryWish
from model.project import parse_project
from model.release import Record, Release, Slot
from model.stack import Application, Image
from tests.program.test_library import ENVIRONMENT, run


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each resource was given: name in Pulumi → resource and options."""
    seen: dict[str, Any] = {}
    really = _workload.apply

    def apply(name: str, manifest: Any, opts: pulumi.ResourceOptions) -> Any:
        made = really(name, manifest, opts)
        seen[f"{manifest['kind']} {name}"] = (made, opts)
        seen[f"manifest of {manifest['kind']} {name}"] = manifest
        return made

    monkeypatch.setattr(_workload, "apply", apply)
    return seen


def declare(
    record: Record | None,
    canary: CanaryWish | None = None,
    action: Action = "release",
    pods: dict[str, int] | None = None,
    found: tuple[str, ...] | None = None,
    **fields: Any,
) -> None:
    project = parse_project("projects/x.yaml", {"kind": "backend", **fields}, "test")
    image = Image(repository="harbor.example.com/back/x", tag="2")
    application = Application(
        gitea_name="X", file="projects/x.yaml", project=project, image=image, record=record, canary=canary,
        action=action, pods=pods or {}, autoscaled=found, ingresses=found,
    )  # fmt: skip
    run(lambda: PackageApp("X", PackageAppArgs(application, ENVIRONMENT)))


def ran(tag: str) -> Record:
    release = Release(tag=tag)
    return Record(live="main", slots={"main": Slot(release=release, revision="r")}, history=(release,))


def test_the_pods_wait_for_the_migration_which_is_never_touched_again(options: dict[str, Any]) -> None:
    declare(ran("1"), migrate={"command": ["m"], "activeDeadlineSeconds": 120})
    ((job, given),) = [each for name, each in options.items() if name.startswith("Job X-migrate-")]
    assert given.ignore_changes == ["metadata.labels", "metadata.annotations", "spec"]
    assert given.custom_timeouts.create == "180s"
    assert job in options["Deployment X-main"][1].depends_on
    assert given.depends_on == [options["ServiceAccount X"][0]]


def test_nothing_waits_for_a_migration_that_there_is_not(options: dict[str, Any]) -> None:
    declare(ran("1"))
    assert not [name for name in options if name.startswith("Job ")]


def test_an_autoscaler_owns_the_number_of_pods_but_not_of_a_canary(options: dict[str, Any]) -> None:
    declare(ran("2"), CanaryWish(tag="3", weight=10), strategy="canary", autoscaling={"maxReplicas": 9})
    assert options["Deployment X-main"][1].ignore_changes == ["spec.replicas"]
    assert options["Deployment X-canary"][1].ignore_changes is None


def test_an_autoscaler_is_off_where_there_is_no_pod_and_gets_a_first_one(options: dict[str, Any]) -> None:
    declare(ran("2"), pods={"x": 0}, autoscaling={"maxReplicas": 9})
    assert options["Deployment X-main"][1].ignore_changes is None


@pytest.mark.parametrize("action", ["release", "restore", "tidy"])
def test_routes_and_autoscaling_are_changed_by_a_release_alone(options: dict[str, Any], action: Action) -> None:
    """What puts back or tidies has a project file that was not released with what runs."""
    declare(ran("2"), action=action, routes=[{"host": "new"}], autoscaling={"maxReplicas": 9})
    expected = None if action == "release" else ["metadata.labels", "metadata.annotations", "spec"]
    assert options["Ingress X"][1].ignore_changes == expected
    assert options["HorizontalPodAutoscaler X-main"][1].ignore_changes == expected


@pytest.mark.parametrize("action", ["restore", "tidy"])
def test_what_only_a_release_may_make_or_take_away_stays_there_or_away(options: dict[str, Any], action: Action) -> None:
    declare(ran("2"), action=action, found=("x",))
    for name in ("Ingress X", "HorizontalPodAutoscaler X-main"):
        assert options[name][1].ignore_changes == ["metadata.labels", "metadata.annotations", "spec"]
        assert options[f"manifest of {name}"]["metadata"] == {"name": "x", "namespace": ENVIRONMENT.namespace}
    options.clear()
    declare(ran("2"), action=action, found=(), routes=[{"host": "new"}], autoscaling={"maxReplicas": 9})
    assert not {"Ingress X", "HorizontalPodAutoscaler X-main"} & options.keys()


def test_a_colour_without_an_autoscaler_is_put_back_with_the_pods_that_it_had(options: dict[str, Any]) -> None:
    live = ran("1").slots["main"]
    record = Record(live="green", slots={"green": live, "blue": live}, history=ran("1").history)
    other = record.model_copy(update={"slots": {"green": live.model_copy(update={"revision": "s"}), "blue": live}})
    fields: dict[str, Any] = {"strategy": "blueGreen", "autoscaling": {"maxReplicas": 9}}
    declare(other, action="restore", pods={"x-green": 8, "x-blue": 3}, found=("x-green",), **fields)
    assert options["Deployment X-blue"][1].ignore_changes is None
    assert options["manifest of Deployment X-blue"]["spec"]["replicas"] == 3
    assert "spec.replicas" in options["Deployment X-green"][1].ignore_changes


def test_what_is_put_back_has_as_many_pods_as_before(options: dict[str, Any]) -> None:
    declare(ran("2"), action="restore", pods={"x": 5}, replicas=2)
    assert options["Deployment X-main"][1].ignore_changes is None
    assert options["manifest of Deployment X-main"]["spec"]["replicas"] == 5


@pytest.mark.parametrize("fields", [{}, {"autoscaling": {"maxReplicas": 9}}], ids=["by itself", "not yet autoscaled"])
def test_what_is_tidied_leaves_the_number_of_pods_that_serve(options: dict[str, Any], fields: dict[str, Any]) -> None:
    declare(ran("2"), action="tidy", replicas=2, pods={"x": 6} if fields else {}, found=(), **fields)
    assert "spec.replicas" in options["Deployment X-main"][1].ignore_changes


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 2 * 300),
        ({"replicas": 5}, 3 * 300),
        ({"replicas": 4, "rollout": {"maxSurge": 100}}, 300),
        ({"autoscaling": {"maxReplicas": 9}}, 3 * 300),
        ({"singleton": True, "replicas": 1, "shutdown": {"preStopSeconds": 5, "drainSeconds": 600}}, 300 + 605),
    ],
    ids=["one after the other", "two at a time", "all at once", "as many as there may be", "the old one goes first"],
)
def test_a_rollout_is_waited_for_as_long_as_its_turns_may_take(
    options: dict[str, Any], fields: dict[str, Any], seconds: int
) -> None:
    declare(ran("1"), **fields)
    made, given = options["Deployment X-main"]
    assert given.custom_timeouts.update == f"{seconds + 60}s"
    assert int(given.custom_timeouts.delete.removesuffix("s")) >= 600
    assert made.pulumi_resource_type == "kubernetes:apps/v1:Deployment"


def test_what_is_left_as_it_is_may_differ_in_its_notes_and_never_in_all_metadata(options: dict[str, Any]) -> None:
    """Provider 4.x would send `managedFields` with the whole, which the API server refuses."""
    record = ran("1")
    warm = Record(
        live="blue", slots={"blue": record.slots["main"], "green": record.slots["main"]}, history=record.history
    )
    declare(warm, strategy="blueGreen")
    ignored = options["Deployment X-blue"][1].ignore_changes
    assert {"metadata.labels", "metadata.annotations", "spec.template"} <= set(ignored)
    assert not {"metadata", "spec"} & set(ignored)


@pytest.mark.parametrize("fields", [{}, {"autoscaling": {"maxReplicas": 9}}], ids=["by itself", "autoscaled"])
def test_a_parked_colour_loses_its_pods_and_nothing_brings_them_back(
    options: dict[str, Any], fields: dict[str, Any]
) -> None:
    live = ran("1").slots["main"]
    parked = live.model_copy(update={"warm": False})
    record = Record(live="green", slots={"green": live, "blue": parked}, history=ran("1").history)
    declare(record, action="tidy", strategy="blueGreen", **fields)
    made, given = options["Deployment X-blue"]
    assert made.pulumi_resource_type == "kubernetes:apps/v1:Deployment"
    assert "spec.template" in given.ignore_changes
    assert "spec.replicas" not in given.ignore_changes
    assert "HorizontalPodAutoscaler X-blue" not in options
    assert ("HorizontalPodAutoscaler X-green" in options) == bool(fields)


def test_a_colour_that_is_to_take_over_gets_its_number(options: dict[str, Any]) -> None:
    declare(ran("1"), strategy="blueGreen", autoscaling={"maxReplicas": 9})
    assert options["Deployment X-blue"][1].ignore_changes is None
    assert "spec.replicas" in options["Deployment X-main"][1].ignore_changes
