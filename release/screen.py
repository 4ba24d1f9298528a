"""What a person sees: progress on standard error, the result on standard output.

On a terminal the pods of the release are a small table that is drawn anew; elsewhere (Jenkins) every change is a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from release.diagnosis import PodLine

LOG_SECONDS = 15.0


class Screen:
    """Tells a person what happens; a program gets one JSON object at the end."""

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        """Prepare it.

        Args:
            as_json: Results are JSON.
            quiet: No progress.
            out: Where results go; standard output unless told.
            err: Where progress goes; standard error unless told.
        """
        self.as_json = as_json
        self._quiet = quiet
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._started = time.monotonic()
        self._pods: dict[str, PodLine] = {}
        self._live: Live | None = None
        self._waiting: tuple[str, float] = ("", 0.0)
        self._progressed = -LOG_SECONDS

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self._started

    def line(self, text: str) -> None:
        """Tell something that has happened, with the time since the command began."""
        if not self._quiet:
            first, *rest = text.splitlines() or [""]
            self._write("\n".join([f"{self.seconds:6.1f} s  {first}", *(f"{'':10}{each}" for each in rest)]))

    def waiting(self, text: str) -> None:
        """Tell what is waited for: at once, and again every 15 s."""
        told, at = self._waiting
        if told != text or time.monotonic() - at >= LOG_SECONDS:
            self._waiting = (text, time.monotonic())
            self.line(text)

    def progress(self, text: str) -> None:
        """Tell how something goes on: drawn anew on a terminal, elsewhere a line every 15 s."""
        if self._quiet:
            return
        if self._err.isatty():
            self._show(Text(f"{self.seconds:6.1f} s  {text}"))
        elif time.monotonic() - self._progressed >= LOG_SECONDS:
            self._progressed = time.monotonic()
            self.line(text)

    def pods(self, pods: Sequence[PodLine]) -> None:
        """Show the pods of the release that is being made."""
        if self._quiet:
            return
        changed = [pod for pod in pods if self._pods.get(pod.name) != pod]
        self._pods = {pod.name: pod for pod in pods}
        if self._err.isatty():
            self._draw()
            return
        for pod in changed:
            self.line(f"pod {pod.name}{f' on {pod.node}' if pod.node else ''}: {pod.state}")

    def settle(self) -> None:
        """End the table; what it shows last stays."""
        if self._live:
            self._live.stop()
            self._live = None
        self._pods = {}

    def result(self, lines: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Give the command's answer.

        Args:
            lines: For a person.
            facts: The same for a program.
        """
        self.text(json.dumps(facts, indent=2, ensure_ascii=False) if self.as_json else "\n".join(lines))

    def text(self, text: str) -> None:
        """Give an answer as it is."""
        self.settle()
        self._give(self._out, text if text.endswith("\n") else f"{text}\n")

    def _write(self, text: str) -> None:
        if self._live:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._give(self._err, f"{text}\n")

    @staticmethod
    def _give(stream: TextIO, text: str) -> None:
        """Write; that nobody reads any longer must not end a change, nor make a failure of what is done."""
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):  # one of a test has no descriptor
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def _draw(self) -> None:
        table = Table(box=None, show_header=False, padding=(0, 2))
        for pod in self._pods.values():
            table.add_row("", pod.name, pod.node, pod.state, style="green" if pod.ready else "yellow")
        self._show(table)

    def _show(self, drawing: RenderableType) -> None:
        if self._live is None:
            self._live = Live(drawing, console=Console(file=self._err), refresh_per_second=4)
            self._live.start()
        self._live.update(drawing)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
