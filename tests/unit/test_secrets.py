"""Secrets in the model: what is asked for, what is refused, and that no value is ever shown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretBytes, SecretStr

from manifests.package_app import package_app, package_app_plan
from model.plan import Plan
from model.problems import SettingsError
from model.release import Record, Release, Slot
from model.secrets import MASKED, masked, plain_secrets, secrets_digest, stored_secret
from model.stack import Application, Stack, parse_stack
from settings import with_stored_secrets

FILE = "Pulumi.uat.yaml"
PLANTED = "planted-8s7df6"
KEY = "k" * 32
ENVIRONMENT: dict[str, Any] = {
    "namespace": "n",
    "domain": "example.com",
    "registry": {"host": "harbor.example.com", "pullSecret": "registry"},
}
PROJECT: dict[str, Any] = {
    "kind": "backend",
    "secrets": {"env": ["Db__Main"], "files": [{"name": "signing.pem", "path": "/app/signing.pem"}]},
}
SECRETS = {"Some.Api": {"Db__Main": PLANTED, "signing.pem": "pem"}}


def parsed(secrets: object = SECRETS, project: dict[str, Any] = PROJECT, **more: Any) -> Stack:
    data = {"environment": ENVIRONMENT, "tags": {"Some.Api": "1"}, "secretKey": KEY, "secrets": secrets, **more}
    return parse_stack(FILE, "uat", data, {"projects/Some.Api.yaml": project})


def problems(*arguments: Any, **more: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parsed(*arguments, **more)
    text = str(caught.value)
    assert PLANTED not in text
    return [line.removeprefix(f"{FILE}:package-platform:") for line in text.splitlines()]


def application(stack: Stack) -> Application:
    (found,) = stack.applications
    return found


def planned(stack: Stack) -> Plan:
    return package_app_plan(application(stack), stack.environment)


def certificate() -> tuple[str, str]:
    """Return a certificate and its key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1)).sign(key, SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM).decode(), private.decode()


def test_no_object_shows_a_value() -> None:
    stack = parsed(registryCredentials={"username": "robot", "password": PLANTED})
    assert PLANTED not in repr(stack)
    assert PLANTED not in str(application(stack))
    assert PLANTED not in stack.model_dump_json()
    assert PLANTED not in planned(stack).record.to_annotation()


def test_a_pod_names_the_secret_by_its_keyed_hash() -> None:
    stack = parsed()
    workload = package_app(application(stack), stack.environment, planned(stack))
    (secret,) = workload.secrets
    digest = secrets_digest(SecretStr(KEY), {name: SecretStr(value) for name, value in SECRETS["Some.Api"].items()})
    assert secret["metadata"]["name"] == f"some-api-secrets-{digest}"
    assert secret["immutable"]
    pod = workload.slots[0].deployment["spec"]["template"]["spec"]
    (own,) = pod["containers"]
    reference = {"secretKeyRef": {"name": secret["metadata"]["name"], "key": "Db__Main"}}
    assert {"name": "Db__Main", "valueFrom": reference} in own["env"]
    assert {"name": "secrets", "mountPath": "/app/signing.pem", "subPath": "signing.pem", "readOnly": True} in own[
        "volumeMounts"
    ]
    assert [each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each] == [secret["metadata"]["name"]]
    assert workload.service_account["imagePullSecrets"] == [{"name": "registry"}]


def test_a_hash_says_nothing_without_the_key() -> None:
    values = {"a": SecretStr("1")}
    one, other = (secrets_digest(SecretStr(key), values) for key in (KEY, "x" * 32))
    assert one != other
    assert one != secrets_digest(SecretStr(KEY), {"a": SecretStr("2")})
    assert one != secrets_digest(SecretStr(KEY), {"b": SecretStr("1")})


def test_another_value_makes_other_pods_but_no_other_release() -> None:
    before = planned(parsed()).record
    stack = parsed({"Some.Api": {**SECRETS["Some.Api"], "Db__Main": "other"}})
    after = package_app_plan(application(stack).model_copy(update={"record": before}), stack.environment).record
    assert after.slots["main"].revision != before.slots["main"].revision
    assert after.slots["main"].secrets != before.slots["main"].secrets
    assert after.history == before.history


def slots(**secrets: str) -> dict[Any, Slot]:
    return {name: Slot(release=Release(tag="1"), revision=name, secrets=digest) for name, digest in secrets.items()}


def stored(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"urn": {"type": "kubernetes:core/v1:Secret", "outputs": {"metadata": {"name": name}, "data": data}}}


def test_a_slot_with_replaced_secrets_gets_them_from_the_state() -> None:
    record = Record(live="blue", slots=slots(blue="old"), history=(Release(tag="1"),))
    stack = parsed()
    (own,) = stack.applications
    stack = stack.model_copy(update={"applications": (own.model_copy(update={"record": record}),)})
    resources = stored("some-api-secrets-old", {"Db__Main": "b2xk"})
    found = application(with_stored_secrets(stack, FILE, lambda: resources)).secret_values
    assert found["old"] == {"Db__Main": SecretBytes(b"old")}
    assert len(found) == 2
    assert set(application(with_stored_secrets(stack, FILE, dict)).secret_values) == {own.secrets}


def test_what_is_put_back_must_have_its_secrets() -> None:
    record = Record(live="main", slots=slots(main="old"), history=(Release(tag="1"),))
    stack = parsed()
    (own,) = stack.applications
    restored = own.model_copy(update={"record": record, "action": "restore"})
    stack = stack.model_copy(update={"applications": (restored,)})
    with pytest.raises(SettingsError, match=r"secrets\.Some\.Api: the secrets with which it runs \(old\) are not in"):
        with_stored_secrets(stack, FILE, dict)


def test_the_state_is_asked_only_when_needed() -> None:
    def fails() -> dict[str, object]:
        raise AssertionError("was asked")

    with_stored_secrets(parsed(), FILE, fails)


def test_what_is_damaged_in_the_state_is_not_taken() -> None:
    assert stored_secret(stored("x", {"a": "???"}), "x") is None
    assert stored_secret({}, "x") is None


@pytest.mark.parametrize(
    ("secrets", "lines"),
    [
        (
            {"Some.Api": {"Db__Main": PLANTED}},
            [
                "secrets.Some.Api.signing.pem: is needed by projects/Some.Api.yaml: `pulumi config set --secret --path "
                '\'package-platform:secrets["Some.Api"]["signing.pem"]\'`, which asks for it'
            ],
        ),
        (
            {"Some.Api": {**SECRETS["Some.Api"], "Db__Mian": PLANTED}},
            [
                "secrets.Some.Api.Db__Mian: projects/Some.Api.yaml takes no such secret; did you mean 'Db__Main'?",
            ],
        ),
        (
            {**SECRETS, "Some.Apl": {"x": PLANTED}},
            ["secrets.Some.Apl: there is no project file for it; did you mean 'Some.Api'?"],
        ),
        ({"Some.Api": PLANTED}, ["secrets.Some.Api: input should be an object"]),
        (PLANTED, ["secrets: input should be an object"]),
        (
            {"Some.Api": {**SECRETS["Some.Api"], "Db__Main": 5}},
            ["secrets.Some.Api.Db__Main: input should be a valid string"],
        ),
    ],
)
def test_bad_secrets(secrets: object, lines: list[str]) -> None:
    found = problems(secrets)
    assert [line for line in found if "is needed" not in line or line in lines] == lines


def test_a_short_or_missing_key() -> None:
    assert problems(secretKey="short") == ["secretKey: is shorter than 16 characters, so that it could be guessed"]
    (line,) = problems(secretKey=None)
    assert line.startswith("secretKey: is needed with secrets: `openssl rand -hex 32 | pulumi config set --secret")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"secrets": {}}, "names neither env nor files"),
        ({"secrets": {"env": ["A", "A"]}}, "two variables are A"),
        ({"secrets": {"env": ["A"]}, "env": {"A": "1"}}, "A is in env and in secrets.env"),
        (
            {"secrets": {"files": [{"name": "a", "path": "/app/a"}]}, "config": {"mount": "/app", "files": ["b"]}},
            "secrets.files has /app/a, which config has too",
        ),
    ],
)
def test_bad_project_files(fields: dict[str, Any], message: str) -> None:
    assert message in "\n".join(problems({}, {"kind": "backend", **fields}))


def test_plain_text_in_the_stack_file_is_refused() -> None:
    secure = {"secure": "v1:abc"}
    config: dict[str, Any] = {
        "secrets": {"Some.Api": {"a": secure, "b.pem": PLANTED}, "other": secure},
        "secretKey": PLANTED,
        "registryCredentials": {"username": "robot", "password": PLANTED},
        "ingressCertificate": secure,
        "tags": {"Some.Api": "1"},
    }
    found = plain_secrets(FILE, config)
    assert [each.field.removeprefix("package-platform:") for each in found] == [
        "secrets.Some.Api.b.pem",
        "secretKey",
        "registryCredentials.password",
    ]
    assert 'secrets["Some.Api"]["b.pem"]' in found[0].message
    assert PLANTED not in "\n".join(map(str, found))
    assert plain_secrets(FILE, {"secrets": secure}) == []


def test_what_is_encrypted_is_masked_for_who_has_no_key() -> None:
    assert masked({"a": {"b": {"secure": "x"}, "c": [{"secure": "x"}, 1]}}) == {"a": {"b": MASKED, "c": [MASKED, 1]}}


def test_cluster_secrets_need_a_name() -> None:
    plain = {**ENVIRONMENT, "registry": {"host": "harbor.example.com"}}
    (line,) = problems(environment=plain, registryCredentials={"username": "r", "password": PLANTED})
    assert line.startswith("registryCredentials: is for the Secret that environment.registry.pullSecret names")
    pem, key = certificate()
    (line,) = problems(ingressCertificate={"certificate": pem, "key": key})
    assert line.startswith("ingressCertificate: is for the Secret that environment.ingress.ha.tls.secret names")


def test_a_key_must_belong_to_the_certificate() -> None:
    pem, key = certificate()
    _, other = certificate()
    wrong = "ingressCertificate: key does not belong to the first certificate"
    assert problems(ingressCertificate={"certificate": pem, "key": other}) == [wrong]
    assert problems(ingressCertificate={"certificate": PLANTED, "key": key}) == [
        "ingressCertificate: certificate is no certificate in PEM form"
    ]
    assert problems(ingressCertificate={"certificate": pem, "key": PLANTED}) == [
        "ingressCertificate: key is no private key in PEM form, or has a passphrase"
    ]
