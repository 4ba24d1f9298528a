"""The command line of ``release``."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from model.plan import CanaryWish
from release import canary, commands, views
from release import steps as climb
from release.analysis import PAUSE_SECONDS, Rule
from release.arguments import seconds, share, weights
from release.change import Options
from release.diagnosis import Limits
from release.errors import EXIT_CODES, INTERRUPTED, InterruptedRunError, ReleaseError
from release.inputs import Program
from release.language_host import HERE, Ahead
from release.migrations import Leave
from release.pulumi import Pulumi
from release.screen import Screen

HELP = f"""Releases one project, safely beside other jobs: deploy, roll back, and see what runs.

Examples:

\b
  release deploy SJZY.Package.Api 2022-08-03-18-54 -s uat
  release rollback SJZY.Package.Api -s uat
  release status -s uat
  release history SJZY.Package.Api -s uat

\b
{EXIT_CODES}
"""
DEPLOY = f"""Release TAG of PROJECT.

\b
The image is asked of the registry first. The release is watched: when it can't succeed (the image can't be pulled, the
container crashes or is never ready, no node has room), it ends within seconds, says why, and puts back what ran.

\b
Examples:
  release deploy SJZY.Package.Api 2022-08-03-18-54 -s uat
  release deploy packet 2022-08-03-18-54 -s uat --message "$BUILD_URL"
  release deploy packet 2022-08-03-18-54 -s uat --config-rev 1a2b3c4
  release deploy packet 2022-08-03-18-54 -s uat --json | jq .outcome

\b
{EXIT_CODES}
"""
ROLLBACK = f"""Go back to an earlier good release of PROJECT: by default to the one before.

\b
Examples:
  release rollback SJZY.Package.Api -s uat
  release rollback SJZY.Package.Api -s uat --to 2022-08-01-19-41
  release rollback SJZY.Package.Api -s uat --steps 2
  release rollback SJZY.Package.Api -s uat --past-migration   also to what ran before the data was migrated
  release rollback --all --to-update 41 -s uat                  the whole stack, as `pulumi stack history` numbers it
  release rollback --all --to-update 2026-11-23T18:42 -s uat    the same by its time, in UTC as it stands there

\b
--all is one `pulumi up`: its pods are not watched, and a failure is not put back (exit code 4).

\b
{EXIT_CODES}
"""
HISTORY = """Show the good releases of PROJECT, with who and why; the live one first.

\b
Example:
  release history SJZY.Package.Api -s uat --json
"""
STATUS = """Show what is deployed and wanted, and where the cluster differs from what was recorded.

\b
Examples:
  release status -s uat
  release status SJZY.Package.Api -s uat --json
"""
DIFF = """Show what a release would change; secrets are masked.

\b
Example:
  release diff SJZY.Package.Api 2022-08-03-18-54 -s uat
"""
SYNC = """Write the deployed tags into the stack file, whose comments and order stay.

\b
Example:
  release sync -s uat && git diff Pulumi.uat.yaml
"""
UNLOCK = f"""Remove the lock that a run on another host has left behind.

\b
A lock of this host whose process is gone needs no command: the next run clears it. One of before the host was started
is removed too; one of a release that runs here only with --force: two runs at once would spoil the state.

\b
Example:
  release unlock -s uat

\b
{EXIT_CODES}
"""
TIDY = f"""Scale down slots that get no traffic, once they were kept warm for `warmFor`.

\b
A later rollback to one starts its pods again. For a timer: without PROJECT it looks at all.
Examples:
  release tidy -s uat
  release tidy SJZY.Package.Api -s uat --now

\b
{EXIT_CODES}
"""
CANARY = f"""Give TAG a part of the traffic of PROJECT, beside the live release; again with another weight to change it.

\b
Each call says all that it is to get: a header that was given before, and is not given again, is gone.
The wish is written into the stack file: commit it.
With --steps it goes up by itself: at each weight it is watched for --pause, by what the ingress counts of both
versions; a canary that breaks a limit is ended at once (exit code 1), and the step 100 promotes it.

\b
Examples:
  release canary SJZY.Package.Api 2022-08-03-18-54 -s uat --weight 10
  release canary SJZY.Package.Api 2022-08-03-18-54 -s uat --header X-Canary
  release canary SJZY.Package.Api 2022-08-03-18-54 -s uat --steps 5,25,50,100 --pause 60s --max-error-rate 1% \\
      --max-p99 500ms

\b
{EXIT_CODES}
"""
PROMOTE = f"""Give the canary of PROJECT all of its traffic.

\b
Example:
  release promote SJZY.Package.Api -s uat

\b
{EXIT_CODES}
"""
ABORT = f"""Take all traffic from the canary of PROJECT, and end it.

\b
Example:
  release abort SJZY.Package.Api -s uat

\b
{EXIT_CODES}
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
Project = Annotated[str, typer.Argument(help="Gitea project: SJZY.Package.Api.", show_default=False)]
Tag = Annotated[str, typer.Argument(help="Image tag.", show_default=False)]
Stack = Annotated[
    str,
    typer.Option("--stack", "-s", envvar="PACKAGE_PLATFORM_STACK", help="Stack: test, uat, prod.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="The answer as JSON on standard output.")]
Message = Annotated[
    str, typer.Option("--message", "-m", envvar="BUILD_URL", help="Why, for the history; Jenkins' build by default.")
]
WaitLock = Annotated[float, typer.Option("--wait-lock", min=0, help="Seconds to wait for another run of the stack.")]
Cwd = Annotated[
    Path,
    typer.Option(
        "--cwd",
        "-C",
        help="Folder of the program; by default the command's own.",
        file_okay=False,
        exists=True,
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config-file", help="The stack's file, where it is not Pulumi.<stack>.yaml.")
]
ConfigRevision = Annotated[
    str,
    typer.Option(
        "--config-rev",
        help="Commit of the config repository; by default that of the stack file, or what is checked out.",
        show_default=False,
    ),
]
OrNewer = Annotated[
    bool,
    typer.Option("--or-newer", help="With --config-rev: keep the configuration that runs where that is newer."),
]
UnschedulableAfter = Annotated[
    float | None,
    typer.Option(
        "--unschedulable-after",
        min=0,
        help="Seconds that a pod may wait for a node; by default unschedulableSeconds of the environment.",
        show_default=False,
    ),
]
UnreadyAfter = Annotated[
    float, typer.Option("--unready-after", min=0, help="Seconds that a started container may be not ready.")
]
NoRollback = Annotated[bool, typer.Option("--no-rollback", help="Leave a failed release as it is.")]
PastMigration = Annotated[
    bool, typer.Option("--past-migration", "--yes", "-y", help="Go back past a migration without being asked.")
]


def _session(stack: str, cwd: Path, config_file: Path | None, screen: Screen, **options: Any) -> commands.Session:
    program = Program(cwd.resolve(), stack, config_file.resolve() if config_file else None)
    return commands.Session(program, screen, Options(**options))


def _changing(stack: str, cwd: Path, config_file: Path | None, screen: Screen, **options: Any) -> commands.Session:
    """Return the session of a command that is going to run the program, which is loaded meanwhile."""
    session = _session(stack, cwd, config_file, screen, **options)
    return replace(session, ahead=Ahead(Pulumi(session.program).load_program()))


def _not_with(context: typer.Context, why: str, **options: str) -> None:
    """Refuse options that mean nothing where they were given.

    Args:
        context: Of the command.
        why: What they don't go with, or lack.
        options: Parameter → the option, as people write it.

    Raises:
        typer.BadParameter: If one was given.
    """
    sources = {option: context.get_parameter_source(name) for name, option in options.items()}
    given = [option for option, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given:
        raise typer.BadParameter(f"{', '.join(given)}: {why}")


@app.command(help=DEPLOY)
def deploy(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    project: Project,
    tag: Tag,
    stack: Stack,
    *,
    config_revision: ConfigRevision = "",
    or_newer: OrNewer = False,
    message: Message = "",
    no_rollback: NoRollback = False,
    past_migration: PastMigration = False,
    wait_lock: WaitLock = 1800.0,
    unschedulable: UnschedulableAfter = None,
    unready: UnreadyAfter = Limits.unready,
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Release a tag."""
    if not config_revision:
        _not_with(context, "than what? say --config-rev", or_newer="--or-newer")
    session = _changing(
        stack,
        cwd,
        config_file,
        Screen(as_json=as_json),
        message=message,
        put_back=not no_rollback,
        lock_seconds=wait_lock,
        unschedulable=unschedulable,
        limits=Limits(unready=unready),
    )
    leave = Leave.of_terminal(given=past_migration)
    raise typer.Exit(commands.deploy(session, project, tag, leave, config_revision, or_newer=or_newer))


@app.command(help=ROLLBACK)
def rollback(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    stack: Stack,
    project: Annotated[str, typer.Argument(help="Gitea project; none with --all.", show_default=False)] = "",
    *,
    to: Annotated[str, typer.Option("--to", help="Tag of a good release.", show_default=False)] = "",
    steps: Annotated[int, typer.Option("--steps", min=1, help="So many good releases back.")] = 1,
    whole: Annotated[bool, typer.Option("--all", help="Every project of the stack; needs --to-update.")] = False,
    to_update: Annotated[
        str, typer.Option("--to-update", help="Number of an update, or its start in UTC.", show_default=False)
    ] = "",
    message: Message = "",
    no_rollback: NoRollback = False,
    past_migration: PastMigration = False,
    wait_lock: WaitLock = 1800.0,
    unschedulable: UnschedulableAfter = None,
    unready: UnreadyAfter = Limits.unready,
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Go back."""
    if whole == bool(project) or whole != bool(to_update):
        raise typer.BadParameter("name a PROJECT, or --all with --to-update")
    if to:
        _not_with(context, "not beside --to, which names the release", steps="--steps")
    if whole:
        _not_with(
            context,
            "not with --all, which is one `pulumi up`: not watched, and not put back",
            to="--to",
            steps="--steps",
            no_rollback="--no-rollback",
            unschedulable="--unschedulable-after",
            unready="--unready-after",
        )
    session = _changing(
        stack,
        cwd,
        config_file,
        Screen(as_json=as_json),
        message=message,
        put_back=not no_rollback,
        lock_seconds=wait_lock,
        unschedulable=unschedulable,
        limits=Limits(unready=unready),
    )
    leave = Leave.of_terminal(given=past_migration)
    if whole:
        raise typer.Exit(commands.rollback_all(session, to_update, leave))
    raise typer.Exit(commands.rollback(session, project, to, steps, leave))


@app.command(help=HISTORY)
def history(
    project: Project, stack: Stack, *, as_json: Json = False, cwd: Cwd = HERE, config_file: ConfigFile = None
) -> None:
    """Show the releases of a project."""
    raise typer.Exit(
        views.show_history(_session(stack, cwd, config_file, Screen(as_json=as_json), message=""), project)
    )


@app.command(help=STATUS)
def status(
    stack: Stack,
    project: Annotated[str, typer.Argument(help="Gitea project; all when it is left out.")] = "",
    *,
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Show what runs."""
    raise typer.Exit(views.show_status(_session(stack, cwd, config_file, Screen(as_json=as_json), message=""), project))


@app.command(help=DIFF)
def diff(  # noqa: PLR0913 - the options of a command
    project: Project,
    tag: Tag,
    stack: Stack,
    *,
    config_revision: ConfigRevision = "",
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Show what a release would change."""
    session = _session(stack, cwd, config_file, Screen(as_json=as_json), message="")
    raise typer.Exit(views.diff(session, project, tag, config_revision))


@app.command(help=SYNC)
def sync(stack: Stack, *, as_json: Json = False, cwd: Cwd = HERE, config_file: ConfigFile = None) -> None:
    """Write the deployed tags into the stack file."""
    raise typer.Exit(views.sync(_session(stack, cwd, config_file, Screen(as_json=as_json), message="")))


@app.command(help=UNLOCK)
def unlock(
    stack: Stack,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also when its holder runs on this host.")] = False,
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Remove a lock."""
    session = _session(stack, cwd, config_file, Screen(as_json=as_json), message="")
    raise typer.Exit(views.unlock(session, force=force))


@app.command(help=TIDY)
def tidy(  # noqa: PLR0913 - the options of a command
    stack: Stack,
    project: Annotated[str, typer.Argument(help="Gitea project; all when it is left out.")] = "",
    *,
    at_once: Annotated[bool, typer.Option("--now", help="Also what is to stay warm for longer.")] = False,
    message: Message = "",
    wait_lock: WaitLock = 1800.0,
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Scale down what is warm."""
    session = _session(stack, cwd, config_file, Screen(as_json=as_json), message=message, lock_seconds=wait_lock)
    raise typer.Exit(commands.tidy(session, project, at_once=at_once))


@app.command("canary", help=CANARY)
def start_canary(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    project: Project,
    tag: Tag,
    stack: Stack,
    *,
    weight: Annotated[
        int | None,
        typer.Option("--weight", min=0, max=100, help="Percent of the requests; 0 when only --header is given."),
    ] = None,
    header: Annotated[
        str, typer.Option("--header", help="Requests with this header and the value always get it.")
    ] = "",
    steps: Annotated[
        str, typer.Option("--steps", metavar="N,N,…", help="Weights, rising; 100 promotes.", show_default=False)
    ] = "",
    pause: Annotated[
        float, typer.Option("--pause", parser=seconds, metavar="TIME", help="How long each step is watched: 60s, 5m.")
    ] = f"{PAUSE_SECONDS:g}s",  # pyright: ignore[reportArgumentType] - typer reads a default as it reads an argument
    max_error_rate: Annotated[
        float, typer.Option("--max-error-rate", parser=share, metavar="PERCENT", help="The largest share of 5xx.")
    ] = f"{100 * Rule.max_error_rate:g}%",  # pyright: ignore[reportArgumentType]
    max_p99: Annotated[
        float | None,
        typer.Option(
            "--max-p99",
            parser=seconds,
            metavar="TIME",
            help="The longest that 99 of 100 requests take: 500ms.",
            show_default=False,
        ),
    ] = None,
    min_requests: Annotated[
        int, typer.Option("--min-requests", min=1, help="With fewer in a pause, it is watched for longer.")
    ] = Rule.min_requests,
    message: Message = "",
    wait_lock: WaitLock = 1800.0,
    unschedulable: UnschedulableAfter = None,
    unready: UnreadyAfter = Limits.unready,
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Start a canary, or change its share."""
    if steps:
        _not_with(context, "not beside --steps, which says the weights", weight="--weight")
    else:
        watching = {"pause": "--pause", "max_error_rate": "--max-error-rate", "max_p99": "--max-p99"}
        _not_with(context, "nothing is watched without --steps", **watching, min_requests="--min-requests")
        if weight is None and not header:
            raise typer.BadParameter("say what it gets: --weight, --header or --steps")
    try:
        wish = CanaryWish(tag=tag, weight=weight or 0, header=header or None)
    except ValidationError as error:
        raise typer.BadParameter("; ".join(str(each["msg"]) for each in error.errors())) from None
    session = _changing(
        stack,
        cwd,
        config_file,
        Screen(as_json=as_json),
        message=message,
        lock_seconds=wait_lock,
        unschedulable=unschedulable,
        limits=Limits(unready=unready),
    )
    if steps:
        rule = Rule(max_error_rate, max_p99, min_requests)
        raise typer.Exit(climb.run(session, project, wish, climb.Steps(weights(steps), pause, rule)))
    raise typer.Exit(canary.start(session, project, wish))


@app.command(help=PROMOTE)
def promote(  # noqa: PLR0913 - the options of a command
    project: Project,
    stack: Stack,
    *,
    message: Message = "",
    wait_lock: WaitLock = 1800.0,
    unschedulable: UnschedulableAfter = None,
    unready: UnreadyAfter = Limits.unready,
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Give a canary all traffic."""
    session = _changing(
        stack,
        cwd,
        config_file,
        Screen(as_json=as_json),
        message=message,
        lock_seconds=wait_lock,
        unschedulable=unschedulable,
        limits=Limits(unready=unready),
    )
    raise typer.Exit(canary.promote(session, project))


@app.command(help=ABORT)
def abort(  # noqa: PLR0913 - the options of a command
    project: Project,
    stack: Stack,
    *,
    message: Message = "",
    wait_lock: WaitLock = 1800.0,
    as_json: Json = False,
    cwd: Cwd = HERE,
    config_file: ConfigFile = None,
) -> None:
    """Take all traffic from a canary."""
    session = _changing(stack, cwd, config_file, Screen(as_json=as_json), message=message, lock_seconds=wait_lock)
    raise typer.Exit(canary.abort(session, project))


def _end(error: ReleaseError) -> NoReturn:
    """End with an error: who reads the answer as JSON gets one also then."""
    sys.stderr.write("".join(f"release: {line}\n" for line in error.lines))
    if "--json" in sys.argv[1:]:
        sys.stdout.write(f"{json.dumps(commands.failure(error), indent=2, ensure_ascii=False)}\n")
        sys.stdout.flush()
    sys.exit(error.code)


def main() -> None:
    """Run the command line; an error is lines on standard error, an exit code, and with ``--json`` a document."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A locale without a character makes no failure of what was done.
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="release")
    except ReleaseError as error:
        _end(error)
    except SystemExit as ended:
        if ended.code != INTERRUPTED:
            raise
        # What typer makes of Ctrl-C where no change is being made, which would note it.
        line = "interrupted while nothing was being changed; `release status` says what runs"
        _end(InterruptedRunError(line, signal.SIGINT))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
