"""What is done to the ingress on purpose, under load: a request on a new connection is never lost.

Before an address moves on purpose, the proxy ends every kept-alive connection with the next answer, and for a moment no
new one is taken. What may still be lost is a request in flight for longer than that moment.
"""

import datetime as dt
import ssl
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devcluster import commands, kubectl, machine
from tests.cluster.embedded import Cluster
from tests.cluster.ingress import HEAD_START_SECONDS, LONGEST_SILENCE_SECONDS, NAMESPACE, PROJECT, RATE, Ingress, Loads
from tests.cluster.load import Load, Request
from tests.cluster.program import Program

pytestmark = pytest.mark.soak
"""Minutes of load each; `make soak` runs them."""

MOST_KEPT_LOST = 5
"""In flight at a move for longer than new connections are held back: a busy machine may be that slow."""
SECRET = "test-certificate"  # noqa: S105 - its name
RENEWAL_SECONDS = 180.0
"""The kubelet brings a changed Secret within a minute and a half."""
LEAST_REQUESTS = 500
EXTRA_HOST = "added-while-it-runs.package.test"


@pytest.fixture
def ingress(program: Program, cluster: Cluster) -> Iterator[Ingress]:
    """The settled ingress; the stack file and the nodes' labels are as before after the test."""
    found = Ingress(cluster, program)
    found.settle()
    text = program.stack_file.read_text()
    yield found
    for node in found.nodes:
        if not machine.is_on(node):
            cluster.devcluster("node-up", node.name)
    cluster.devcluster("up")
    if program.stack_file.read_text() != text:
        program.stack_file.write_text(text)
        program.up()
    found.settle()


class Talkers:
    """Clients that keep their connections and say something several times a second, as browsers with an open page do.

    A connection that the proxy ends with an answer is opened anew, as HTTP has it. One that ends otherwise is broken.
    """

    def __init__(self, address: str, url: tuple[str, str], count: int) -> None:
        self.ended = 0
        self.broken: list[str] = []
        self.answers = 0
        self._over = threading.Event()
        path = httpx2.URL(url[0]).path
        self._threads = [threading.Thread(target=self._talk, args=(address, path, url[1])) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _talk(self, address: str, path: str, host: str) -> None:
        connection = HTTPConnection(address, timeout=30)
        while not self._over.wait(0.3):
            try:
                connection.request("GET", path, headers={"Host": host})
                response = connection.getresponse()
                response.read()
                self.answers += response.status == 200
                self.ended += response.getheader("Connection") == "close"
            except (OSError, HTTPException) as error:
                self.broken.append(repr(error))
                connection.close()
        connection.close()


def assert_planned(loads: Loads) -> None:
    """Check that nothing was lost on new connections, and that the load was there to the end."""
    assert len(loads.fresh.hits) > LEAST_REQUESTS
    assert loads.fresh.failed == [], loads.summary()
    assert len(loads.kept.failed) <= MOST_KEPT_LOST, loads.summary()
    assert {hit.code for hit in loads.all.hits[-50:]} == {200}
    assert loads.all.silent_seconds < LONGEST_SILENCE_SECONDS, loads.summary()


@pytest.mark.parametrize("name", ["traefik", "keepalived"])
def test_a_rolling_update(ingress: Ingress, tmp_path: Path, name: str) -> None:
    assert_planned(ingress.under_load(tmp_path, lambda: ingress.roll(name), 3))


@pytest.mark.parametrize("name", ["traefik", "keepalived"])
def test_a_deleted_pod_of_the_holder(ingress: Ingress, tmp_path: Path, name: str) -> None:
    before = ingress.holder()
    assert_planned(ingress.under_load(tmp_path, lambda: ingress.delete(before, name), 5))
    after = ingress.holder()
    assert after != before
    ingress.settle()
    assert ingress.tracked(after), "or nothing would be seen"
    assert ingress.tracked(before) == [], "a port used again would be taken for an old connection"


def test_the_holder_leaves_for_maintenance_and_comes_back(ingress: Ingress, tmp_path: Path) -> None:
    before = ingress.holder()
    with Talkers(ingress.address, ingress.program.url(PROJECT), 20) as talkers:
        left = ingress.under_load(tmp_path / "left", lambda: ingress.leave(before), 3)
    assert_planned(left)
    after = ingress.holder()
    assert after != before
    # Every one of them was told, and none was cut off.
    assert talkers.broken == []
    assert talkers.ended >= 20
    assert talkers.answers > 20 * 10
    back = ingress.under_load(tmp_path / "back", lambda: (ingress.join(before), ingress.settle()), 3)
    assert len(back.all.hits) > LEAST_REQUESTS
    assert back.all.failed == [], back.summary()
    assert ingress.holder() == after, "the address stays where it is"


def test_clients_that_keep_their_connections_notice_an_end_that_is_not_handed_over(ingress: Ingress) -> None:
    """Otherwise the tests here would show nothing. Whether the address moves depends on how fast the proxy is back."""
    with Talkers(ingress.address, ingress.program.url(PROJECT), 20) as talkers:
        time.sleep(HEAD_START_SECONDS)
        ingress.kill(ingress.holder(), "traefik")
        deadline = time.monotonic() + 30
        while len(talkers.broken) < 10:
            assert time.monotonic() < deadline, f"only {len(talkers.broken)} of 20 were cut off"
            time.sleep(0.2)


def extra_ingress(program: Program) -> str:
    (rule, *_) = program.get("ingresses")[0]["spec"]["rules"]
    manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "added-while-it-runs", "namespace": program.namespace},
        "spec": {"ingressClassName": "nginx", "rules": [{**rule, "host": EXTRA_HOST}]},
    }
    return yaml.safe_dump(manifest)


def test_an_ingress_is_added_and_removed(ingress: Ingress, tmp_path: Path) -> None:
    manifest = extra_ingress(ingress.program)
    path = yaml.safe_load(manifest)["spec"]["rules"][0]["http"]["paths"][0]["path"]

    def wait_for(code: int) -> None:
        deadline = time.monotonic() + 30
        url, headers = f"http://{ingress.address}{path}", {"Host": EXTRA_HOST}
        while httpx2.get(url, headers=headers, trust_env=False).status_code != code:
            assert time.monotonic() < deadline, f"it never answers {code}"
            time.sleep(0.2)

    def add_and_remove() -> None:
        wait_for(404)
        commands.run(kubectl.command(ingress.cluster.instance, "apply", "--filename=-"), text=manifest)
        wait_for(200)
        commands.run(kubectl.command(ingress.cluster.instance, "delete", "--filename=-"), text=manifest)
        wait_for(404)

    loads = ingress.under_load(tmp_path, add_and_remove, 3)
    assert len(loads.all.hits) > LEAST_REQUESTS
    assert loads.all.failed == [], loads.summary()


def test_two_addresses_are_carried_by_two_nodes_and_either_takes_both(ingress: Ingress, tmp_path: Path) -> None:
    """The second VIP comes by `pulumi up`, which is a change of keepalived's configuration under load."""
    vips = [{"address": ingress.address, "routerId": 51}, {"address": ingress.second, "routerId": 52}]
    assert_planned(ingress.under_load(tmp_path / "change", lambda: ingress.change(vips=vips, preempt=True), 5))
    spread = time.monotonic() + 120
    while not ingress.holders(ingress.second) or ingress.holder() == ingress.holder(ingress.second):
        assert time.monotonic() < spread, "both stay on one node"
        time.sleep(1)
    url, host = ingress.program.url(PROJECT)
    others = {url.replace(ingress.address, ingress.second): host}
    busy = ingress.under_load(tmp_path / "both", lambda: None, 5, others=others)
    assert len(busy.all.hits) > LEAST_REQUESTS
    assert busy.all.failed == [], busy.summary()
    first = ingress.holder()
    cut = ingress.under_load(tmp_path / "cut", lambda: ingress.power("node-down", first), 15, others=others)
    assert len(cut.all.failed) <= 400, cut.summary()
    for address in (ingress.address, ingress.second):
        asked = cut.all.of(address)
        assert len(asked.hits) > LEAST_REQUESTS
        assert asked.silent_seconds < LONGEST_SILENCE_SECONDS, asked.summary()
    assert {hit.code for hit in cut.all.hits[-50:]} == {200}, cut.summary()
    assert first not in (ingress.holder(), ingress.holder(ingress.second))


def certificate(name: str) -> tuple[str, str]:
    """Return a certificate that nobody signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    return made.public_bytes(encoding).decode(), secret.decode()


def put_secret(ingress: Ingress, name: str) -> None:
    public, private = certificate(name)
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": "package-ingress"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": public, "tls.key": private},
    }
    commands.run(kubectl.command(ingress.cluster.instance, "apply", "--filename=-"), text=yaml.safe_dump(manifest))


def served(address: str) -> str:
    """Return the name in the certificate that an address shows."""
    pem = ssl.get_server_certificate((address, 443), timeout=5)
    (name,) = x509.load_pem_x509_certificate(pem.encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


@contextmanager
def load_on(ingress: Ingress, folder: Path, url: str, host: str) -> Generator[Load]:
    with Load(ingress.cluster, folder, [Request(url, host)], RATE) as load:
        time.sleep(HEAD_START_SECONDS)
        yield load


def test_https_its_redirect_and_a_renewed_certificate(ingress: Ingress, tmp_path: Path) -> None:
    put_secret(ingress, "first.test")
    ingress.change(tls={"secret": SECRET})
    ingress.settle()
    url, host = ingress.program.url(PROJECT)
    secure = url.replace("http://", "https://").replace(":80", "")
    plain = httpx2.get(url, headers={"Host": host}, trust_env=False)
    assert plain.status_code in (301, 308)
    assert plain.headers["location"] == f"https://{host}{httpx2.URL(url).path}"
    addresses = [str(node.address) for node in ingress.nodes]
    assert {served(each) for each in addresses} == {"first.test"}
    pods = [ingress.pod(node, "traefik") for node in ingress.nodes]
    with load_on(ingress, tmp_path, secure, host) as load:
        put_secret(ingress, "second.test")
        deadline = time.monotonic() + RENEWAL_SECONDS
        while {served(each) for each in addresses} != {"second.test"}:
            assert time.monotonic() < deadline, "the new certificate is not served"
            time.sleep(1)
        time.sleep(2)
    assert load.results().failed == [], load.results().summary()
    assert len(load.results().hits) > LEAST_REQUESTS
    assert pods == [ingress.pod(node, "traefik") for node in ingress.nodes], "no proxy was replaced"
    restarts = [
        status["restartCount"]
        for item in ingress.cluster.get("pods", NAMESPACE, "--selector=app.kubernetes.io/name=traefik")["items"]
        for status in item["status"]["containerStatuses"]
    ]
    assert restarts == [0, 0, 0]
