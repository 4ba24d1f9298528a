"""The stage build."""

from __future__ import annotations

from pipeline.arguments import HERE, Project, Workspace
from pipeline.errors import PipelineError

HELP = "Stage build."


def build(project: Project, *, workspace: Workspace = HERE) -> None:
    """Stage."""
    raise PipelineError(f"build of {project} in {workspace} is not there yet")
