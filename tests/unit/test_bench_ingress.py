"""The pure parts of the ingress measurement: its table, its place in the document, and the single proxy beside ours."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.__main__ import DOCUMENT, ROOT
from bench.ingress import SINGLE, SINGLE_PORT, Comparison, lost, single_proxy
from bench.ingress_figures import BEGIN, END, Circumstances, Lost, Outcome, render
from bench.report import BEGIN as OTHER_BEGIN
from bench.report import END as OTHER_END
from bench.report import MarkersMissingError, replace_section
from devcluster.failure import SetupError
from devcluster.instance import Instance
from manifests import traefik
from model.ingress import VipIngress
from tests.cluster.ingress import NAMESPACE
from tests.cluster.load import Hit, Results
from tests.conftest import committed_stack

ABOUT = Circumstances("2026-01-02", 2, 23.6, (1.25, 7.5), 200, {"Traefik": "3.7.10"})
QUIET = Lost(0, 1000, 0.0, 0.1)


def test_the_table_has_both_sides_and_says_where_the_single_proxy_has_no_such_event() -> None:
    outcomes = [
        Outcome(
            "a crash",
            Lost(3, 1000, 0.2, 0.3),
            Lost(5, 1001, 0.4, 0.4),
            Lost(8, 2001, 0.5, 0.6),
            Lost(900, 2000, 4.5, 4.7),
        ),
        Outcome("a move", QUIET, QUIET, QUIET, None),
    ]
    lines = render(outcomes, ABOUT).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| a ")]
    assert cells == [
        ["a crash", "3 / 1000", "5 / 1001", "0.5", "0.6", "900 / 2000", "4.5", "4.7"],
        ["a move", "0 / 1000", "0 / 1000", "0.0", "0.1", "-", "-", "-"],
    ]
    assert "load average 1.2 at the start and 7.5 at the end" in lines[0]
    assert "200 requests a second" in lines[1]


def hit(second: float, code: int = 200, seconds: float = 0.0) -> Hit:
    return Hit(datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=second), code, "", "", seconds, "http://10.0.0.1/")


def test_requests_that_only_wait_are_seen_and_one_that_is_slow_alone_is_not() -> None:
    hangs = Results((hit(0), hit(1), hit(1.5, seconds=7), hit(2, seconds=6.5), hit(9)))
    assert lost(hangs) == Lost(0, 5, 0.0, 7.5)
    alone = Results((hit(0), hit(1, seconds=7), *(hit(second) for second in range(2, 9))))
    assert alone.silent_seconds == 2.0
    to_the_end = Results((hit(0), hit(1, 0), hit(5, 0)))
    assert (lost(to_the_end).seconds, lost(to_the_end).silent) == (4.0, 5.0)
    late = Results((hit(0), hit(1), hit(1.5, seconds=20)))
    assert late.silent_seconds == 1.0, "no more are sent"
    assert Results(()).silent_seconds == 0.0


def test_the_document_has_a_place_of_its_own_for_it() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    written = replace_section(document, "the table", (BEGIN, END))
    assert f"{BEGIN}\n\nthe table\n\n{END}" in written
    assert written.split(OTHER_END)[0] == document.split(OTHER_END)[0], "the other section is as before"
    assert OTHER_BEGIN in written
    with pytest.raises(MarkersMissingError, match="ingress: begin"):
        replace_section(document.replace(BEGIN, ""), "the table", (BEGIN, END))


def test_the_single_proxy_is_removed_also_when_it_or_an_event_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    comparison = Comparison.__new__(Comparison)

    def kubectl(*words: str, **_: object) -> None:
        said.append(" ".join(words[:3]))

    comparison.ingress = cast("Any", SimpleNamespace(cluster=SimpleNamespace(kubectl=kubectl)))

    def start(_: Comparison) -> None:
        said.append("started")

    monkeypatch.setattr(Comparison, "start_single", start)
    with pytest.raises(SetupError), comparison.beside_single():
        raise SetupError("an event failed")
    removed = f"delete {NAMESPACE} deployment/{SINGLE}"
    assert said == ["started", removed]

    def no_start(_: Comparison) -> None:
        raise SetupError("it does not serve")

    monkeypatch.setattr(Comparison, "start_single", no_start)
    with pytest.raises(SetupError), comparison.beside_single():
        pass
    assert said == ["started", removed, removed]


def test_the_single_proxy_serves_the_same_with_nothing_that_ours_has_against_losses() -> None:
    environment = committed_stack("test").environment
    assert isinstance(environment.ingress.ha, VipIngress)
    ours = traefik.daemon_set(environment, environment.ingress.ha)
    node = Instance(0, ROOT).nodes[-1]
    single = single_proxy(ours, node)
    spec = single["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (own,) = ours["spec"]["template"]["spec"]["containers"]
    assert single["spec"]["replicas"] == 1
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": node.name}
    assert container["image"] == own["image"]
    assert spec["automountServiceAccountToken"], "it has to read the Ingresses"
    assert container["ports"][0]["hostPort"] == SINGLE_PORT
    assert f"--entrypoints.web.address=:{SINGLE_PORT}" in container["args"]
    assert "--providers.kubernetesingressnginx.ingressclass=nginx" in container["args"]
    left_out = {each.split("=")[0].removeprefix("--") for each in set(own["args"]) - set(container["args"])}
    assert {
        "entrypoints.web.http.middlewares",
        "entrypoints.web.transport.lifecycle.gracetimeout",
        "entrypoints.web.transport.lifecycle.requestacceptgracetimeout",
        "providers.kubernetesingressnginx.proxynextupstreamtries",
    } <= left_out
    assert "providers.kubernetesingressnginx" not in left_out
