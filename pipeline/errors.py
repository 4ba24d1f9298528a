"""How a command of the pipeline ends when it does not end well: one exception for each exit code."""

from __future__ import annotations

from collections.abc import Sequence

DONE = 0
FAILED = 1
REFUSED = 2
INTERRUPTED = 130

EXIT_CODES = """Exit codes:
  0  done
  1  it was tried and failed: a build, a server that does not answer or refuses
  2  refused before anything changed: bad input, a missing variable
  130  interrupted"""
RELEASE_EXIT_CODES = f"""{EXIT_CODES}
  deploy and config hand on what `release` ends with (0 to 4, 130, 143)"""


class PipelineError(Exception):
    """Base of all: ends the command with ``code`` and its lines."""

    code = FAILED

    def __init__(self, lines: str | Sequence[str]) -> None:
        """Take what a person has to read.

        Args:
            lines: One line, or several.
        """
        self.lines: tuple[str, ...] = (lines,) if isinstance(lines, str) else tuple(lines)
        super().__init__("\n".join(self.lines))


class RefusedError(PipelineError):
    """Bad input; nothing was changed."""

    code = REFUSED
