"""Progress on standard error: every step with its title, its seconds, and a sign of life while it lasts.

Standard output stays free for what a command answers (`status --json`, `env`).
"""

import contextlib
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TextIO

TERMINAL_TICK_SECONDS = 1.0
LOG_TICK_SECONDS = 15.0


@dataclass(frozen=True)
class StepTime:
    """One finished step."""

    title: str
    seconds: float
    failed: bool


class Progress:
    """Times named steps and tells about them while they run.

    On a terminal the running step is one line that is rewritten every second; elsewhere (a log file, CI) it
    is a line at the start, one every 15 s, and one at the end.

    Args:
        stream: where to write; standard error unless told.
        quiet: time the steps, print nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._lock = threading.Lock()
        self._open: list[str] = []
        self._note = ""
        self.times: list[StepTime] = []

    @contextlib.contextmanager
    def step(self, title: str) -> Generator[None]:
        """Run the body as the step `title`; its seconds are printed and kept, also when it raises.

        Steps may be nested: the table shows an inner step under its outer one's title ("outer: inner").
        """
        full_title = ": ".join([*self._open, title])
        self._open.append(title)
        self._note = ""
        started = time.monotonic()
        stop = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(full_title, started, stop), daemon=True)
        ticker.start()
        failed = True
        try:
            yield
            failed = False
        finally:
            stop.set()
            ticker.join()
            self._open.pop()
            seconds = time.monotonic() - started
            self.times.append(StepTime(full_title, seconds, failed))
            self._line(f"{'FAILED' if failed else 'done':>6} {seconds:7.1f} s  {full_title}", final=True)

    def note(self, text: str) -> None:
        """Say what the running step waits for; shown with its next sign of life."""
        self._note = text

    def table(self) -> str:
        """Return the finished steps with their seconds, one a line, and their total.

        Inner steps are part of their outer one, so only outer steps count for the total.
        """
        titles = {step.title for step in self.times}
        outer = [step for step in self.times if not _is_inner(step.title, titles)]
        rows = [f"{step.seconds:8.1f} s  {step.title}{'  FAILED' if step.failed else ''}" for step in self.times]
        return "\n".join([*rows, f"{sum(step.seconds for step in outer):8.1f} s  total"])

    def _tick(self, title: str, started: float, stop: threading.Event) -> None:
        interval = TERMINAL_TICK_SECONDS if self._terminal else LOG_TICK_SECONDS
        if self._terminal:
            self._line(f"   ...       -    {title}", final=False)
        while not stop.wait(interval):
            elapsed = time.monotonic() - started
            note = f" ({self._note})" if self._note else ""
            self._line(f"   ... {elapsed:7.0f} s  {title}{note}", final=False)

    def _line(self, text: str, *, final: bool) -> None:
        if self._quiet:
            return
        with self._lock:
            if not self._terminal:
                self._stream.write(text + "\n")
            else:
                self._stream.write("\r\x1b[2K" + text + ("\n" if final else ""))
            self._stream.flush()


def _is_inner(title: str, titles: set[str]) -> bool:
    """Tell whether `title` is an inner step of another one of `titles`."""
    parts = title.split(": ")
    return any(": ".join(parts[:count]) in titles for count in range(1, len(parts)))
