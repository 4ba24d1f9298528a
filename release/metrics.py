"""What a proxy counted of a project's two versions, from the text of its Prometheus metrics. Pure.

The proxy on the VMs is Traefik, whose provider for the nginx annotations names a service ``<namespace>-<Ingress>-
<Service>-<port>``, and the canary that an Ingress is matched with ``<that>-canary`` (``buildServiceWithLocConfig`` in
``pkg/provider/kubernetes/ingress-nginx`` of 3.7). The label has ``@<provider>`` behind it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from model.names import slot_service_name

Version = Literal["stable", "canary"]
Key = tuple[str, Version, str]
"""Metric, version, and the value of the label that it is counted by (``code`` or ``le``), of one series or several."""

REQUESTS = "traefik_service_requests_total"
DURATIONS = "traefik_service_request_duration_seconds_bucket"
STARTED = "process_start_time_seconds"
_COUNTED_BY = {REQUESTS: "code", DURATIONS: "le"}
_PORT = "http"
"""Name of the port of every Service of ours."""
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*\Z")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|\Z)')
_ESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


class UnreadableMetricsError(ValueError):
    """A text that is no Prometheus exposition."""


@dataclass(frozen=True)
class Reading:
    """What one proxy counted up to a moment.

    Args:
        started: When its process started (seconds since 1970): with another one, it counts from 0 again.
        values: Every series of the two versions.
    """

    started: float
    values: Mapping[tuple[Key, str], float]


@dataclass(frozen=True)
class Figures:
    """What one version did in a window.

    Args:
        requests: How many there were.
        errors: How many of them were answered with 5xx.
        buckets: Upper bound in seconds → requests that took no longer, all bounds, the last one infinite.
    """

    requests: float = 0.0
    errors: float = 0.0
    buckets: Mapping[float, float] = field(default_factory=dict[float, float])

    @property
    def error_rate(self) -> float:
        """Share of 5xx; 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def p99(self) -> float | None:
        """Seconds that 99 of 100 requests did not exceed, None without requests; see ``quantile``."""
        return quantile(0.99, self.buckets)

    @property
    def beyond(self) -> bool:
        """Whether ``p99`` is only known to be longer than the last bound that there is."""
        total = max(self.buckets.values(), default=0.0)
        below = max((count for bound, count in self.buckets.items() if math.isfinite(bound)), default=0.0)
        return 0.99 * total > below


@dataclass
class Window:
    """Adds up what all proxies counted since the first look; later looks may come at any pace."""

    _last: dict[str, Reading] = field(default_factory=dict[str, Reading], init=False)
    _first: frozenset[str] | None = field(default=None, init=False)
    _grown: dict[Key, float] = field(default_factory=dict[Key, float], init=False)

    def take(self, readings: Mapping[str, Reading | None]) -> None:
        """Take in a look at all proxies.

        Args:
            readings: A proxy's unique id → what it counted; None where it did not answer. A proxy that was not there
                at the first look counts from 0; one that was, and did not answer then, from its first answer.
        """
        if self._first is None and readings:
            self._first = frozenset(readings)
        for proxy, reading in readings.items():
            if reading is None:
                continue
            if proxy in self._last:
                self._add(growth(self._last[proxy], reading))
            elif self._first is not None and proxy not in self._first:
                self._add(growth(None, reading))
            self._last[proxy] = reading

    def figures(self, version: Version) -> Figures:
        """Return what one version did so far."""
        counted = {key: value for key, value in self._grown.items() if key[1] == version}
        by_code = {code: value for (metric, _, code), value in counted.items() if metric == REQUESTS}
        return Figures(
            requests=sum(by_code.values()),
            errors=sum(value for code, value in by_code.items() if len(code) == len("500") and code[0] == "5"),
            buckets={float(bound): value for (metric, _, bound), value in counted.items() if metric == DURATIONS},
        )

    def _add(self, grown: Mapping[Key, float]) -> None:
        for key, value in grown.items():
            self._grown[key] = self._grown.get(key, 0.0) + value


def growth(before: Reading | None, after: Reading) -> dict[Key, float]:
    """Return what was counted between two readings of one proxy.

    A series that was not there, or that is lower than it was, began at 0 in between, as Prometheus' ``increase`` takes
    it; so did all of a process that is another one.

    Args:
        before: The earlier reading; None to count from 0.
        after: The later one.
    """
    same = before is not None and before.started == after.started
    grown: dict[Key, float] = {}
    for series, value in after.values.items():
        was = before.values.get(series, 0.0) if before and same else 0.0
        key = series[0]
        grown[key] = grown.get(key, 0.0) + (value - was if value >= was else value)
    return grown


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Return the value that a share of all observations does not exceed, as Prometheus' ``histogram_quantile`` does.

    Within a bucket it goes linearly from its lower bound to its upper one. Where it falls into the last bucket, which
    has no upper bound, the highest bound that there is is the answer.
    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile

    Args:
        share: From 0 to 1.
        buckets: Upper bound → observations up to it.

    Returns:
        None where nothing was observed, or there is no finite bound.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]] or not math.isfinite(bounds[0]):
        return None
    rank, lower, below = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if not math.isfinite(bound):
            return lower
        if buckets[bound] >= rank and buckets[bound] > below:
            return lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
        lower, below = bound, max(below, buckets[bound])
    return lower


def service_names(namespace: str, name: str) -> dict[str, Version]:
    """Return the names under which the proxy counts a project's two versions, without ``@<provider>``.

    Args:
        namespace: Of the project.
        name: The project's name in Kubernetes, which is also that of its Ingress and of its Service.
    """
    canary = slot_service_name(name, "canary")
    stable = _normalized(f"{namespace}-{name}-{name}-{_PORT}")
    return {
        stable: "stable",
        f"{stable}-canary": "canary",
        # As the provider names the canary's backend by itself.
        _normalized(f"{namespace}-{canary}-{_PORT}"): "canary",
        _normalized(f"{namespace}-{canary}-{canary}-{_PORT}"): "canary",
    }


def _normalized(name: str) -> str:
    """Return a name as Traefik writes it: only letters, digits, and single ``-`` (``provider.Normalize``)."""
    return re.sub(r"[\W_]+", "-", name).strip("-")


def parse(text: str, names: Mapping[str, Version]) -> Reading:
    """Return what a proxy's metrics say of two versions.

    https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format

    Args:
        text: The whole page.
        names: As ``service_names`` returns them.

    Raises:
        UnreadableMetricsError: If a line that matters is not readable.
    """
    started, values = 0.0, dict[tuple[Key, str], float]()
    for line in text.splitlines():
        if line.startswith(STARTED):
            started = _sample(line)[2]
        if not line.startswith(tuple(_COUNTED_BY)):
            continue
        metric, labels, value = _sample(line)
        version = names.get(labels.get("service", "").partition("@")[0])
        by = _COUNTED_BY.get(metric)
        if version and by:
            if by not in labels:
                raise UnreadableMetricsError(f"{metric} has no label {by}: {line[:200]}")
            rest = ",".join(f"{label}={each}" for label, each in sorted(labels.items()))
            values[(metric, version, labels[by]), rest] = value
    return Reading(started, values)


def _sample(line: str) -> tuple[str, dict[str, str], float]:
    found = _SAMPLE.match(line)
    if not found:
        raise UnreadableMetricsError(f"no metric: {line[:200]}")
    name, labels, value = found.groups()
    try:
        return name, dict(_labels((labels or "").strip())), float(value)
    except ValueError:
        raise UnreadableMetricsError(f"no metric: {line[:200]}") from None


def _labels(text: str) -> Iterable[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _LABEL.match(text, at)
        if not found:
            raise ValueError(text)
        yield found[1], re.sub(r"\\.", lambda each: _ESCAPED.get(each[0], each[0]), found[2])
        at = found.end()
