"""The arguments and options that several commands of the pipeline share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PROGRAM = Path(__file__).resolve().parent.parent

Project = Annotated[str, typer.Argument(help="Gitea project: SJZY.Package.Api.", show_default=False)]
Workspace = Annotated[
    Path,
    typer.Option("--workspace", envvar="PIPELINE_WORKSPACE", help="Folder of this build; stages hand on through it."),
]
Cwd = Annotated[
    Path,
    typer.Option(
        "--cwd",
        "-C",
        help="Folder with Pulumi.yaml, pipeline.yaml and projects/; by default the current one.",
        file_okay=False,
        exists=True,
        show_default=False,
    ),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings", envvar="PIPELINE_SETTINGS", help="Instead of pipeline.yaml in that folder.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
Stack = Annotated[
    str,
    typer.Option("--stack", "-s", envvar="PACKAGE_PLATFORM_STACK", help="Stack: test, uat, prod.", show_default=False),
]
HERE = Path()
