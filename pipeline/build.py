"""The stage ``build``: from the checkout to an OCI image, by what the project file says under ``build``."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import typer

from model import build as model
from model.names import image_repository
from model.project import Project as ProjectFile
from pipeline import image, keys, state
from pipeline.arguments import HERE, Cwd, Project, SettingsFile, Workspace
from pipeline.checkout import SOURCE
from pipeline.errors import EXIT_CODES, PipelineError
from pipeline.git import Checkout
from pipeline.settings import Program
from pipeline.upload import RETRY_SECONDS, Repository

IMAGE = "image"
"""Folder of the OCI image layout in the work folder."""
HELP = f"""Build PROJECT's image from the checkout, as its file says under `build`.

\b
By default `npm ci` and `npm run build` (front end) or `dotnet publish` (back end); buildah where the file says
`build.dockerfile`. The commands see $PIPELINE_PROJECT, $PIPELINE_COMMIT, $PIPELINE_CONFIG_REVISION and
$PIPELINE_IMAGE, and none of the pipeline's own secrets: no $DOCKER_CONFIG either, but what
$PIPELINE_BUILD_DOCKER_CONFIG names.

\b
Example:
  python -m pipeline build SJZY.Package.Api

\b
{EXIT_CODES}
"""


def build(
    project: Project,
    *,
    workspace: Workspace = HERE,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Build the image."""
    program = Program(cwd, settings_file)
    file, done = program.project(project), state.load(workspace, project)
    source, layout = (workspace / SOURCE).resolve(), (workspace / IMAGE).resolve()
    shutil.rmtree(layout, ignore_errors=True)
    variables = _variables(done, layout)
    for command in model.commands(file.build, file.kind):
        _run(command, source, variables)
    if file.build.dockerfile:
        _buildah(file.build.dockerfile, source, layout, {**variables, **keys.registry_logins(os.environ)})
    base = None
    if not (layout / "index.json").exists():
        base = _layer(program, project, file, source, layout)
    image.read(layout)
    state.save(workspace, done.model_copy(update={"image": IMAGE, "base": base, "tag": None, "digest": None}))
    typer.echo(f"{project} is built from {done.commit}")


def _buildah(dockerfile: str, source: Path, layout: Path, variables: Mapping[str, str]) -> None:
    """Build a Dockerfile, and write its image to the layout.

    Raises:
        PipelineError: If that fails, or there is no buildah.
    """
    # All builds of an agent share buildah's store: under a common name one would push another's image.
    name = f"localhost/pipeline-build:{uuid.uuid4().hex}"
    _run(("buildah", "build", "--format", "oci", "--file", dockerfile, "--tag", name, "."), source, variables)
    try:
        _run(("buildah", "push", name, f"oci:{layout}"), source, variables)
    finally:
        removed = subprocess.run(
            ["buildah", "rmi", name], env=variables, capture_output=True, text=True, errors="replace", check=False
        )
        if removed.returncode:
            said = " ".join(removed.stderr.split()) or f"exit code {removed.returncode}"
            typer.echo(f"warning: the image {name} stays on this agent: {said}: remove it with `buildah rmi`", err=True)


def _variables(done: state.Build, layout: Path) -> Mapping[str, str]:
    return {
        **keys.for_builds(os.environ),
        "PIPELINE_PROJECT": done.project,
        "PIPELINE_COMMIT": done.commit,
        "PIPELINE_CONFIG_REVISION": done.config_revision or "",
        model.IMAGE_VARIABLE: str(layout),
    }


def _run(command: model.Command, folder: Path, variables: Mapping[str, str]) -> None:
    """Run a build command; what it says is the build's log.

    Raises:
        PipelineError: If it fails, or is not there.
    """
    shown = " ".join(command)
    typer.echo(f"+ {shown}")
    sys.stdout.flush()
    started = time.monotonic()
    try:
        code = subprocess.run(command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        hint = ": a script has to begin with `#!/bin/sh`" if error.errno == errno.ENOEXEC else ""
        raise PipelineError(
            f"the build command `{shown}` can't be started: {error.strerror}: {command[0]}{hint}"
        ) from None
    if code:
        seconds = time.monotonic() - started
        raise PipelineError(f"the build failed: `{shown}` ended with exit code {code} after {seconds:.0f} s")


def _layer(program: Program, project: str, file: ProjectFile, source: Path, layout: Path) -> str:
    """Put what the commands made on top of the base, and return the base's repository.

    Raises:
        PipelineError: If there is no base, or nothing was made.
    """
    where = f"projects/{project}.yaml:build"
    if not file.build.base:
        raise PipelineError(
            f"{where}: has no base, and the build wrote no image to ${model.IMAGE_VARIABLE}: name a base image of "
            "the registry, or a dockerfile"
        )
    output = source / model.output(file.build, file.kind)
    if not output.resolve().is_relative_to(source) or not output.is_dir() or not any(output.iterdir()):
        raise PipelineError(f"{where}.output: the build made no folder {model.output(file.build, file.kind)}")
    repository, _, tag = file.build.base.rpartition(":")
    host = program.settings.registry
    target = Repository(host, file.image or image_repository(file.kind, project), RETRY_SECONDS)
    modified = int(Checkout(source, str(source), {}).run("log", "-1", "--format=%ct"))
    image.layered(
        layout,
        target.image(repository, tag),
        output,
        model.into(file.build, file.kind),
        entrypoint=file.build.entrypoint,
        modified=modified,
    )
    return repository
