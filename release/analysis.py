"""Is a canary good enough? The rule by which its automatic steps go on or end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from release.metrics import Figures

Verdict = Literal["good", "broken", "scarce"]
PAUSE_SECONDS = 60.0
"""How long a step is watched where nothing else is said."""


@dataclass(frozen=True)
class Rule:
    """What a canary must keep to.

    Args:
        max_error_rate: Largest share of answers with 5xx, 0 to 1.
        max_p99: Seconds that 99 of 100 requests may take at most; None for any.
        min_requests: With fewer requests to the canary nothing is judged.
    """

    max_error_rate: float = 0.01
    max_p99: float | None = None
    min_requests: int = 20

    def facts(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "maxErrorRate": self.max_error_rate,
            "maxP99Seconds": self.max_p99,
            "minRequests": self.min_requests,
        }


@dataclass(frozen=True)
class Judgement:
    """What was found.

    Args:
        verdict: ``scarce``: there were too few requests to judge.
        reason: Why, for a person; empty when it is good.
    """

    verdict: Verdict
    reason: str = ""


def judge(canary: Figures, rule: Rule) -> Judgement:
    """Judge what a canary did in a whole window.

    Args:
        canary: Its figures.
        rule: What it must keep to.
    """
    if canary.requests < max(1, rule.min_requests):
        few = f"{canary.requests:.0f} requests to the canary are too few to judge by, {rule.min_requests} are needed"
        return Judgement("scarce", few)
    if canary.error_rate > rule.max_error_rate:
        return _too_many_errors(canary, rule)
    p99 = canary.p99
    if rule.max_p99 is not None and p99 is None:
        return Judgement("scarce", "the proxy counts requests, but not how long they take")
    if rule.max_p99 is not None and p99 is not None and (p99 > rule.max_p99 or canary.beyond):
        more = "more than " if canary.beyond else ""
        return Judgement("broken", f"p99 {more}{milliseconds(p99)}, the limit is {milliseconds(rule.max_p99)}")
    return Judgement("good")


def lost_already(canary: Figures, rule: Rule, passed: float) -> Judgement | None:
    """Tell, in the middle of a window, whether it can't end well: even if no more requests failed.

    Args:
        canary: Its figures so far.
        rule: What it must keep to.
        passed: The share of the window that is over; the rest is taken to bring requests at the same pace.

    Returns:
        None while it can.
    """
    if canary.requests < max(1, rule.min_requests) or passed <= 0:
        return None
    expected = canary.requests / min(1.0, passed)
    if canary.errors <= rule.max_error_rate * expected:
        return None
    return _too_many_errors(canary, rule)


def told(figures: Figures) -> str:
    """Return figures for a person."""
    p99 = figures.p99
    slow = "no p99" if p99 is None else f"p99 {'over ' if figures.beyond else ''}{milliseconds(p99)}"
    return f"{figures.requests:.0f} requests, {_percent(figures.error_rate)} errors, {slow}"


def facts(figures: Figures) -> dict[str, Any]:
    """Return figures for a program."""
    p99 = figures.p99
    return {
        "requests": round(figures.requests),
        "errors": round(figures.errors),
        "errorRate": round(figures.error_rate, 6),
        "p99Seconds": None if p99 is None else round(p99, 4),
        "p99Beyond": figures.beyond,
    }


def _too_many_errors(canary: Figures, rule: Rule) -> Judgement:
    limit = _percent(rule.max_error_rate)
    return Judgement("broken", f"error rate {_percent(canary.error_rate)}, the limit is {limit}")


def milliseconds(seconds: float) -> str:
    """Return a time for a person."""
    return f"{seconds * 1000:.0f} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.2f}".rstrip("0").rstrip(".") + "%"
