"""``python -m pipeline webhooks``: each project's webhook in Gitea."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="The projects' webhooks in Gitea.")


@app.callback()
def _group() -> None:
    """The projects' webhooks in Gitea."""
