"""``python -m pipeline``: the command line. Each command, or group of commands, is a module; one line each below."""

from __future__ import annotations

import sys

import typer

from pipeline import access, build, checkout, configuration, deploy, harbor, jobs, notify, push, webhooks
from pipeline.errors import INTERRUPTED, RELEASE_EXIT_CODES, PipelineError

HELP = f"""The stages of a project's Jenkins job, each by itself, and what sets the servers up.

Examples:

\b
  python -m pipeline checkout SJZY.Package.Api --commit 4f2a9c1
  python -m pipeline build SJZY.Package.Api
  python -m pipeline push SJZY.Package.Api
  python -m pipeline deploy SJZY.Package.Api -s test
  python -m pipeline webhooks apply --dry-run
  python -m pipeline jobs apply --jenkins https://jenkins.example.com --dry-run

\b
{RELEASE_EXIT_CODES}
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.command(help=checkout.HELP)(checkout.checkout)
app.command(help=build.HELP)(build.build)
app.command(help=push.HELP)(push.push)
app.command(help=deploy.HELP)(deploy.deploy)
app.command(help=configuration.HELP)(configuration.config)
app.command(help=notify.HELP)(notify.notify)
app.command(help=access.HELP)(access.access)
app.add_typer(jobs.app, name="jobs")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(harbor.app, name="harbor")


def main() -> None:
    """Run the command line; errors are lines on standard error and an exit code."""
    try:
        app()
    except PipelineError as error:
        sys.stderr.write("".join(f"pipeline: {line}\n" for line in error.lines))
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.stderr.write("pipeline: interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
