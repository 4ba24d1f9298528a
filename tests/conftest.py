"""Fixtures that several kinds of tests share."""

from pathlib import Path

import pytest

from manifests.frontend_app import frontend_app, frontend_app_plan
from manifests.package_app import package_app, package_app_plan
from manifests.workload import Workload
from model.environment import Environment
from model.stack import Application, Image, Stack
from settings import PROGRAM, build_stack, read_stack_file

STACKS = ("test", "uat", "prod")


def digest_of(repository: str, tag: str) -> str:
    """Return a digest that stands for a tag in tests, readable on purpose."""
    return f"sha256:{f'{repository}:{tag}'.encode().hex()[:64]:0>64}"


def pinned(stack: Stack) -> Stack:
    """Return a stack with the digests that the registry would have told."""

    def image(given: Image | None) -> Image | None:
        return given and given.model_copy(update={"digest": digest_of(given.repository, given.tag)})

    applications = tuple(each.model_copy(update={"image": image(each.image)}) for each in stack.applications)
    return stack.model_copy(update={"applications": applications})


def committed_stack(name: str) -> Stack:
    """Return a stack as the committed files describe it, with made-up digests."""
    return pinned(build_stack(PROGRAM, f"Pulumi.{name}.yaml", name, read_stack_file(PROGRAM, name)))


def rendered(application: Application, environment: Environment) -> Workload:
    """Return a project's manifests as its component would declare them."""
    if application.project.kind == "backend":
        return package_app(application, environment, package_app_plan(application, environment))
    return frontend_app(application, environment, frontend_app_plan(application, environment))


@pytest.fixture
def root() -> Path:
    """Folder of the program."""
    return PROGRAM
