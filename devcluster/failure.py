"""The one error of this package's building parts, so that a caller has a single thing to catch."""


class SetupError(Exception):
    """What is wrong and what to do next, in one line.

    Args:
        message: the line; no full stop at the end is asked for.
        details: more lines for a reader who looks closer, such as the end of a build's log.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
