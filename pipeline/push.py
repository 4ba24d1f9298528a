"""The stage push."""

from __future__ import annotations

from pipeline.arguments import HERE, Project, Workspace
from pipeline.errors import PipelineError

HELP = "Stage push."


def push(project: Project, *, workspace: Workspace = HERE) -> None:
    """Stage."""
    raise PipelineError(f"push of {project} in {workspace} is not there yet")
