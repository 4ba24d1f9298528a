"""The cluster's certificates and kubeconfigs: made once per instance, kept over `down`.

One authority, one serving certificate, one client certificate per component. They protect nothing but the
embedded cluster, whose network ends at the machine; the files are readable by root only all the same.
"""

import base64
import datetime as dt
import json
import os
import secrets
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devcluster.instance import CONTEXT, Instance

LIFETIME = dt.timedelta(days=3650)
LOOPBACK = IPv4Address("127.0.0.1")


@dataclass(frozen=True)
class Subject:
    """One certificate to make.

    Args:
        file: its name in the PKI directory, without suffix.
        common_name: the user (or server) that it stands for.
        organisation: the Kubernetes group of that user, if any.
        addresses: for serving certificates.
        names: the same.
        kubeconfig: whether the component reads one.
    """

    file: str
    common_name: str
    organisation: str = ""
    addresses: tuple[IPv4Address, ...] = ()
    names: tuple[str, ...] = ()
    kubeconfig: bool = False


@dataclass(frozen=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def subjects(instance: Instance) -> list[Subject]:
    """Return all certificates that the instance's components need. Pure."""
    control_plane = instance.nodes[0]
    service = "kubernetes.default.svc.cluster.local"
    service_names = [service.rsplit(".", cut)[0] for cut in range(1, 5)]
    return [
        Subject(
            "apiserver",
            "kube-apiserver",
            addresses=(LOOPBACK, control_plane.address, instance.service_network[1]),
            names=("localhost", service, *service_names),
        ),
        Subject("apiserver-kubelet", "apiserver-kubelet-client", "system:masters"),
        Subject("front-proxy", "front-proxy-client"),
        Subject("admin", "admin", "system:masters"),
        Subject("kube-controller-manager", "system:kube-controller-manager", kubeconfig=True),
        Subject("kube-scheduler", "system:kube-scheduler", kubeconfig=True),
        Subject("kube-proxy", "system:kube-proxy", kubeconfig=True),
        *(
            Subject(
                node.name,
                f"system:node:{node.name}",
                "system:nodes",
                addresses=(node.address,),
                names=(node.name,),
                kubeconfig=True,
            )
            for node in instance.nodes
        ),
    ]


def ensure(instance: Instance) -> None:
    """Make what is missing of certificates, keys and kubeconfigs; what is there stays.

    Safe against a kill at any moment: files appear whole, and a certificate only after its key.
    """
    directory = instance.pki
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = _ensure_authority(directory)
    _ensure_service_account_keys(directory)
    for subject in subjects(instance):
        if not (directory / f"{subject.file}.crt").exists():
            _issue(directory, authority, subject)
        if subject.kubeconfig:
            text = kubeconfig(instance, subject.file)
            write_private(directory / f"{subject.file}.kubeconfig", text.encode())
    write_private(instance.kubeconfig, kubeconfig(instance, "admin").encode())


def kubeconfig(instance: Instance, file: str) -> str:
    """Return a self-contained kubeconfig (JSON, which is YAML) for the user of the certificate `file`."""

    def inline(name: str) -> str:
        return base64.b64encode((instance.pki / name).read_bytes()).decode()

    cluster = {"server": instance.api_server, "certificate-authority-data": inline("ca.crt")}
    user = {"client-certificate-data": inline(f"{file}.crt"), "client-key-data": inline(f"{file}.key")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": file, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": file}}],
        "current-context": CONTEXT,
    }
    return json.dumps(document, indent=2) + "\n"


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all; an equal one is left alone."""
    if path.exists() and path.read_bytes() == content:
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    temporary.replace(path)


def _ensure_authority(directory: Path) -> _Authority:
    certificate_file, key_file = directory / "ca.crt", directory / "ca.key"
    if not certificate_file.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("devcluster-ca")
        builder = _builder(name, name, key.public_key(), key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        write_private(key_file, _private_pem(key))
        write_private(certificate_file, _certificate_pem(builder.sign(key, hashes.SHA256())))
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{key_file} is no elliptic curve key: run `python -m devcluster down --wipe`")
    return _Authority(key, x509.load_pem_x509_certificate(certificate_file.read_bytes()))


def _ensure_service_account_keys(directory: Path) -> None:
    if (directory / "service-account.pub").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(directory / "service-account.key", _private_pem(key))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_private(directory / "service-account.pub", public)


def _issue(directory: Path, authority: _Authority, subject: Subject) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(
        _name(subject.common_name, subject.organisation),
        authority.certificate.subject,
        key.public_key(),
        authority.key.public_key(),
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(usage, critical=False)
    alternatives = [
        *(x509.IPAddress(address) for address in subject.addresses),
        *(x509.DNSName(name) for name in subject.names),
    ]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    write_private(directory / f"{subject.file}.key", _private_pem(key))
    certificate = builder.sign(authority.key, hashes.SHA256())
    write_private(directory / f"{subject.file}.crt", _certificate_pem(certificate))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # An hour back: the machine's clock may be set right after the first `up`.
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key, critical=False)
    )


def _name(common_name: str, organisation: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(attributes)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
