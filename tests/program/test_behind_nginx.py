"""The order of a project's resources behind nginx: the Service moves the traffic, and an Ingress a canary's part."""

from typing import Any

import pytest

from model.plan import CanaryWish
from tests.program.conftest import Order
from tests.program.test_behind_alb import ran, release
from tests.program.test_library import ENVIRONMENT


@pytest.mark.parametrize("kind", ["backend", "frontend"])
@pytest.mark.parametrize(("strategy", "live"), [("rolling", "X-main"), ("blueGreen", "X-green"), ("canary", "X-main")])
def test_the_traffic_moves_when_the_pods_are_ready(order: Order, kind: str, strategy: str, live: str) -> None:
    before = ran("1", environment=ENVIRONMENT, kind=kind, strategy=strategy)
    order.waits.clear()
    release("2", before, environment=ENVIRONMENT, kind=kind, strategy=strategy)
    assert order.after("Service X", f"Deployment {live}"), "the record is written last"
    assert order.after("Ingress X", "Service X")


def test_a_canary_gets_its_part_when_it_is_ready(order: Order) -> None:
    before = ran("1", environment=ENVIRONMENT, strategy="canary")
    order.waits.clear()
    wish = CanaryWish(tag="2", weight=10)
    recording = release("1", before, environment=ENVIRONMENT, strategy="canary", canary=wish)
    assert order.after("Ingress X-canary", "Deployment X-canary")
    assert order.after("Ingress X-canary", "Service X")
    assert not order.after("Service X", "Deployment X-canary"), "what serves needs no canary"
    assert [each.name for each in recording.of("Ingress")] == ["X", "X-canary"]


def test_the_second_half_of_a_pair_is_touched_when_the_first_has_the_traffic(order: Order) -> None:
    pair: dict[str, Any] = {"strategy": "blueGreen", "blueGreen": {"after": "both"}}
    before = ran("1", environment=ENVIRONMENT, **pair)
    order.waits.clear()
    release("2", before, environment=ENVIRONMENT, **pair)
    assert order.after("Service X", "Deployment X-green")
    assert order.after("Deployment X-blue", "Service X")
