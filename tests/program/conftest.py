"""A recording engine: run the real program under mocks, drain, then assert on plain lists."""

import json
import runpy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pulumi
import pytest
from pulumi.runtime.config import set_all_config

from registry import Registry
from settings import PROGRAM, read_stack_file
from tests.conftest import digest_of


@dataclass(frozen=True)
class Declared:
    """One resource as the program declared it."""

    type: str
    name: str
    inputs: dict[str, Any]


@dataclass
class Recording(pulumi.runtime.Mocks):
    """Remembers what is declared; answers calls with what the stack recorded before."""

    earlier: Mapping[str, Any] = field(default_factory=dict[str, Any])
    earlier_outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    declared: list[Declared] = field(default_factory=list[Declared])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        inputs = cast("dict[str, Any]", args.inputs)  # pyright: ignore[reportUnknownMemberType]
        self.declared.append(Declared(args.typ, args.name, inputs))
        return f"{args.name}-id", inputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        asked = cast("dict[str, str]", args.args)  # pyright: ignore[reportUnknownMemberType]
        if args.token.endswith(":readStackOutputs"):
            assert asked["name"].startswith("organization/package-platform/")
            return {"outputs": dict(self.earlier_outputs), "secretOutputNames": []}
        assert (args.token, list(asked)) == ("pulumi:pulumi:readStackResourceOutputs", ["stackName"])
        assert asked["stackName"].startswith("organization/package-platform/")
        return {"outputs": dict(self.earlier)}

    def of(self, kind: str) -> list[Declared]:
        return [each for each in self.declared if each.type.endswith(f":{kind}")]


Run = Callable[..., Recording]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run the program for a stack: ``run("test", tags={...})`` replaces parts of the committed config."""

    def digests(_: Registry, images: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return {image: digest_of(*image) for image in images}

    monkeypatch.setattr(Registry, "digests", digests)
    monkeypatch.chdir(PROGRAM)

    def run_program(
        stack: str,
        *,
        earlier: Mapping[str, Any] | None = None,
        earlier_outputs: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> Recording:
        recording = Recording(earlier=earlier or {}, earlier_outputs=earlier_outputs or {})
        pulumi.runtime.set_mocks(
            recording, project="package-platform", stack=stack, preview=False, organization="organization"
        )
        merged = {**read_stack_file(PROGRAM, stack), **config}
        set_all_config({f"package-platform:{key}": json.dumps(value) for key, value in merged.items()})

        def export(name: str, value: Any) -> None:
            pulumi.Output.from_input(value).apply(lambda resolved: recording.outputs.update({name: resolved}))

        monkeypatch.setattr(pulumi, "export", export)
        drained = cast("Callable[[Callable[[], object]], Callable[[], None]]", pulumi.runtime.test)  # pyright: ignore[reportUnknownMemberType]
        drained(lambda: runpy.run_path(str(PROGRAM / "__main__.py")))()
        return recording

    yield run_program
    set_all_config({})
