"""Does a private key belong to a certificate? Told before a proxy finds out. Pure."""

from __future__ import annotations


def certificate_problem(certificate: str, key: str) -> str:
    """Return what is wrong with a certificate and its key, empty when nothing is; no text of either is in it.

    Args:
        certificate: PEM, the server's own one first.
        key: PEM.
    """
    # Imported only where there is a certificate, as start-up counts.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        return "certificate is no certificate in PEM form"
    try:
        private = load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError):
        return "key is no private key in PEM form, or has a passphrase"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        return "key does not belong to the first certificate"
    return ""
