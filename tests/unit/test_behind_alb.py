"""What can't be behind an ALB, each with one line."""

from typing import Any

import pytest

from tests.unit.test_bad_input import BACKEND, ENVIRONMENT, check, problems

ALB = {**ENVIRONMENT, "ingress": {"dialect": "alb", "className": "alb"}}
PAIR = {**BACKEND, "strategy": "blueGreen", "blueGreen": {"after": "both"}}


def at(host: str, path: str = "/", **fields: Any) -> dict[str, Any]:
    return {"kind": "backend", "routes": [{"host": host, "path": path}], **fields}


def test_a_pair_is_refused_only_where_weights_move_the_traffic() -> None:
    assert problems({"A": PAIR}, environment=ALB) == [
        "projects/A.yaml:blueGreen.after: both is not possible behind ALB, whose weights move once in an update: "
        "use warm in uat"
    ]
    check({"A": PAIR})
    check({"A": {**PAIR, "routes": []}}, environment=ALB)
    check({"A": {**PAIR, "environments": {"uat": {"blueGreen": {"after": "warm"}}}}}, environment=ALB)


def test_a_canary_may_have_header_and_weight() -> None:
    wish = {"A": {"tag": "2", "weight": 10, "header": "X-Canary"}}
    for environment in (ENVIRONMENT, ALB):
        check({"A": {**BACKEND, "strategy": "canary"}}, environment=environment, canaries=wish)


def test_two_projects_can_t_have_one_order() -> None:
    files = {"A": at("a", order=5), "B": at("b", order=5), "C": at("c", order=6)}
    assert problems(files, environment=ALB) == ["projects/B.yaml:order: 5 is taken by projects/A.yaml"]
    check(files)


def test_a_path_below_another_project_s_must_be_asked_first() -> None:
    files = {"front": at("shop"), "zz.Api": at("shop", "/api")}
    (line,) = problems(files, environment=ALB)
    assert line == (
        "projects/zz.Api.yaml:routes.0: shop.uat.example.com/api lies below / of projects/front.yaml, whose rules ALB "
        "asks first: give this project an `order` below 10, or that one a higher one"
    )
    check(files)
    check({**files, "zz.Api": at("shop", "/api", order=9)}, environment=ALB)
    check({**files, "front": at("shop", order=500)}, environment=ALB)


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        (at("shop"), at("other", "/api")),
        (at("shop", "/ap"), at("shop", "/api")),
        (at("shop", "/api"), at("shop", "/")),
    ],
)
def test_paths_of_another_host_or_beside_it_are_no_problem(upper: dict[str, Any], lower: dict[str, Any]) -> None:
    check({"A": upper, "B": lower}, environment=ALB)
