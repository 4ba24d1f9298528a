"""The stage deploy."""

from __future__ import annotations

from pipeline.arguments import HERE, Project, Workspace
from pipeline.errors import PipelineError

HELP = "Stage deploy."


def deploy(project: Project, *, workspace: Workspace = HERE) -> None:
    """Stage."""
    raise PipelineError(f"deploy of {project} in {workspace} is not there yet")
