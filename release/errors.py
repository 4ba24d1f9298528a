"""How a command ends when it does not end well: one exception for each exit code."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

DONE = 0
FAILED = 1
REFUSED = 2
LOCKED = 3
BROKEN = 4
INTERRUPTED = 130

EXIT_CODES = """Exit codes:
  0    done
  1    the release failed; the release before it serves, and the cluster is as it was
  2    refused before anything changed: bad input, a missing image, nothing to roll back to
  3    another run holds the stack, and did not end within --wait-lock
  4    the release failed, and what it changed was not put back: read the output
  130  interrupted (143 by SIGTERM, 129 by SIGHUP); its last line names the command that brings all in order"""


class ReleaseError(Exception):
    """Base of all: ends the command with ``code`` and its lines."""

    code = FAILED

    def __init__(self, lines: str | Sequence[str]) -> None:
        """Take what a person has to read.

        Args:
            lines: One line, or several.
        """
        self.lines: tuple[str, ...] = (lines,) if isinstance(lines, str) else tuple(lines)
        super().__init__("\n".join(self.lines))


class RefusedError(ReleaseError):
    """Bad input; nothing was changed."""

    code = REFUSED


class UnexpectedError(ReleaseError):
    """Something that nobody thought of, while the stack was changed; pulumi was asked to stop."""

    code = BROKEN

    def __init__(self, error: Exception, left: str) -> None:
        """Take what went wrong.

        Args:
            error: What came.
            left: What brings all in order.
        """
        told = "".join(traceback.format_exception(error)).splitlines()
        super().__init__([*told, f"that is a fault of `release`; pulumi was stopped and nothing is put back: {left}"])


class LockedError(ReleaseError):
    """Another run holds the stack."""

    code = LOCKED


class PulumiError(ReleaseError):
    """A command of pulumi that only reads failed."""


class InterruptedRunError(ReleaseError):
    """A person or a machine asked this process to end."""

    code = INTERRUPTED

    def __init__(self, lines: str | Sequence[str], signal_number: int) -> None:
        """Take the lines and the signal that came.

        Args:
            lines: What a person has to read.
            signal_number: 2 for Ctrl-C, 15 for SIGTERM, 1 for SIGHUP.
        """
        super().__init__(lines)
        self.code = 128 + signal_number
