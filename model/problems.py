"""Bad input, collected: every problem of every file at once, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with the input.

    Attributes:
        file: The file as the user knows it, relative to the program (``projects/packet.yaml``).
        field: Dotted path of the field (``routes.0.path``), empty when it is about the whole file.
        message: What is wrong and what is allowed, in one line.
    """

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.field}" if self.field else self.file
        return f"{where}: {self.message}"


class SettingsError(Exception):
    """The input is unusable; carries all its problems, sorted by file and field."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the allowed word most like ``word``, or an empty string."""
    by_folded = {candidate.casefold(): candidate for candidate in allowed if candidate != word}
    found = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[found[0]]!r}?" if found else ""


def several(problems: Mapping[str, Sequence[str]]) -> ValidationError:
    """Return what a model's own validator raises to tell all that is wrong at once.

    Args:
        problems: Field, empty for the model as a whole → a message for each problem.
    """
    details = [
        InitErrorDetails(
            type=PydanticCustomError("value_error", "{text}", {"text": text}),
            loc=(field,) if field else (),
            input=None,
        )
        for field, messages in problems.items()
        for text in messages
    ]
    return ValidationError.from_exception_data("several", details)


def from_validation(  # noqa: PLR0913 - how to tell it
    file: str,
    error: ValidationError,
    *,
    prefix: str = "",
    known: Sequence[str] = (),
    skip_first: bool = False,
    secret: Sequence[str] = (),
) -> list[Problem]:
    """Turn pydantic's findings into problems.

    Args:
        file: The file that was read.
        error: What pydantic found.
        prefix: Put before each field path as it is, for input that is a part of a larger file.
        known: Field names that a user may have meant, for suggestions on unknown keys.
        skip_first: Leave out the first part of each path, which for a tagged union is the tag.
        secret: First parts of paths below which no value may be shown.
    """
    return [
        Problem(
            file,
            prefix + ".".join(_path(details, skip_first)),
            _message(details, known, shown=not details["loc"] or details["loc"][0] not in secret),
        )
        for details in error.errors()
    ]


def _path(details: ErrorDetails, skip_first: bool) -> list[str]:  # noqa: FBT001 - private
    parts = details["loc"][1:] if skip_first else details["loc"]
    return [str(part) for part in parts if part != "[key]"]


def _message(details: ErrorDetails, known: Sequence[str], *, shown: bool) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        key = str(details["loc"][-1])
        return f"unknown key{nearest(key, known)}"
    if kind == "missing":
        return "is required"
    if kind in {"value_error", "assertion_error"}:
        return str(details.get("ctx", {}).get("error", details["msg"]))
    hidden = isinstance(details["input"], dict | list) or not shown
    given = "" if hidden else f" (got {_shown(cast('object', details['input']))})"
    text = details["msg"]
    return f"{text[0].lower()}{text[1:]}{given}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - one line of a terminal
