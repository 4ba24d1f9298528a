"""How an API server is asked with a credential that a command gives."""

import base64
import json
import ssl
import sys
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from api_server import ApiServer
from release.cluster import Cluster, ClusterError
from tests.unit.stand_in import Answer, Asked, served

V1, BETA = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"


def config(url: str, plugin: str, folder: Path, version: str = BETA, authority: str = "") -> SingleConfig:
    """Return a cluster whose credential a Python script gives.

    Args:
        url: Of the API server.
        plugin: The script.
        folder: Where to write it.
        version: Of the plugin's protocol.
        authority: The server's certificate, as PEM.
    """
    script = folder / "plugin.py"
    script.write_text(plugin, encoding="utf-8")
    trusted = {"certificate-authority-data": base64.b64encode(authority.encode()).decode()} if authority else {}
    asks = {
        "apiVersion": version,
        "command": sys.executable,
        "args": [str(script)],
        "env": [{"name": "A", "value": "b"}],
    }
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url, **trusted}}],
        "users": [{"name": "u", "user": {"exec": asks}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    chosen = KubeConfig.from_dict(content).get()  # pyright: ignore[reportUnknownMemberType] - a dict of anything
    assert chosen is not None
    return chosen


def printing(status: dict[str, str]) -> str:
    """Return a script that prints a credential."""
    return f"import json; print(json.dumps({{'kind': 'ExecCredential', 'status': {status!r}}}))"


@pytest.mark.parametrize("version", [V1, BETA])
def test_a_token_that_has_ended_is_asked_for_once_more(version: str, tmp_path: Path) -> None:
    counting = (
        "import json, os, pathlib\n"
        f"file = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "count = int(file.read_text()) + 1 if file.exists() else 1\n"
        "file.write_text(str(count))\n"
        "assert os.environ['A'] == 'b'\n"
        f"assert json.loads(os.environ['KUBERNETES_EXEC_INFO'])['apiVersion'] == {version!r}\n"
        "print(json.dumps({'status': {'token': f't{count}'}}))\n"
    )
    good = {"t1"}

    def answer(asked: Asked) -> Answer:
        return Answer(200 if asked.headers.get("authorization", "").removeprefix("Bearer ") in good else 401, "{}")

    with served(answer) as url:
        server = ApiServer(config(url, counting, tmp_path, version), 10.0)
        assert [server.get("version").status_code for _ in range(2)] == [200, 200]
        assert (tmp_path / "count").read_text() == "1"
        good = {"t2"}
        assert server.get("version").status_code == 200
        good = set[str]()
        assert server.get("version").status_code == 401
        assert (tmp_path / "count").read_text() == "3"
        server.close()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise SystemExit('log in first')", r"gives no credential \(exit code 1\): log in first"),
        ("print('hidden')", "prints no ExecCredential with a token or a certificate"),
        (printing({"expirationTimestamp": "2030-01-01T00:00:00Z"}), "prints no ExecCredential"),
        (printing({"clientCertificateData": "no PEM", "clientKeyData": "no PEM"}), "PEM"),
    ],
)
def test_a_command_that_gives_no_credential_is_told(script: str, said: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, OSError), match=said) as caught:
        ApiServer(config("http://127.0.0.1:9", script, tmp_path), 10.0)
    assert "hidden" not in str(caught.value)


def test_a_command_that_fails_later_is_an_error_of_the_cluster(tmp_path: Path) -> None:
    with served(lambda _: Answer(401, "{}")) as url:
        chosen = config(url, printing({"token": "t"}), tmp_path)
        cluster = Cluster(ApiServer(chosen, 10.0), "n")
        (tmp_path / "plugin.py").write_text("raise SystemExit('log in first')", encoding="utf-8")
        with pytest.raises(ClusterError, match=r"can't be asked: .*exit code 1\): log in first") as caught:
            cluster.record("x")
    assert caught.value.code == 1


class Pair:
    """A certificate that signs itself, with its key."""

    def __init__(self, name: str) -> None:
        """Make it.

        Args:
            name: Whose it is.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        signed = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate = signed.public_bytes(serialization.Encoding.PEM).decode()
        self.key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


@pytest.fixture
def mutual(tmp_path: Path) -> Generator[tuple[str, Pair, Pair]]:
    """A server that answers who asks by a certificate, as an API server: its URL, its own pair, the client's."""
    own, client = Pair("server"), Pair("developer")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            peer = self.connection.getpeercert()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - a TLS socket
            body = json.dumps({"metadata": {"name": "seen" if peer else "unknown"}}).encode()
            self.send_response(200 if peer else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    for name, text in (("own.crt", own.certificate), ("own.key", own.key), ("client.crt", client.certificate)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.crt", tmp_path / "own.key")
    context.load_verify_locations(tmp_path / "client.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", own, client
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_command_may_give_a_certificate_as_that_of_ack_does(mutual: tuple[str, Pair, Pair], tmp_path: Path) -> None:
    url, own, client = mutual
    status = {"clientCertificateData": client.certificate, "clientKeyData": client.key}
    cluster = Cluster(ApiServer(config(url, printing(status), tmp_path, authority=own.certificate), 10.0), "n")
    found = cluster.service("x")
    assert found is not None
    assert found["metadata"]["name"] == "seen"
    cluster.close()
