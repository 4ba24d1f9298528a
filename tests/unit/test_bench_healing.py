"""The pure parts of the measurement of healing: its table, its place in the document, and the plain Deployment."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import kubernetes_validate
import pytest

from bench import healing
from bench.__main__ import DOCUMENT, ROOT
from bench.healing import KUBERNETES_SECONDS, Comparison, Event, Side, plain_objects
from bench.healing_figures import BEGIN, END, Healed, Outcome, render
from bench.ingress_figures import Circumstances
from bench.report import MarkersMissingError, replace_section
from devcluster.instance import Instance, Machine
from tests.cluster.healing import App, Healing
from tests.cluster.load import Request

ABOUT = Circumstances("2026-01-02", 2, 23.6, (1.25, 7.5), 40, {"Kubernetes": "1.37.2"})


def test_the_table_has_both_sides_and_says_what_did_not_heal() -> None:
    outcomes = [
        Outcome("a hang", Healed(21.4, 90, 2, 900), Healed(None, 90, 300, 700)),
        Outcome("a kill", Healed(0.0, 90, 0, 900), None),
    ]
    lines = render(outcomes, ABOUT).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| a ")]
    assert cells == [
        ["a hang", "21", "2 / 900", "not in 90", "300 / 700"],
        ["a kill", "none lost", "0 / 900", "-", "-"],
    ]
    assert "load average 1.2 at the start and 7.5 at the end" in lines[0]


def test_the_document_has_a_place_for_it() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert f"{BEGIN}\n\nthe table\n\n{END}" in replace_section(document, "the table", (BEGIN, END))
    with pytest.raises(MarkersMissingError, match="healing: begin"):
        replace_section(document.replace(BEGIN, ""), "the table", (BEGIN, END))


def test_the_plain_deployment_is_valid_and_has_kubernetes_defaults() -> None:
    objects = plain_objects("a:1", "plain.example.com")
    for each in objects:
        kubernetes_validate.validate(each, "1.37", strict=True)
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    assert {each["tolerationSeconds"] for each in spec["tolerations"]} == {KUBERNETES_SECONDS} == {300}
    (container,) = spec["containers"]
    assert not {key for key in container if key.endswith("Probe")}
    assert "topologySpreadConstraints" not in spec
    assert "PodDisruptionBudget" not in {each["kind"] for each in objects}


class Pods(Healing):
    """One pod of each of two sides: both are hit at the same time, or the hit fails."""

    def __init__(self, heals_after: float = 0.0) -> None:
        self.hits: dict[str, float] = {}
        self.deleted: list[str] = []
        self.heals_after = heals_after
        self.both = threading.Barrier(2, timeout=30)

    def ready(self, app: App) -> list[dict[str, Any]]:
        """Return the one pod, as another incarnation once it is well again."""
        hit = self.hits.get(app.name)
        if hit is not None and time.monotonic() < hit + self.heals_after:
            return []
        uid = "first" if hit is None else "second"
        return [{"metadata": {"uid": uid, "name": app.name}, "status": {}, "spec": {"nodeName": "n3"}}]

    def delete(self, pod: dict[str, Any]) -> None:
        """Replace it at once."""
        self.deleted.append(pod["metadata"]["name"])
        self.hits[pod["metadata"]["name"]] = time.monotonic()

    def hit(self, pod: dict[str, Any]) -> None:
        self.both.wait()
        self.hits[pod["metadata"]["name"]] = time.monotonic()


SIDES = [Side(App(name, name, 1), Request("http://a", name)) for name in ("ours", "plain")]


def comparing(pods: Pods) -> Comparison:
    """Return a comparison of two sides whose pods are none."""
    comparison = Comparison.__new__(Comparison)
    comparison.healing = pods
    comparison.node = Instance(0, ROOT).nodes[-1]
    comparison.struck = []
    return comparison


def test_no_side_is_charged_with_the_time_that_the_hit_of_the_other_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "HEAD_START_SECONDS", 0.0)
    pods = Pods(heals_after=0.5)
    healed = comparing(pods)._happens(Event("a hit", pods.hit), SIDES)  # pyright: ignore[reportPrivateUsage]
    assert [seconds is not None and seconds >= 0.5 for seconds in healed] == [True, True]


def test_no_side_is_charged_with_the_time_that_an_event_of_the_node_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a drain waits for the last pod, a side that is well already is seen to be."""
    monkeypatch.setattr(healing, "HEAD_START_SECONDS", 0.0)
    pods = Pods()
    looked = {side.app.name: threading.Event() for side in SIDES}

    def drain(_: Machine) -> None:
        for side in SIDES:
            pods.hits[side.app.name] = time.monotonic()
        assert all(each.wait(30) for each in looked.values()), "nobody looks before the node is empty"

    really = Healing.healed

    def seen(self: Healing, app: App, lost: set[tuple[str, int]], limit: float) -> float | None:
        seconds = really(self, app, lost, limit)
        looked[app.name].set()
        return seconds

    monkeypatch.setattr(Healing, "healed", seen)
    healed = comparing(pods)._happens(Event("a drain", node=drain), SIDES)  # pyright: ignore[reportPrivateUsage]
    assert all(seconds is not None for seconds in healed)


def nothing(*_: object) -> None: ...


def test_a_pod_that_still_hangs_is_replaced_before_the_next_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "HEAD_START_SECONDS", 0.0)
    pods = Pods()
    comparison = comparing(pods)
    ours, plain = SIDES
    monkeypatch.setattr(Comparison, "repair_node", nothing)
    comparison.ours, comparison.plain = ours, plain
    comparison.program = cast("Any", SimpleNamespace(wait_until_settled=nothing))
    # One is well again as another incarnation, the other one is as it was.
    comparison.struck = [(side, pods.ready(side.app)[0]) for side in SIDES]
    pods.hits[ours.app.name] = time.monotonic()
    comparison.settle()
    assert pods.deleted == [plain.app.name]
    assert comparison.struck == []
