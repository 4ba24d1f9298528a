"""What the ingress counted of a canary, and the rule by which it goes on or ends."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release.analysis import Judgement, Rule, judge, lost_already, told
from release.metrics import (
    REQUESTS,
    Figures,
    Key,
    Reading,
    UnreadableMetricsError,
    Window,
    growth,
    parse,
    quantile,
    service_names,
)

NAMES = service_names("package-test", "sjzy-package-api")
STABLE = "package-test-sjzy-package-api-sjzy-package-api-http"
# As Traefik 3.7 writes it.
PAGE = f"""# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79549312345e+09
# TYPE traefik_service_request_duration_seconds histogram
traefik_service_request_duration_seconds_bucket{{code="200",method="GET",protocol="http",service="{STABLE}@kubernetesingressnginx",le="0.1"}} 90
traefik_service_request_duration_seconds_bucket{{code="200",method="GET",protocol="http",service="{STABLE}@kubernetesingressnginx",le="+Inf"}} 100
traefik_service_request_duration_seconds_sum{{code="200",method="GET",protocol="http",service="{STABLE}@kubernetesingressnginx"}} 4.2
traefik_service_requests_bytes_total{{code="200",method="GET",protocol="http",service="{STABLE}@kubernetesingressnginx"}} 1e+06
traefik_service_requests_total{{code="200",method="GET",protocol="http",service="{STABLE}@kubernetesingressnginx"}} 100
traefik_service_requests_total{{code="200",method="POST",protocol="http",service="{STABLE}-canary@kubernetesingressnginx"}} 7
traefik_service_requests_total{{code="503",method="GET",protocol="http",service="{STABLE}-canary@kubernetesingressnginx"}} 3
traefik_service_requests_total{{code="200",method="GET",protocol="http",service="package-test-packet-packet-http@kubernetesingressnginx"}} 9
traefik_service_requests_total{{code="200",method="GET",protocol="http",service="package-uat-sjzy-package-api-sjzy-package-api-http@kubernetesingressnginx"}} 9
"""  # noqa: E501


def reading(started: float = 1.0, **codes: float) -> Reading:
    """Return what a proxy counted of the canary, by status."""
    return Reading(started, {((REQUESTS, "canary", code[1:]), code): value for code, value in codes.items()})


def test_the_two_versions_of_one_project_are_read_and_no_others() -> None:
    found = parse(PAGE, NAMES)
    assert found.started == 1795493123.45
    window = Window()
    window.take({"proxy": Reading(found.started, {})})
    window.take({"proxy": found})
    assert window.figures("stable") == Figures(100, 0, {0.1: 90, math.inf: 100})
    assert window.figures("canary") == Figures(10, 3, {})


def test_names_are_written_as_the_proxy_does() -> None:
    assert service_names("a", "x")["a-x-x-http"] == "stable"
    assert service_names("a", "x")["a-x-x-http-canary"] == "canary"


@pytest.mark.parametrize(
    "line",
    [
        f"{REQUESTS}",
        f'{REQUESTS}{{code="200",service="{STABLE}"}} many',
        f'{REQUESTS}{{code="200" service="{STABLE}"}} 1',
        f'{REQUESTS}{{service="{STABLE}"}} 1',
    ],
)
def test_a_line_that_matters_and_is_not_readable_is_an_error(line: str) -> None:
    with pytest.raises(UnreadableMetricsError):
        parse(line, NAMES)


def test_escaped_labels_and_times_are_read() -> None:
    line = f'{REQUESTS}{{ code = "200", method="a\\"b\\\\,}}\\n", service="{STABLE}@x", }} 5 1795493123000'
    ((series, value),) = parse(line, NAMES).values.items()
    assert (series[0], value) == ((REQUESTS, "stable", "200"), 5.0)
    assert 'method=a"b\\,}\n' in series[1]


def test_all_proxies_are_added_up_and_only_since_the_first_look() -> None:
    window = Window()
    window.take({"one": reading(c200=100), "two": reading(c200=50, c500=9), "silent": None})
    window.take({"one": reading(c200=110), "two": reading(c200=50, c500=10), "silent": reading(c200=1000)})
    window.take({"one": reading(c200=110), "silent": reading(c200=1001), "new": reading(c200=4)})
    figures = window.figures("canary")
    assert (figures.requests, figures.errors) == (10 + 1 + 1 + 4, 1)


def test_a_look_that_found_no_proxy_is_not_the_first() -> None:
    window = Window()
    window.take({})
    window.take({"one": reading(c200=1000)})
    assert window.figures("canary").requests == 0


def test_another_process_counts_from_0_though_its_figure_is_higher() -> None:
    assert growth(reading(1.0, c200=5), reading(2.0, c200=9)) == {(REQUESTS, "canary", "200"): 9}
    assert growth(reading(1.0, c200=5), reading(1.0, c200=9)) == {(REQUESTS, "canary", "200"): 4}
    assert growth(reading(1.0, c200=5), reading(1.0, c200=3)) == {(REQUESTS, "canary", "200"): 3}


Event = tuple[str, str, int]
EVENTS = st.lists(
    st.tuples(st.sampled_from(["count", "look", "restart"]), st.sampled_from(["one", "two"]), st.integers(0, 50))
)


@given(EVENTS)
def test_what_is_counted_is_what_happened_but_for_what_a_restart_took_unseen(events: list[Event]) -> None:
    """Whatever is counted, looked at and restarted in whatever order: never too much, and only the unseen is lost."""
    counters, started = {"one": 7, "two": 0}, {"one": 1.0, "two": 1.0}
    unseen = {"one": 0, "two": 0}
    window, happened, lost = Window(), 0, 0

    def look() -> None:
        window.take({name: reading(started[name], c200=value) for name, value in counters.items()})
        unseen.update(one=0, two=0)

    look()
    for kind, name, count in events:
        if kind == "count":
            counters[name] += count
            unseen[name] += count
            happened += count
        elif kind == "restart":
            lost += unseen[name]
            counters[name], unseen[name] = 0, 0
            started[name] += 1
        else:
            look()
    look()
    assert window.figures("canary").requests == happened - lost


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, {1.0: 10, 2.0: 20, math.inf: 20}, 1.0),
        (0.75, {1.0: 10, 2.0: 20, math.inf: 20}, 1.5),
        (0.25, {1.0: 10, 2.0: 20, math.inf: 20}, 0.5),
        (0.99, {0.1: 90, 0.3: 100, math.inf: 100}, 0.28),
        (0.99, {0.1: 90, 0.3: 95, math.inf: 100}, 0.3),
        (0.5, {0.1: 0, 0.3: 0, 1.0: 4, math.inf: 4}, 0.65),
        (0.5, {}, None),
        (0.5, {1.0: 0, math.inf: 0}, None),
        (0.5, {math.inf: 5}, None),
    ],
)
def test_a_quantile_is_that_of_prometheus(share: float, buckets: Mapping[float, float], expected: float | None) -> None:
    found = quantile(share, buckets)
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, 100), min_size=2, max_size=8), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_where_its_rank_falls(counts: list[int], share: float) -> None:
    bounds = [*(float(number + 1) for number in range(len(counts) - 1)), math.inf]
    buckets = {bound: float(sum(counts[: index + 1])) for index, bound in enumerate(bounds)}
    found = quantile(share, buckets)
    if not sum(counts):
        assert found is None
        return
    assert found is not None
    rank = share * sum(counts)
    upper = next(bound for bound in bounds if buckets[bound] >= rank)
    assert found <= upper
    assert found >= bounds[bounds.index(upper) - 1] if upper != bounds[0] else found >= 0


def figures(requests: float, errors: float = 0, slow: float = 0) -> Figures:
    """Return figures of requests that took 0.1 s at most, some of them up to 1 s."""
    return Figures(requests, errors, {0.1: requests - slow, 1.0: requests, math.inf: requests})


RULE = Rule(max_error_rate=0.01, max_p99=0.5, min_requests=20)


@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        (figures(1000, 10), Judgement("good")),
        (figures(1000, 11), Judgement("broken", "error rate 1.1%, the limit is 1%")),
        (figures(1000, 0, 200), Judgement("broken", "p99 955 ms, the limit is 500 ms")),
        (figures(19, 19), Judgement("scarce", "19 requests to the canary are too few to judge by, 20 are needed")),
        (figures(20), Judgement("good")),
        (Figures(), Judgement("scarce", "0 requests to the canary are too few to judge by, 20 are needed")),
        (Figures(100), Judgement("scarce", "the proxy counts requests, but not how long they take")),
    ],
)
def test_the_rule(canary: Figures, expected: Judgement) -> None:
    assert judge(canary, RULE) == expected


def test_a_limit_beyond_what_the_proxy_can_tell_is_no_leave() -> None:
    canary = Figures(100, 0, {1.0: 90.0, math.inf: 100.0})
    assert judge(canary, Rule(0.0, max_p99=5.0)).verdict == "broken"
    assert told(canary) == "100 requests, 0% errors, p99 over 1000 ms"


def test_without_a_limit_of_time_none_is_needed() -> None:
    assert judge(figures(100, 0, 100), Rule(0.01)) == Judgement("good")


def test_a_window_ends_early_only_when_it_can_not_end_well() -> None:
    assert lost_already(figures(100, 5), RULE, 0.1) is None, "1000 requests may follow, of which 10 may fail"
    lost = lost_already(figures(100, 11), RULE, 0.1)
    assert lost == Judgement("broken", "error rate 11%, the limit is 1%")
    assert lost_already(figures(19, 19), RULE, 0.9) is None


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.01, 1.0), st.floats(0, 1))
def test_what_is_given_up_early_would_not_have_ended_well(
    requests: int, errors: int, passed: float, limit: float
) -> None:
    errors = min(errors, requests)
    rule = Rule(limit, min_requests=1)
    if lost_already(figures(requests, errors), rule, passed):
        whole = math.floor(requests / passed)
        assert judge(figures(max(whole, requests), errors), rule).verdict == "broken"


def test_series_of_one_status_are_added_up() -> None:
    key: Key = (REQUESTS, "canary", "200")
    after = Reading(1.0, {(key, "GET"): 5.0, (key, "POST"): 2.0})
    assert growth(Reading(1.0, {(key, "GET"): 4.0}), after) == {key: 3.0}
