"""What people write on the command line, as numbers: times, percentages, the weights of steps. Pure."""

from __future__ import annotations

import itertools
import re

import typer

_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%\Z")
_WHOLE = 100


def seconds(text: str) -> float:
    """Return a time in seconds: ``500ms``, ``60s``, ``5m``, ``1h``.

    Raises:
        typer.BadParameter: If it is none, or 0.
    """
    found = _TIME.match(text)
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no time: a number above 0 with ms, s, m or h, such as 500ms or 60s")
    return float(found[1]) * _SECONDS[found[2]]


def share(text: str) -> float:
    """Return a percentage as a share of 1: ``1%``, ``0.5%``.

    Raises:
        typer.BadParameter: If it is none from 0% to 100%.
    """
    found = _SHARE.match(text)
    if not found or float(found[1]) > _WHOLE:
        raise typer.BadParameter(f"{text!r} is no percentage from 0% to 100%, such as 1% or 0.5%")
    return float(found[1]) / _WHOLE


def weights(text: str) -> tuple[int, ...]:
    """Return the weights of a canary's steps: ``5,25,50,100``.

    Raises:
        typer.BadParameter: If they don't rise from 1 or more to 100 at most, or there is none below 100.
    """
    parts = [part.strip() for part in text.split(",")]
    found = tuple(int(part) for part in parts if part.isascii() and part.isdigit())
    rising = all(low < high for low, high in itertools.pairwise(found))
    if len(found) != len(parts) or not rising or not 1 <= found[0] < _WHOLE or found[-1] > _WHOLE:
        raise typer.BadParameter(
            f"--steps {text}: whole percentages that rise are allowed, the first below 100, such as 5,25,50,100"
        )
    return found
