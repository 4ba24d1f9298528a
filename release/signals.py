"""Being asked to end while the stack is changed."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from release.errors import InterruptedRunError


@dataclass
class Signals:
    """Asks to end, noted while a change runs instead of cutting it off anywhere."""

    number: int = 0

    @contextmanager
    def noted(self) -> Generator[None]:
        """Note SIGINT, SIGTERM and SIGHUP for as long as the context lasts; not SIGHUP where ``nohup`` has it ignored.

        Who notes them around this context hears of them too: one may come after the last check in here.
        """
        hung_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
        numbers = (signal.SIGINT, signal.SIGTERM, *hung_up)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
                around = getattr(handler, "__self__", None)
                if number == self.number and isinstance(around, Signals):
                    around.number = number

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number

    def check(self, left: str) -> None:
        """Raise if this process was asked to end.

        Raises:
            InterruptedRunError: It was; the line says what is left.
        """
        if self.number:
            raise InterruptedRunError(f"interrupted by {signal.Signals(self.number).name}: {left}", self.number)
