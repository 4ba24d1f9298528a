"""How the pipeline makes a project's image from its source: what a project file says of it, and the defaults."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from model.fields import ConfigPath, ContainerPath, Frozen
from model.names import Kind

IMAGE_VARIABLE = "PIPELINE_IMAGE"
"""Environment variable that tells a build command in which folder to write an OCI image layout, if it makes one."""
Command = Annotated[tuple[str, ...], Field(min_length=1)]
"""Program and arguments; no shell is involved."""

_COMMANDS: dict[Kind, tuple[Command, ...]] = {
    "frontend": (("npm", "ci"), ("npm", "run", "build")),
    "backend": (("dotnet", "publish", "--configuration", "Release", "--output", "publish"),),
}
_OUTPUT: dict[Kind, str] = {"frontend": "dist", "backend": "publish"}
_INTO: dict[Kind, str] = {"frontend": "/usr/share/nginx/html", "backend": "/app"}


class Build(Frozen):
    """From a checkout to an image, in one of three ways.

    - ``base``: the command's ``output`` becomes one layer on an image of the same registry.
    - ``dockerfile``: built by buildah.
    - a ``command`` of its own writes an OCI image layout to the folder ``$PIPELINE_IMAGE``: kaniko, ``docker buildx``,
      ``dotnet publish /t:PublishContainer``.
    """

    command: Command | None = None
    """Run in the checkout. By default ``npm ci`` and ``npm run build`` for a front end, ``dotnet publish
    --configuration Release --output publish`` for a back end, nothing with ``dockerfile``."""
    dockerfile: ConfigPath | None = None
    """A Dockerfile below the checkout; needs ``buildah`` on the agent."""
    base: Annotated[str, Field(pattern=r"^[a-z0-9]+([._/-]+[a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")] | None = (
        None
    )
    """Repository and tag, in the same registry, of the image below: ``back/aspnet:9.0``. Its user, variables and
    entry point are kept."""
    output: ConfigPath | None = None
    """Folder below the checkout whose content goes into the image; by default ``dist`` for a front end, ``publish`` for
    a back end."""
    into: ContainerPath | None = None
    """Folder in the image for it; by default ``/usr/share/nginx/html`` for a front end, ``/app`` for a back end."""
    entrypoint: Command | None = None
    """The image's program and arguments, such as ``[dotnet, SJZY.Package.Api.dll]``; by default that of ``base``."""
    branch: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")] | None = None
    """The branch that is released; by default ``gitea.branch`` of ``pipeline.yaml``."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.dockerfile and self.base:
            raise ValueError("dockerfile and base are two ways to make the image: remove one of the two")
        layered = [name for name in ("output", "into", "entrypoint") if getattr(self, name) is not None]
        if layered and not self.base:
            raise ValueError(f"{layered[0]} is for a build on a base: set base, or leave it out")
        return self


def commands(build: Build, kind: Kind) -> tuple[Command, ...]:
    """Return what is run in the checkout, one after another."""
    if build.command:
        return (build.command,)
    return () if build.dockerfile else _COMMANDS[kind]


def output(build: Build, kind: Kind) -> str:
    """Return the folder, below the checkout, whose content goes into the image."""
    return build.output or _OUTPUT[kind]


def into(build: Build, kind: Kind) -> str:
    """Return the folder in the image for it."""
    return build.into or _INTO[kind]
