"""What a command that brings a server in order tells: a line for each thing, or one JSON document at the end."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Self

import typer

from pipeline.errors import PipelineError


class Told:
    """Takes what is changed and what is right already; a dry run only says what would be changed."""

    def __init__(self, *, dry_run: bool, as_json: bool = False) -> None:
        """Prepare it.

        Args:
            dry_run: Whether nothing is changed.
            as_json: Whether a program reads it.
        """
        self.dry_run = dry_run
        self._as_json = as_json
        self._changes: list[dict[str, str]] = []
        self._right: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the document, also of a run that failed half way; its errors are on standard error, too."""
        if self._as_json and (error is None or isinstance(error, PipelineError)):
            errors = error.lines if error else ()
            facts = {"dryRun": self.dry_run, "changes": self._changes, "right": self._right, "errors": errors}
            typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))

    def change(self, name: str, text: str) -> None:
        """Tell what is changed, or would be."""
        self._changes.append({"name": name, "change": text})
        self.line(f"{name}: {'(dry run) ' if self.dry_run else ''}{text}")

    def right(self, name: str, text: str = "is right") -> None:
        """Tell what needs no change."""
        self._right.append(name)
        self.line(f"{name}: {text}")

    def line(self, text: str) -> None:
        """Tell a person something."""
        if not self._as_json:
            typer.echo(text)
