"""The stage checkout."""

from __future__ import annotations

from pipeline.arguments import HERE, Project, Workspace
from pipeline.errors import PipelineError

HELP = "Stage checkout."


def checkout(project: Project, *, workspace: Workspace = HERE) -> None:
    """Stage."""
    raise PipelineError(f"checkout of {project} in {workspace} is not there yet")
