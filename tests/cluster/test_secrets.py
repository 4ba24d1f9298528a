"""Secrets on a real cluster: they reach the pods, and are seen nowhere else."""

import base64
import hashlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devcluster import toolchain
from devcluster.progress import Progress
from tests.cluster.leaks import Arguments, files_below, leaks, watched_arguments
from tests.cluster.program import Program, changed
from tests.cluster.releasing import Release
from tests.unit.config_checkout import Checkout

API, NAME = "SJZY.Package.Api", "sjzy-package-api"
FILE = f"test/{API}/appsettings.secrets.json"
PULL_SECRET = "registry"  # noqa: S105 - the name of one
FIELDS = """
env: {CONFIG_FILE: /app/config/appsettings.secrets.json}
config:
  mount: /app/config
  secretFiles: [appsettings.secrets.json]
  secretEnv: secrets.env
secrets:
  env: [PROJECT]
  files: [{name: signing.pem, path: /app/signing.pem}]
"""
"""The sample tells the variable PROJECT, and the hash of the file, in every answer."""
READ_BY_THE_ENGINE = 8
"""The highest verbosity at which Pulumi does not write every message to its plugins into its log."""
NAMED = '"valueFrom": {"secretKeyRef": {"name": name, "key": each}}'
SHOWN = '"value": there[each].get_secret_value().decode()'
"""A mistake that is easily made: the value in the pod instead of the Secret's name."""


@dataclass(frozen=True)
class Vault:
    """A config repository with encrypted files, and the key to them."""

    checkout: Checkout
    key: Path

    def commit(self, file: str, text: str) -> str:
        """Encrypt a file and commit it."""
        recipient = subprocess.run(["age-keygen", "-y", self.key], capture_output=True, text=True, check=True).stdout
        line = ["sops", "encrypt", "--age", recipient.strip(), "--filename-override", file]
        done = subprocess.run(line, input=text, capture_output=True, text=True, check=True)
        return self.checkout.commit({file: done.stdout})


@pytest.fixture
def vault(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    """The encrypted config repository that the stack reads; the next test begins without it."""
    toolchain.ensure(["sops", "age-keygen"], Progress(quiet=True))
    monkeypatch.setenv("PATH", program.cluster.env["PATH"])
    key = tmp_path / "key.txt"
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    checkout = Checkout(tmp_path / "config")
    program.config_set("configPath", str(checkout.folder))
    program.variables["SOPS_AGE_KEY_FILE"] = str(key)
    yield Vault(checkout, key)
    del program.variables["SOPS_AGE_KEY_FILE"]


@pytest.fixture
def release(program: Program, vault: Vault) -> Iterator[Release]:
    """The command for the stack `test`, with the key."""
    assert vault.key.exists()
    command = Release(program)
    yield command
    command.wait_until_gone()


def file_of(planted: str) -> str:
    return json.dumps({"Password": planted}, indent="\t")


def told(planted: str) -> str:
    """Return what the sample tells of the decrypted file; sops ends it with a line break."""
    return hashlib.sha256(f"{file_of(planted)}\n".encode()).hexdigest()[:12]


def secrets_of(program: Program, name: str = NAME) -> dict[str, str]:
    """Return all that the Secrets of a project hold: `Secret/key` → text."""
    return {
        f"{item['metadata']['name']}/{key}": base64.b64decode(value).decode()
        for item in program.get("secrets")
        if item["metadata"]["name"].startswith(name)
        for key, value in item["data"].items()
    }


def objects(program: Program) -> str:
    """Return everything of the namespace that is no Secret, and what happened there."""
    kinds = "configmaps,services,deployments,replicasets,pods,serviceaccounts,ingresses,events"
    return json.dumps(program.get(kinds))


def plant(program: Program, vault: Vault) -> dict[str, str]:
    """Put a secret into every place that may hold one, and return them."""
    places = ("stackVariable", "stackFile", "repositoryFile", "repositoryVariable", "registryPassword", "stackKey")
    planted = {place: f"planted{secrets.token_hex(16)}" for place in places}
    vault.commit(FILE, file_of(planted["repositoryFile"]))
    vault.commit(f"test/{API}/secrets.env", f"TOKEN={planted['repositoryVariable']}\n")
    program.config_set_secret("secretKey", planted["stackKey"])
    program.config_set_secret(f'secrets["{API}"].PROJECT', planted["stackVariable"])
    program.config_set_secret(f'secrets["{API}"]["signing.pem"]', planted["stackFile"])
    program.config_set("registryCredentials.username", "robot")
    program.config_set_secret("registryCredentials.password", planted["registryPassword"])
    program.config_set("environment.registry.pullSecret", PULL_SECRET)
    program.append(API, FIELDS)
    return planted


@pytest.mark.soak
def test_secrets_reach_the_pods_and_nothing_else(program: Program, release: Release, vault: Vault) -> None:
    texts: dict[str, str] = {}
    logs: dict[str, str] = {}

    def noted(name: str, finished: subprocess.CompletedProcess[str], into: dict[str, str] = texts) -> None:
        into[name] = finished.stdout + finished.stderr

    with watched_arguments() as arguments:
        planted = plant(program, vault)
        quiet = f"-v={READ_BY_THE_ENGINE}"
        noted(f"preview {quiet}", program.preview(quiet, "--logtostderr"))
        noted("up -v=10", program.pulumi("up", "--yes", "--color=never", "-v=10", "--logtostderr"), logs)
        program.wait_until_settled()
        noted("refresh", program.refresh())
        noted("export", program.pulumi("stack", "export"))
        noted("history", program.pulumi("stack", "history", "--json"))
        noted("outputs", program.pulumi("stack", "output", "--json"))
        tag = program.tags[API]
        for words in (("status",), ("history", API), ("diff", API, tag), ("deploy", API, tag)):
            answer = release(*words)
            texts[f"release {words[0]}"] = json.dumps(answer.said) + answer.progress
    answer = program.answer(API).json()
    assert answer["project"] == planted["stackVariable"], "the variable is in the pod"
    assert answer["config"] == told(planted["repositoryFile"]), "the file is in the pod"
    there = secrets_of(program)
    kept = {json.loads(text)["Password"] if text.startswith("{") else text for text in there.values()}
    mine = {value for place, value in planted.items() if place not in ("registryPassword", "stackKey")}
    assert kept == mine, "all of them are in Secrets"
    assert planted["registryPassword"] in secrets_of(program, PULL_SECRET)[f"{PULL_SECRET}/.dockerconfigjson"]
    texts |= {"objects": objects(program), **files_below(program.folder / "state"), **seen_in(arguments)}
    assert leaks(planted, texts) == []
    assert leaks(planted, logs, plain_only=True) == []
    assert leaks(planted, {"secrets": json.dumps(program.get("secrets"))}), "the search sees what is there"
    assert mistaken(program) == ["new in state"], "and what should not be there"


def seen_in(arguments: Arguments) -> dict[str, str]:
    """Return what was seen of the arguments, once it is clear that the interesting ones were."""
    for program in ("pulumi", "sops", "pulumi-resource-kubernetes"):
        assert arguments.of(program), f"no process of {program} was seen"
    return {"arguments": "\n".join(arguments.seen)}


def mistaken(program: Program) -> list[str]:
    """Return what the search finds of a new secret when the program puts it into the pods as it is."""
    file = program.folder / "manifests" / "secrets.py"
    text, planted = file.read_text(), f"planted{secrets.token_hex(16)}"
    assert NAMED in text
    program.config_set_secret(f'secrets["{API}"].PROJECT', planted)
    with changed(file, text.replace(NAMED, SHOWN)):
        program.up()
    return leaks({"new": planted}, {"state": program.pulumi("stack", "export").stdout})


@pytest.mark.soak
def test_another_secret_is_rolled_out_and_a_file_comes_back_with_its_release(
    program: Program, release: Release, vault: Vault
) -> None:
    planted = plant(program, vault)
    program.up()
    program.wait_until_settled()
    tag = program.tags[API]
    before = secrets_of(program)
    program.config_set_secret(f'secrets["{API}"].PROJECT', "second")
    vault.commit(FILE, file_of("second"))
    release("deploy", API, tag)
    program.wait_until_settled()
    answer = program.answer(API).json()
    assert (answer["project"], answer["config"]) == ("second", told("second"))
    after = secrets_of(program)
    assert not before.keys() & after.keys(), "each content has a Secret of its own, and the old ones are gone"
    assert len(after) == len(before)
    release("rollback", API)
    program.wait_until_settled()
    answer = program.answer(API).json()
    assert answer["config"] == told(planted["repositoryFile"]), "the file is the release's"
    assert answer["project"] == "second", "a password that was changed is the right one for every release"
    before = program.identities()
    program.variables["SOPS_AGE_KEY_FILE"] = str(vault.key.with_name("none"))
    failed = program.up(check=False)
    assert failed.returncode != 0
    assert f"{FILE}: is encrypted for others: let SOPS_AGE_KEY_FILE name" in failed.stdout + failed.stderr
    assert program.identities() == before
