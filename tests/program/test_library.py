"""The components as a library: the example of the how-to page, run as it stands there."""

import re
from collections.abc import Callable
from typing import Any, cast

import pulumi
import pytest

from components import FrontendApp, FrontendAppArgs, PackageApp, PackageAppArgs
from model.environment import Environment, Registry
from model.project import BackendProject
from model.stack import Application, Image
from settings import PROGRAM
from tests.program.conftest import Recording

PAGE = PROGRAM / "docs" / "how-to" / "use-as-a-library.md"

ENVIRONMENT = Environment(
    name="test", namespace="n", domain="example.com", registry=Registry(host="harbor.example.com")
)


def some_api(image: Image | None) -> Application:
    project = BackendProject(kind="backend")
    return Application(gitea_name="Some.Api", file="(program)", project=project, image=image)


def run(program: Callable[[], object]) -> Recording:
    recording = Recording()
    pulumi.runtime.set_mocks(recording, project="own", stack="dev", preview=False, organization="organization")
    drained = cast("Callable[[Callable[[], object]], Callable[[], None]]", pulumi.runtime.test)  # pyright: ignore[reportUnknownMemberType]
    drained(program)()
    return recording


def test_the_example_of_the_page_works(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    exported: dict[str, Any] = {}

    def export(name: str, value: pulumi.Output[Any]) -> None:
        value.apply(lambda resolved: exported.update({name: resolved}))

    monkeypatch.setattr(pulumi, "export", export)
    recording = run(lambda: exec(compile(code, PAGE.name, "exec"), {}))  # noqa: S102 - our own page
    assert exported == {"url": "http://api.test.example.com/", "tag": "2022-08-03-18-54"}
    assert [each.name for each in recording.of("Deployment")] == ["SJZY.Package.Api-main"]


def test_a_component_refuses_a_project_of_the_other_kind() -> None:
    application = some_api(Image(repository="harbor.example.com/back/some.api", tag="1"))
    with pytest.raises(ValueError, match=r"Some\.Api is a backend, which is no FrontendApp"):
        run(lambda: FrontendApp("Some.Api", FrontendAppArgs(application, ENVIRONMENT)))


def test_a_component_refuses_a_project_without_an_image() -> None:
    application = some_api(None)
    with pytest.raises(ValueError, match=r"Some\.Api has no image tag"):
        run(lambda: PackageApp("Some.Api", PackageAppArgs(application, ENVIRONMENT)))
