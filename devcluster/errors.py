"""How a command of the embedded cluster ends when it was not even begun; see `failure.py` for the other way."""

from collections.abc import Sequence


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """The machine or the request does not allow it, and nothing was changed. Exit code 2.

    Args:
        problems: one line each, all that were found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)
