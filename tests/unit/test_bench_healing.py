"""The pure parts of the measurement of healing: its table, its place in the document, and the plain Deployment."""

import threading
import time
from typing import Any

import kubernetes_validate
import pytest

from bench import healing
from bench.__main__ import DOCUMENT, ROOT
from bench.healing import KUBERNETES_SECONDS, Comparison, Event, Side, plain_objects
from bench.healing_figures import BEGIN, END, Healed, Outcome, render
from bench.ingress_figures import Circumstances
from bench.report import MarkersMissingError, replace_section
from devcluster.instance import Instance
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

    def __init__(self, heals_after: float) -> None:
        self.hits: dict[str, float] = {}
        self.heals_after = heals_after
        self.both = threading.Barrier(2, timeout=30)

    def ready(self, app: App) -> list[dict[str, Any]]:
        """Return the one pod, as another incarnation once it is well again."""
        hit = self.hits.get(app.name)
        if hit is not None and time.monotonic() < hit + self.heals_after:
            return []
        uid = "first" if hit is None else "second"
        return [{"metadata": {"uid": uid, "name": app.name}, "status": {}, "spec": {"nodeName": "n3"}}]

    def hit(self, pod: dict[str, Any]) -> None:
        self.both.wait()
        self.hits[pod["metadata"]["name"]] = time.monotonic()


def test_no_side_is_charged_with_the_time_that_the_hit_of_the_other_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "HEAD_START_SECONDS", 0.0)
    pods = Pods(heals_after=0.5)
    comparison = Comparison.__new__(Comparison)
    comparison.healing = pods
    comparison.node = Instance(0, ROOT).nodes[-1]
    sides = [Side(App(name, name, 1), Request("http://a", name)) for name in ("ours", "plain")]
    healed = comparison._happens(Event("a hit", pods.hit), sides)  # pyright: ignore[reportPrivateUsage]
    assert [seconds is not None and seconds >= 0.5 for seconds in healed] == [True, True]
