"""The edge: project and stack files as they lie on disk."""

from pathlib import Path
from typing import Any

import pytest

from model.names import GITEA_PROJECT, kubernetes_name
from model.problems import Problem, SettingsError
from model.release import (
    RECORD_ANNOTATION,
    InCluster,
    Instruction,
    Record,
    Release,
    Slot,
    owners_of,
    records_of,
    repositories_of,
)
from model.stack import Application, Stack, instructed, with_records, without_renames
from registry import ImageMissingError, Registry, RegistryError
from settings import build_stack, environment_names, read_projects, resolve

CONFIG: dict[str, Any] = {
    "environment": {"namespace": "n", "domain": "example.com", "registry": {"host": "harbor.example.com"}},
    "tags": {"packet": "1", "label": "1"},
}
FRONTEND = "kind: frontend\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "projects").mkdir()
    for name in ("packet", "label"):
        (tmp_path / "projects" / f"{name}.yaml").write_text(FRONTEND)
    return tmp_path


def build(program: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        build_stack(program, "Pulumi.test.yaml", "test", CONFIG)
    return str(caught.value).splitlines()


def test_files_that_can_not_be_read_come_together_with_all_else(program: Path) -> None:
    projects = program / "projects"
    (projects / "broken.yaml").write_text("a: [")
    (projects / "double.yaml").write_text("kind: frontend\nkind: frontend\n")
    (projects / "bytes.yaml").write_bytes(b"kind: \xff")
    (projects / "short.yml").write_text(FRONTEND)
    (projects / "label.yaml").write_text("kind: frontend\nreplica: 3\n")
    lines = build(program)
    assert [line.split(": ")[0] for line in lines] == [
        "projects/broken.yaml:line 1",
        "projects/bytes.yaml",
        "projects/double.yaml:line 2",
        "projects/label.yaml:replica",
        "projects/short.yml",
    ]


def test_a_file_that_does_not_parse_is_no_missing_project(program: Path) -> None:
    (program / "projects" / "packet.yaml").write_text("a: [")
    (line,) = build(program)
    assert line.startswith("projects/packet.yaml:line 1: not readable as YAML: ")


def test_environments_are_those_of_the_stack_files(program: Path) -> None:
    (program / "Pulumi.uat.yaml").write_text("config:\n  package-platform:environment: {namespace: n}\n")
    (program / "Pulumi.uat-two.yaml").write_text("config:\n  package-platform:environment: {name: uat}\n")
    (program / "Pulumi.prod.yaml").write_text("config: [")
    assert environment_names(program, "test") == ["prod", "test", "uat"]


@pytest.mark.parametrize(
    "content", [b"# nothing yet\n", b"config:\n  package-platform:environment: {name: 5}\n", b"\xff", b"a: !!int two\n"]
)
def test_another_stacks_broken_file_is_its_own_problem(program: Path, content: bytes) -> None:
    (program / "Pulumi.other.yaml").write_bytes(content)
    assert environment_names(program, "test") == ["other", "test"]
    (program / "projects" / "packet.yaml").write_text(f"{FRONTEND}environments: {{other: {{replicas: 3}}}}\n")
    assert build_stack(program, "Pulumi.test.yaml", "test", CONFIG).applications


def deployed(name: str, image: str) -> dict[str, Any]:
    """Return the resources of a project that is deployed, as the engine tells of them."""
    record = Record(live="main", slots={"main": Slot(release=Release(tag="1"), revision="r")}, history=())
    metadata = {"name": kubernetes_name(name), "annotations": {GITEA_PROJECT: name}}
    recorded = {GITEA_PROJECT: name, RECORD_ANNOTATION: record.to_annotation()}
    containers = [{"image": image}, {"image": "harbor.example.com/other:1"}]
    return {
        "urn:1": {
            "type": "kubernetes:core/v1:Service",
            "outputs": {"metadata": {**metadata, "annotations": recorded}},
        },
        "urn:2": {
            "type": "kubernetes:apps/v1:Deployment",
            "outputs": {"metadata": metadata, "spec": {"template": {"spec": {"containers": containers}}}},
        },
        "urn:3": {"type": "kubernetes:core/v1:Service", "outputs": {"metadata": {"name": "label", "annotations": {}}}},
    }


def test_a_project_does_not_take_the_objects_of_one_that_is_called_like_it(program: Path) -> None:
    stack = build_stack(program, "Pulumi.test.yaml", "test", CONFIG)
    assert without_renames(stack, owners_of(deployed("packet", "harbor.example.com/front/packet:1"))) == stack
    with pytest.raises(SettingsError) as caught:
        without_renames(stack, owners_of(deployed("Packet", "harbor.example.com/front/packet:1")))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("projects/packet.yaml: in Kubernetes it is called packet, as Packet is, which is deployed: ")


@pytest.mark.parametrize("digest", ["@sha256:aa", ""])
def test_what_nobody_asked_to_be_released_stays_where_it_is(program: Path, digest: str) -> None:
    """Also when the registry has moved: nobody has asked the new one whether it has the image."""
    resources = deployed("packet", f"old.example.com:5000/front/packet:1{digest}")
    stack = build_stack(program, "Pulumi.test.yaml", "test", {**CONFIG, "tags": {}})
    cluster = InCluster(repositories=repositories_of(resources))
    (packet,) = with_records(stack, records_of(resources), cluster).deployed
    assert packet.image is not None
    assert (packet.kept, packet.image.repository) == (True, "old.example.com:5000/front/packet")
    asked = build_stack(program, "Pulumi.test.yaml", "test", CONFIG)
    (packet,) = (each for each in with_records(asked, records_of(resources), cluster).deployed if each.name == "packet")
    assert packet.image is not None
    assert packet.image.repository == "harbor.example.com/front/packet"


def test_an_editors_lock_is_no_project(program: Path) -> None:
    (program / "projects" / ".#web.yaml").symlink_to("nowhere")
    (program / "projects" / "gone.yaml").symlink_to("nowhere")
    problems: list[Problem] = []
    files = read_projects(program, problems)
    assert "projects/.#web.yaml" not in files
    assert [(each.file, each.message) for each in problems if "gone" in each.file] == [
        ("projects/gone.yaml", "can't be read: No such file or directory")
    ]


def test_other_files_are_no_projects(program: Path) -> None:
    (program / "projects" / "README.md").write_text("hello")
    assert list(read_projects(program, [])) == ["projects/label.yaml", "projects/packet.yaml"]


def answers(monkeypatch: pytest.MonkeyPatch, answer: str | RegistryError) -> None:
    def digests(_: Registry, images: set[tuple[str, str]]) -> dict[tuple[str, str], str | RegistryError]:
        return dict.fromkeys(images, answer)

    monkeypatch.setattr(Registry, "digests", digests)


def test_digests_are_pinned(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "sha256:aa")
    stack = resolve(build_stack(program, "Pulumi.test.yaml", "test", CONFIG), "Pulumi.test.yaml")
    assert {each.image.reference for each in stack.deployed if each.image} == {
        "harbor.example.com/front/packet:1@sha256:aa",
        "harbor.example.com/front/label:1@sha256:aa",
    }


def told(stack: Stack, **digests: str) -> Application:
    """Return the project packet as a run of `release` has it that has asked the registry."""
    (application,) = instructed(stack, Instruction(project="packet", digests=digests)).applications
    return application


def test_what_release_has_asked_is_not_asked_again(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, RegistryError("it is down"))
    (program / "projects" / "packet.yaml").write_text("kind: frontend\nstrategy: canary\nroutes: [{host: packet}]\n")
    canaries = {"packet": {"tag": "2", "weight": 10}}
    stack = build_stack(program, "Pulumi.test.yaml", "test", {**CONFIG, "canaries": canaries})
    both = told(stack, tags="sha256:aa", canaries="sha256:bb")
    assert resolve(stack.model_copy(update={"applications": (both,)}), "Pulumi.test.yaml").applications == (both,)
    assert both.image is not None
    assert (both.image.digest, both.canary_digest) == ("sha256:aa", "sha256:bb")
    assert list(told(stack, tags="sha256:aa").images_to_ask()) == ["canaries"]
    assert list(told(stack).images_to_ask()) == ["tags", "canaries"]
    put_back = told(stack, tags="sha256:aa").model_copy(update={"action": "restore"})
    assert put_back.images_to_ask() == {}, "it goes by what is recorded of the canary, not by what is wished"


def test_a_stack_that_does_not_pin_is_not_pinned_by_what_release_knows(program: Path) -> None:
    registry = {"host": "harbor.example.com", "pinDigests": False}
    config = {**CONFIG, "environment": {**CONFIG["environment"], "registry": registry}}
    application = told(build_stack(program, "Pulumi.test.yaml", "test", config), tags="sha256:aa")
    assert application.image is not None
    assert application.image.reference == "harbor.example.com/front/packet:1"


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (ImageMissingError("no image"), ["tags.label: no image", "tags.packet: no image"]),
        (RegistryError("it is down"), ["environment.registry: it is down"]),
    ],
)
def test_what_the_registry_lacks_is_a_line_for_each_image_and_its_own_fault_one_line(
    program: Path, monkeypatch: pytest.MonkeyPatch, answer: RegistryError, lines: list[str]
) -> None:
    answers(monkeypatch, answer)
    with pytest.raises(SettingsError) as caught:
        resolve(build_stack(program, "Pulumi.test.yaml", "test", CONFIG), "Pulumi.test.yaml")
    assert str(caught.value).splitlines() == [f"Pulumi.test.yaml:package-platform:{line}" for line in lines]
