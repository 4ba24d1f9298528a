"""Encrypted files of the config repository: what counts as one, what stands for its content, and what is told of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from config_repository import ConfigRepository, read
from model.configuration import Configuration, Content
from model.problems import SettingsError
from model.project import parse_project
from model.sops import encrypted_values
from model.stack import Application
from tests.unit.config_checkout import Checkout

PLANTED = "planted-2d9f"
PROJECT = "Some.Api"
VALUE = "ENC[AES256_GCM,data:YQ==,iv:aa,tag:bb,type:str]"
NOTES = {"mac": VALUE, "lastmodified": "2026-01-01T00:00:00Z", "version": "3.13.3"}
LINES = f"sops_mac={VALUE}\nsops_version=3.13.3\n"
FORMS = {
    "x.json": json.dumps({"a": VALUE, "sops": NOTES}, indent="\t"),
    "x.yaml": f"a: {VALUE}\nsops:\n    mac: {VALUE}\n    version: 3.13.3\n",
    "x.env": f"A={VALUE}\n{LINES}",
    "x.ini": f"[s]\na = {VALUE}\n\n[sops]\nmac     = {VALUE}\n",
    "x.pem": json.dumps({"data": VALUE, "sops": NOTES}, indent="\t"),
}
STAND_IN = """#!/usr/bin/env python3
import json, os, sys
text = sys.stdin.read()
assert sys.argv[1:3] == ["decrypt", "--filename-override"], sys.argv
if os.environ.get("STAND_IN_SAYS"):
    print(os.environ["STAND_IN_SAYS"], file=sys.stderr)
    sys.exit(25)
print(os.environ.get("STAND_IN", "") if sys.argv[3].endswith(".json") else "TOKEN=planted-2d9f")
"""


@pytest.fixture
def sops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A stand-in for sops on PATH; the real one has a test on its own."""
    program = tmp_path / "bin" / "sops"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("STAND_IN", json.dumps({"Password": PLANTED}))
    return monkeypatch


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path / "config")
    made.commit({"uat/common/s.json": FORMS["x.json"], "common/secrets.env": FORMS["x.env"], "common/a.json": "{}"})
    return made


def content(checkout: Checkout, *, decrypting: bool = True, **config: Any) -> Content:
    project = parse_project(f"projects/{PROJECT}.yaml", {"kind": "backend", "config": config}, "uat")
    application = Application(gitea_name=PROJECT, file=f"projects/{PROJECT}.yaml", project=project, image=None)
    found = read(ConfigRepository(checkout.folder), application, "uat", "", "config", decrypting=decrypting)
    assert found is not None
    return found


def problems(checkout: Checkout, **config: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        content(checkout, **config)
    assert PLANTED not in str(caught.value)
    return str(caught.value)


WANTED: dict[str, Any] = {
    "mount": "/app/config",
    "files": ["a.json"],
    "secretFiles": ["s.json"],
    "secretEnv": "secrets.env",
}


@pytest.mark.parametrize("file", list(FORMS))
def test_what_sops_notes_is_no_part_of_the_content(file: str) -> None:
    whole = FORMS[file]
    values = encrypted_values(f"some/{file}", whole.encode())
    assert values is not None
    assert VALUE in values
    assert "mac" not in values
    changed = whole.replace("3.13.3", "3.14.0").replace("2026-01-01", "2026-02-02")
    assert encrypted_values(file, changed.encode()) == values
    assert encrypted_values(file, whole.replace("data:YQ==", "data:Yg==", 1).encode()) != values


@pytest.mark.parametrize(
    ("file", "text", "values"),
    [
        ("x.yaml", FORMS["x.yaml"], f'{{"a": "{VALUE}"}}'),
        (
            "x.yaml",
            f"ports:\n  80: {VALUE}\n  9: b\n  2.5: c\n'8': d\ntrue: e\nwhen: 2024-02-28\nsops: {{mac: x}}\n",
            f'{{"8": "d", "True": "e", "ports": {{"2.5": "c", "9": "b", "80": "{VALUE}"}}, "when": "2024-02-28"}}',
        ),
    ],
)
def test_what_stands_for_a_file_stays_from_version_to_version(file: str, text: str, values: str) -> None:
    """Pods are made anew when it changes: expected as it is written here, not as it is computed."""
    assert encrypted_values(file, text.encode()) == values


@pytest.mark.parametrize(
    "keys",
    [
        ("80", "http"),
        ("80", "true"),
        ("2024-02-28", "2024-02-29"),
        ("2024-02-28", "b"),
        ("null", "1"),
        ("? !!binary YQ==", "x"),
    ],
)
def test_keys_of_yaml_may_be_of_any_kind(keys: tuple[str, str]) -> None:
    inner = f"{{{keys[0]}: '{VALUE}', {keys[1]}: '{VALUE.replace('YQ==', 'Yg==')}'}}"
    whole = f"ports: [{{a: {inner}}}]\nsops: {{mac: x}}\n"
    values = encrypted_values("x.yaml", whole.encode())
    assert values is not None
    assert values == encrypted_values("x.yaml", whole.encode())
    for data in ("YQ==", "Yg=="):
        assert encrypted_values("x.yaml", whole.replace(data, "Yw==").encode()) != values


def test_each_document_of_a_yaml_file_is_encrypted_by_itself() -> None:
    notes = f"sops:\n    mac: {VALUE}\n    version: 3.13.3\n"
    whole = f"a: {VALUE}\n{notes}---\nb: {VALUE.replace('YQ==', 'Yg==')}\n{notes}"
    values = encrypted_values("x.yaml", whole.encode())
    assert values is not None
    assert values.count(VALUE[:16]) == 2
    assert "mac" not in values
    assert encrypted_values("x.yaml", whole.replace("3.13.3", "3.14.0").encode()) == values
    assert encrypted_values("x.yaml", whole.replace("data:Yg==", "data:Yw==").encode()) != values
    # One that a person has added is for sops to find: its MAC is of all documents.
    added = encrypted_values("x.yaml", f"{whole}---\nc: plain\n".encode())
    assert added is not None
    assert "plain" in added


@pytest.mark.parametrize("file", ["x.ini", "x.env", "x.yaml"])
def test_lines_may_end_as_windows_ends_them(file: str) -> None:
    values = encrypted_values(file, FORMS[file].replace("\n", "\r\n").encode())
    assert values is not None
    assert VALUE in values
    assert "mac" not in values


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("x.json", '{"a": 1}'),
        ("x.json", '{"a": 1, "sops": {"mac": "x"}}'),
        ("x.json", '{"a": "ENC[AES256_GCM,data:", "sops": 1}'),
        ("x.yaml", "a: [\n"),
        ("x.env", "A=1\n"),
        ("x.ini", "[s]\na=1\n"),
        ("x.bin", b"\xff\x00"),
        ("x.txt", "- a"),
    ],
)
def test_other_files_are_not_encrypted(file: str, text: str | bytes) -> None:
    assert encrypted_values(file, text if isinstance(text, bytes) else text.encode()) is None


def test_encrypted_files_become_secrets(checkout: Checkout, sops: pytest.MonkeyPatch) -> None:
    found = content(checkout, **WANTED)
    assert found.files == {"a.json": b"{}"}
    assert {key: json.loads(value.get_secret_value()) for key, value in found.secret_files.items()} == {
        "s.json": {"Password": PLANTED}
    }
    assert {key: value.get_secret_value() for key, value in found.secret_env.items()} == {"TOKEN": PLANTED.encode()}
    assert PLANTED not in repr(found)
    assert sops is not None


def test_who_does_not_decrypt_gets_the_same_hash(checkout: Checkout, sops: pytest.MonkeyPatch) -> None:
    whole = content(checkout, **WANTED)
    sops.setenv("STAND_IN_SAYS", "must not be asked")
    assert content(checkout, decrypting=False, **WANTED).ref == whole.ref
    checkout.commit({"uat/common/s.json": FORMS["x.json"].replace("data:YQ==", "data:Yg==", 1)})
    other = content(checkout, decrypting=False, **WANTED).ref
    assert other != whole.ref
    assert other.digest == whole.ref.digest, "what is not secret stays the same"


def test_what_should_be_encrypted_must_be(checkout: Checkout) -> None:
    checkout.commit({"uat/common/s.json": json.dumps({"Password": PLANTED})})
    line = problems(checkout, **WANTED)
    assert "config/uat/common/s.json: is not encrypted, as config.secretFiles.0 says" in line
    line = problems(checkout, mount="/app/config", files=["a.json"], env="secrets.env")
    assert "config/common/secrets.env: is encrypted with sops, and config.env would hand it on so" in line


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Failed to get the data key required to decrypt", "let SOPS_AGE_KEY_FILE name the file with a key"),
        (f"MAC mismatch. File has {PLANTED}, computed X", "was changed by hand after it was encrypted"),
        (f"Error: cannot read {PLANTED}", "can't be decrypted: `sops decrypt` in the checkout says why (exit code 25)"),
    ],
)
def test_nothing_of_what_sops_says_is_handed_on(
    checkout: Checkout, sops: pytest.MonkeyPatch, said: str, told: str
) -> None:
    sops.setenv("STAND_IN_SAYS", said)
    assert [told in line for line in problems(checkout, **WANTED).splitlines()] == [True, True]


def test_a_syntax_error_quotes_nothing(checkout: Checkout, sops: pytest.MonkeyPatch) -> None:
    sops.setenv("STAND_IN", f'{{"a": {PLANTED}}}')
    assert problems(checkout, **WANTED).startswith("config/uat/common/s.json:line 1: not readable")


def test_without_sops_the_error_says_what_to_install(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ConfigRepository.contents

    def then_without(repository: ConfigRepository, names: list[str]) -> dict[str, bytes]:
        found = real(repository, names)
        monkeypatch.setenv("PATH", "/nowhere")
        return found

    monkeypatch.setattr(ConfigRepository, "contents", then_without)
    assert "`sops` is not on PATH: install it" in problems(checkout, **WANTED)


def test_one_variable_in_two_files(checkout: Checkout, sops: pytest.MonkeyPatch) -> None:
    checkout.commit({"common/.env": "TOKEN=1\n"})
    assert "env.TOKEN: is in an encrypted file too" in problems(checkout, env=".env", secretEnv="secrets.env")
    assert sops is not None


def test_mount_is_for_encrypted_files_too() -> None:
    assert Configuration.model_validate({"mount": "/a", "secretFiles": ({"file": "b"},)}).takes("/a/b")


@pytest.mark.parametrize(
    "text",
    [
        *("when: 2024-02-30\n", "a: 0b_\n", "a: !!bool x\n", "a: !!int ''\n", "a: !!timestamp x\n"),
        *("[" * 5000, "{" * 5000, "a: &a [*a]\nsops: {}\n"),
    ],
)
@pytest.mark.parametrize("mark", ["", f"b: {VALUE}\n"])
def test_any_text_can_be_asked_about(text: str, mark: str) -> None:
    assert encrypted_values("x.yaml", (mark + text).encode()) is None
