"""Configuration in the program under mocks: which ConfigMaps are declared, and which the pods name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

import settings
from model.problems import Problem
from model.release import INSTRUCTION_VARIABLE, RECORD_ANNOTATION, Instruction, Record, parse_record
from tests.program.conftest import Recording, Run
from tests.unit.config_checkout import Checkout

API, PACKET = "SJZY.Package.Api", "packet"
CONFIG: dict[str, dict[str, Any]] = {
    API: {"mount": "/app/config", "files": ["appsettings.json"], "env": ".env"},
    PACKET: {"files": [{"file": "env.js", "path": "/usr/share/nginx/html/env.js"}]},
}
FILES = {
    f"test/{API}/appsettings.json": '{"a": 1}',
    "test/common/.env": "REGION=north\n",
    "common/packet/env.js": "window.env = 1",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path / "config")
    made.commit(FILES)
    return made


@pytest.fixture
def configured(run: Run, checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the stack `test`, in which two of the projects have configuration."""
    read = settings.read_projects

    def with_config(program: Path, problems: list[Problem]) -> dict[str, object]:
        files: dict[str, Any] = read(program, problems)
        for name, config in CONFIG.items():
            file = f"projects/{name}.yaml"
            files[file] = {**files[file], "config": config}
        return files

    monkeypatch.setattr(settings, "read_projects", with_config)

    def run_configured(**more: Any) -> Recording:
        return run("test", configPath=str(checkout.folder), **more)

    return run_configured


Configured = Callable[..., Recording]


def state(*recordings: Recording) -> dict[str, Any]:
    """Return the resources that the engine would tell the next run of; what is declared twice is the latest."""
    return {
        f"{each.type}::{each.name}": {"type": each.type, "outputs": each.inputs}
        for recording in recordings
        for each in (*recording.of("Service"), *recording.of("ConfigMap"))
    }


def config_maps(recording: Recording, project: str) -> dict[str, Mapping[str, str]]:
    return {
        each.inputs["metadata"]["name"]: each.inputs["data"]
        for each in recording.of("ConfigMap")
        if each.name.startswith((f"{project}-config-", f"{project}-env-"))
    }


def pods(recording: Recording) -> dict[str, dict[str, Any]]:
    return {each.name: each.inputs["spec"]["template"]["spec"] for each in recording.of("Deployment")}


def named(pod: Mapping[str, Any]) -> set[str]:
    """Return the ConfigMaps that a pod needs."""
    volumes = {each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each}
    variables = {
        each["configMapRef"]["name"] for container in pod["containers"] for each in container.get("envFrom", [])
    }
    return {name for name in volumes | variables if "-assets-" not in name}


def record_of(recording: Recording, name: str) -> Record:
    (service,) = (each for each in recording.of("Service") if each.name == name)
    record = parse_record(service.inputs["metadata"]["annotations"][RECORD_ANNOTATION])
    assert record is not None
    return record


def test_pods_name_the_configmaps_that_are_declared(configured: Configured, checkout: Checkout) -> None:
    first = configured()
    maps = config_maps(first, API)
    assert sorted(map(dict, maps.values()), key=str) == [{"REGION": "north"}, {"appsettings.json": '{"a": 1}'}]
    assert named(pods(first)[f"{API}-main"]) == maps.keys()
    (packet,) = config_maps(first, PACKET)
    assert named(pods(first)[f"{PACKET}-blue"]) == {packet}
    assert all(each.inputs["immutable"] for each in first.of("ConfigMap"))
    assert first.outputs["releases"][API]["config"] == checkout.git("rev-parse", "HEAD")
    assert "config" not in first.outputs["releases"]["packet_label"]


def test_a_commit_releases_only_the_projects_whose_files_changed(configured: Configured, checkout: Checkout) -> None:
    first = configured()
    checkout.commit({f"test/{API}/appsettings.json": '{"a": 2}'})
    second = configured(earlier=state(first))
    before, after = ({each.name: each.inputs for each in record.of("Deployment")} for record in (first, second))
    assert {name for name in after if before.get(name) != after[name]} == {f"{API}-main"}
    assert record_of(second, PACKET) == record_of(first, PACKET)
    services = ({each.name: each.inputs for each in record.of("Service")} for record in (first, second))
    old, new = services
    assert {name for name in new if old[name] != new[name]} == {API}, "no record changed but the one"
    contents = [data["appsettings.json"] for data in config_maps(second, API).values() if "appsettings.json" in data]
    assert contents == ['{"a": 2}'], "a rolling project needs the old one only until its pods are gone"


def test_a_warm_colour_keeps_its_configmap(configured: Configured, checkout: Checkout) -> None:
    first = configured()
    checkout.commit({"common/packet/env.js": "window.env = 2"})
    second = configured(earlier=state(first))
    assert sorted(data["env.js"] for data in config_maps(second, PACKET).values()) == [
        "window.env = 1",
        "window.env = 2",
    ]
    assert record_of(second, PACKET).live == "green"
    assert named(pods(second)[f"{PACKET}-blue"]) | named(pods(second)[f"{PACKET}-green"]) == set(
        config_maps(second, PACKET)
    )
    third = configured(earlier=state(first, second))
    assert config_maps(third, PACKET) == config_maps(second, PACKET)
    checkout.commit({"common/packet/env.js": "window.env = 3"})
    fourth = configured(earlier=state(first, third))
    assert sorted(data["env.js"] for data in config_maps(fourth, PACKET).values()) == [
        "window.env = 2",
        "window.env = 3",
    ], "the first one is needed by nobody"


def test_a_named_commit_is_what_is_read(configured: Configured, checkout: Checkout) -> None:
    before = checkout.git("rev-parse", "HEAD")
    checkout.commit({f"test/{API}/appsettings.json": '{"a": 2}'})
    recording = configured(configRevisions={API: before})
    assert '{"a": 1}' in [data.get("appsettings.json") for data in config_maps(recording, API).values()]


def test_a_stale_checkout_stops_the_program(configured: Configured, checkout: Checkout) -> None:
    checkout.commit({f"test/{API}/appsettings.json": '{"a": 2}'})
    first = configured()
    checkout.git("reset", "--hard", "--quiet", "HEAD~1")
    with pytest.raises(
        pulumi.RunError, match=rf"configRevisions\.{API}: commit [0-9a-f]+ was replaced by [0-9a-f]+, which"
    ):
        configured(earlier=state(first))


def test_a_restored_release_gets_its_own_configuration(
    configured: Configured, checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = configured()
    checkout.commit({f"test/{API}/appsettings.json": '{"a": 2}'})
    instruction = Instruction(project=API, action="restore", records={"sjzy-package-api": record_of(first, API)})
    monkeypatch.setenv(INSTRUCTION_VARIABLE, instruction.model_dump_json())
    restored = configured(earlier=state(first))
    assert config_maps(restored, API) == config_maps(first, API)
    assert pods(restored)[f"{API}-main"] == pods(first)[f"{API}-main"]
    assert record_of(restored, API) == record_of(first, API)


def test_a_bad_file_stops_the_program_before_anything_is_declared(configured: Configured, checkout: Checkout) -> None:
    checkout.commit({f"test/{API}/appsettings.json": '{\n"a": }'})
    with pytest.raises(pulumi.RunError) as caught:
        configured()
    assert str(caught.value).splitlines()[1:] == [
        f"{checkout.folder}/test/{API}/appsettings.json:line 2: not readable as JSON: Expecting value, column 6"
    ]
