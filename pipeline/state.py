"""``build.json`` in the work folder: what the stages of one build hand on to each other."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from model.fields import Commit, Frozen, Tag
from pipeline.errors import RefusedError

FILE = "build.json"


class Build(Frozen):
    """One build of one project; each stage fills in its part."""

    project: str
    """Gitea project."""
    commit: Commit
    """Commit of the project that is built, whole."""
    config_revision: Commit | None = None
    """Commit of the config repository that belongs to it, whole; None where the project has no ``config``."""
    config_named: bool = False
    """Whether somebody named that commit: then it is released also where a newer one runs."""
    image: str | None = None
    """OCI image layout below the work folder, once it is built."""
    base: str | None = None
    """Repository of the registry that has the image's lower layers, where the layout lacks them."""
    repository: str | None = None
    """Image repository with its registry, once it is pushed: ``harbor.example.com/back/sjzy.package.api``."""
    tag: Tag | None = None
    """Tag under which it was pushed."""
    digest: str | None = None
    """Digest under which it was pushed (``sha256:…``)."""


def save(workspace: Path, build: Build) -> None:
    """Write the file, in one step."""
    half = workspace / f".{FILE}.half"
    half.write_text(build.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    half.replace(workspace / FILE)


def remove(workspace: Path) -> None:
    """Forget the build before."""
    (workspace / FILE).unlink(missing_ok=True)


def load(workspace: Path, project: str) -> Build:
    """Return what the stages before have left.

    Args:
        workspace: The work folder.
        project: Whose build it has to be.

    Raises:
        RefusedError: If there is none, it is not readable, or it is another project's.
    """
    path = workspace / FILE
    try:
        build = Build.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RefusedError(
            f"{path}: there is no build here: run `python -m pipeline checkout {project}` first"
        ) from None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise RefusedError(f"{path}: not readable: {' '.join(str(error).split())}") from None
    if build.project != project:
        raise RefusedError(f"{path}: is a build of {build.project}, not of {project}: use another --workspace")
    return build
