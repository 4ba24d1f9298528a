"""What the command lines of all benchmarks have in common."""

import signal
import sys
from collections.abc import Callable, Sequence

import typer

from devcluster.errors import Refused
from devcluster.process_tree import heed_interrupts
from devcluster.processes import StuckProcessError

EXIT_FAILED = 1
EXIT_REFUSED = 2


def execute(
    command: Callable[..., None],
    text: str,
    failures: tuple[type[Exception], ...],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a benchmark as a command line; errors are lines on standard error and an exit code.

    Ended from outside (CI's time limit), it still takes its cluster down.

    Args:
        command: Its options are the command line's.
        text: Of its ``--help``.
        failures: Errors that are one line and no traceback.
        arguments: The command line; that of the process by default.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=text)(command)
    heed_interrupts()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app(args=arguments)
    except Refused as refusal:
        for problem in refusal.problems:
            print(f"refused: {problem}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    except (*failures, StuckProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
