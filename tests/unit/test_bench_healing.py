"""The pure parts of the measurement of healing: its table, its place in the document, and the plain Deployment."""

import kubernetes_validate
import pytest

from bench.__main__ import DOCUMENT
from bench.healing import KUBERNETES_SECONDS, plain_objects
from bench.healing_figures import BEGIN, END, Healed, Outcome, render
from bench.ingress_figures import Circumstances
from bench.report import MarkersMissingError, replace_section

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
