"""The stage ``push``: the built image into the registry, under a tag that says when, and ``latest``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from model.names import LATEST, image_repository
from pipeline import image, state
from pipeline.arguments import HERE, AsJson, Cwd, Project, SettingsFile, Workspace
from pipeline.errors import EXIT_CODES, RefusedError
from pipeline.image import Image
from pipeline.settings import Program
from pipeline.upload import RETRY_SECONDS, Repository

HELP = f"""Push PROJECT's image as `<front|back>/<name>:<YYYY-MM-DD-HH-MM>` and `{LATEST}`, labelled with its commits.

\b
The time is the agent's (TZ); where that tag is another image's, the seconds follow, then a number. A registry that
is down is asked again for --retry-seconds. The login is Docker's (`docker login`, $DOCKER_CONFIG).

\b
Example:
  python -m pipeline push SJZY.Package.Api

\b
{EXIT_CODES}
"""
_REVISION_LABEL = "package-platform.config-revision"
_OCI = "org.opencontainers.image"


def push(  # noqa: PLR0913 - options of a command line
    project: Project,
    *,
    workspace: Workspace = HERE,
    retry_seconds: Annotated[
        float, typer.Option("--retry-seconds", min=0, help="Seconds that the registry may be away.")
    ] = RETRY_SECONDS,
    as_json: AsJson = False,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Push the image."""
    program = Program(cwd, settings_file)
    file, done = program.project(project), state.load(workspace, project)
    if done.image is None:
        raise RefusedError(f"{project} is not built yet: run `python -m pipeline build {project}` first")
    layout = workspace / done.image
    name = file.image or image_repository(file.kind, project)
    repository = Repository(program.settings.registry, name, retry_seconds)
    built = image.read(layout)
    _layers(repository, built, layout, done.base)
    source = f"{program.settings.gitea.url}/{program.settings.gitea.owner}/{project}"
    now = datetime.now(UTC).astimezone()
    tag, config, manifest = _named(repository, now, lambda tag: labelled(built, done, tag, source).documents())
    if not repository.has(image.digest_of(config)):
        repository.send(image.digest_of(config), config)
    digest = repository.tag(tag, manifest)
    repository.tag(LATEST, manifest)
    pushed = {"repository": repository.reference, "tag": tag, "digest": digest}
    state.save(workspace, done.model_copy(update=pushed))
    typer.echo(json.dumps(pushed, indent=2) if as_json else f"{repository.reference}:{tag}@{digest}")


def labelled(built: Image, done: state.Build, tag: str, source: str) -> Image:
    """Return an image with the labels that say what it was made from. Pure.

    Args:
        built: The image.
        done: The build.
        tag: Under which it is pushed.
        source: URL of the project's repository.
    """
    labels = {
        f"{_OCI}.title": done.project,
        f"{_OCI}.source": source,
        f"{_OCI}.revision": done.commit,
        f"{_OCI}.version": tag,
    }
    if done.config_revision:
        labels[_REVISION_LABEL] = done.config_revision
    return built.labelled(labels)


def tags(now: datetime) -> Iterator[str]:
    """Yield the tags for a push at a time, the one for people first: minutes, seconds, then a number. Pure."""
    yield now.strftime("%Y-%m-%d-%H-%M")
    seconds = now.strftime("%Y-%m-%d-%H-%M-%S")
    yield seconds
    yield from (f"{seconds}-{number}" for number in itertools.count(2))


def _named(
    repository: Repository, now: datetime, documents: Callable[[str], tuple[bytes, bytes]]
) -> tuple[str, bytes, bytes]:
    """Return the first tag that is free, or this very image's already, with the image's documents under it."""
    for tag in tags(now):
        config, manifest = documents(tag)
        if repository.digest(tag) in {None, image.digest_of(manifest)}:
            return tag, config, manifest
    raise AssertionError("there is always another number")


def _layers(repository: Repository, built: Image, layout: Path, base: str | None) -> None:
    for layer in built.layers:
        digest = str(layer["digest"])
        here = image.blob(layout, digest)
        if repository.has(digest):
            continue
        if here.is_file():
            repository.send(digest, here)
        elif base is None:
            raise image.ImageError(f"{layout}: lacks the layer {digest}")
        elif not repository.borrow(digest, base):
            repository.copy(digest, base)
