"""Secrets in the program under mocks: what is declared, and that the engine is told that it is secret."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime.config import set_all_config

import settings
from model.problems import Problem
from model.release import INSTRUCTION_VARIABLE, RECORD_ANNOTATION, Instruction, Record, parse_record
from tests.program.conftest import Recording, Run
from tests.unit.test_secrets import certificate

API, PACKET = "SJZY.Package.Api", "packet"
PLANTED = "planted-5f1c"
KEY = "k" * 32
FIELDS: dict[str, Any] = {"secrets": {"env": ["Db__Main"]}}
MARK = "1b47061264138c4ac30d75fd1eb44270"
"""Pulumi's sign of a secret, where a value of a resource would be."""


Secret = Callable[..., Recording]


@pytest.fixture
def secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> Secret:
    """Run the stack `test`, in which two projects take a secret."""
    read = settings.read_projects

    def with_secrets(program: Path, problems: list[Problem]) -> dict[str, object]:
        files: dict[str, Any] = read(program, problems)
        for name in (API, PACKET):
            file = f"projects/{name}.yaml"
            files[file] = {**files[file], **FIELDS}
        return files

    monkeypatch.setattr(settings, "read_projects", with_secrets)

    def run_secret(value: str = PLANTED, **more: Any) -> Recording:
        values = {API: {"Db__Main": value}, PACKET: {"Db__Main": value}}
        return run("test", secretKey=KEY, secrets=values, **more)

    return run_secret


def secrets(recording: Recording, project: str) -> dict[str, dict[str, str]]:
    """Return the Secrets of a project: name → key → text; each must be marked."""
    found: dict[str, dict[str, str]] = {}
    for each in recording.of("Secret"):
        if each.name.startswith(f"{project}-secrets-"):
            data = each.inputs["data"]
            assert MARK in data.values(), "the engine is told that it is secret"
            found[each.inputs["metadata"]["name"]] = {
                key: base64.b64decode(value).decode() for key, value in data["value"].items()
            }
    return found


def named(recording: Recording, deployment: str) -> set[str]:
    """Return the Secrets that a Deployment's pods need."""
    (found,) = (each for each in recording.of("Deployment") if each.name == deployment)
    (own, *_) = found.inputs["spec"]["template"]["spec"]["containers"]
    return {
        each["valueFrom"]["secretKeyRef"]["name"] for each in own["env"] if "secretKeyRef" in each.get("valueFrom", {})
    }


@pytest.mark.usefixtures("run")
def test_a_key_of_digits_is_a_text() -> None:
    set_all_config({"package-platform:secretKey": "1" * 32, "package-platform:platform": "true"})
    assert settings._stack_config() == {"secretKey": "1" * 32, "platform": True}  # pyright: ignore[reportPrivateUsage]


def state(*recordings: Recording) -> dict[str, Any]:
    """Return what the engine would tell the next run of, with secrets decrypted as it does."""

    def outputs(inputs: dict[str, Any]) -> dict[str, Any]:
        data = inputs.get("data", {})
        return {**inputs, "data": data["value"]} if MARK in data.values() else inputs

    return {
        f"{each.type}::{each.name}": {"type": each.type, "outputs": outputs(each.inputs)}
        for recording in recordings
        for each in (*recording.of("Service"), *recording.of("Secret"))
    }


def record_of(recording: Recording, name: str) -> Record:
    (service,) = (each for each in recording.of("Service") if each.name == name)
    record = parse_record(service.inputs["metadata"]["annotations"][RECORD_ANNOTATION])
    assert record is not None
    return record


def test_pods_name_a_secret_that_the_engine_knows_as_one(secret: Secret) -> None:
    recording = secret()
    found = secrets(recording, API)
    assert list(found.values()) == [{"Db__Main": PLANTED}]
    assert named(recording, f"{API}-main") == set(found)
    shown = [each.inputs for each in recording.declared if not each.type.endswith(":Secret")]
    assert PLANTED not in f"{shown}{recording.outputs}"
    assert base64.b64encode(PLANTED.encode()).decode() not in f"{shown}{recording.outputs}"


def test_another_value_touches_only_who_takes_it(secret: Secret) -> None:
    first = secret()
    second = secret("other", earlier=state(first))
    before, after = ({each.name: each.inputs for each in recording.of("Deployment")} for recording in (first, second))
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {f"{API}-main", f"{PACKET}-green"}
    assert list(secrets(second, API).values()) == [{"Db__Main": "other"}], "nobody needs the old one"


def test_a_warm_colour_keeps_its_secret(secret: Secret) -> None:
    first = secret()
    second = secret("other", earlier=state(first))
    assert sorted(each["Db__Main"] for each in secrets(second, PACKET).values()) == ["other", PLANTED]
    assert secrets(first, PACKET).items() <= secrets(second, PACKET).items()
    third = secret("other", earlier=state(first, second))
    assert secrets(third, PACKET) == secrets(second, PACKET)
    back = secret(earlier=state(first, second))
    assert record_of(back, PACKET).live == "blue", "the warm colour has the old value"


def test_what_failed_is_put_back_with_the_secret_that_it_had(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    first = secret()
    instruction = Instruction(project=API, action="restore", records={"sjzy-package-api": record_of(first, API)})
    monkeypatch.setenv(INSTRUCTION_VARIABLE, instruction.model_dump_json())
    restored = secret("other", earlier=state(first))
    assert secrets(restored, API) == secrets(first, API)
    assert named(restored, f"{API}-main") == named(first, f"{API}-main")


def test_pull_credentials_are_one_secret_that_accounts_name(secret: Secret) -> None:
    environment = settings.read_stack_file(settings.PROGRAM, "test")["environment"]
    environment["registry"]["pullSecret"] = "registry"
    recording = secret(environment=environment, registryCredentials={"username": "robot", "password": PLANTED})
    pulling = [each for each in recording.of("Secret") if each.inputs["metadata"]["name"] == "registry"]
    assert {each.inputs["metadata"]["namespace"] for each in pulling} == {"package-test", "package-ingress"}
    assert all(MARK in each.inputs["data"].values() for each in pulling)
    accounts = recording.of("ServiceAccount")
    assert all(each.inputs["imagePullSecrets"] == [{"name": "registry"}] for each in accounts)


def test_the_ingress_gets_its_certificate(secret: Secret) -> None:
    environment = settings.read_stack_file(settings.PROGRAM, "test")["environment"]
    environment["ingress"]["ha"]["tls"] = {"secret": "tls"}
    pem, key = certificate()
    recording = secret(environment=environment, ingressCertificate={"certificate": pem, "key": key})
    (found,) = (each.inputs for each in recording.of("Secret") if each.inputs["metadata"]["name"] == "tls")
    assert (found["type"], found["metadata"]["namespace"]) == ("kubernetes.io/tls", "package-ingress")
    assert MARK in found["data"].values()
    assert base64.b64decode(found["data"]["value"]["tls.key"]).decode() == key


def test_a_plain_secret_stops_the_program(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: Path, stack: str) -> dict[str, Any]:
        return {"secrets": {API: {"Db__Main": PLANTED}}, "environment": {"name": stack}}

    monkeypatch.setattr(settings, "read_stack_file", read)
    with pytest.raises(pulumi.RunError) as caught:
        secret()
    assert f"secrets.{API}.Db__Main: is in plain text" in str(caught.value)
    assert PLANTED not in str(caught.value)


def test_what_would_be_shown_must_not_be_encrypted(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PULUMI_CONFIG_SECRET_KEYS", '["package-platform:tags", "package-platform:secrets", "other:key"]'
    )
    with pytest.raises(pulumi.RunError, match=r"package-platform:tags: is encrypted, and only secrets, secretKey"):
        secret()
