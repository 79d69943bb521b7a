"""Certificates for the names of pods: from a CA of our own for each domain, or from the operator's files.

A CA of our own may sign for its domain alone (name constraints), so a user who trusts it trusts it with nothing else.
It lies in ``<home>/ca/<domain>/``: ``ca.key`` and ``ca.pem``; beside it ``leaf.pem`` with key and chain in one file,
so that a renewal is one rename.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import GatewayRefused

CA_DAYS = 3650
LEAF_DAYS = 90
RENEW_DAYS = 30
"""A certificate that holds for less than this is replaced."""
CLOCK_SKEW = timedelta(hours=1)
"""How far behind a client's clock may be when a certificate is new."""
MOST_CN_CHARS = 64


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files from which TLS is served. ca: what users may trust; None where it is the operator's own business."""

    chain: Path
    key: Path
    ca: Path | None
    not_after_at: datetime


def own(home: Path, domain: str, now: datetime) -> Certificate:
    """The certificate of ``*.<domain>`` from our own CA; what is missing or ends soon is made."""
    folder = home / "ca" / domain
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = _authority(folder, domain, now)
    leaf = folder / "leaf.pem"
    try:
        kept = x509.load_pem_x509_certificates(leaf.read_bytes())
        holds = kept[0].issuer == authority[1].subject and _signed_by(kept[0], authority[1]) and _lasts(kept[0], now)
    except (FileNotFoundError, ValueError, IndexError):
        holds = False
    if not holds:
        _write(leaf, _new_leaf(domain, *authority, now))
    not_after_at = x509.load_pem_x509_certificates(leaf.read_bytes())[0].not_valid_after_utc
    return Certificate(leaf, leaf, folder / "ca.pem", not_after_at)


def given(chain: Path, key: Path, domains: Sequence[str], now: datetime) -> Certificate:
    """The operator's certificate; GatewayRefused when it does not hold now, or not for the names below ``domains``."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password=_no_password)
        leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise GatewayRefused(
            f"BERTH_GATEWAY_CERTIFICATE, BERTH_GATEWAY_KEY: {chain}, {key}: {error}; "
            "give PEM files: the certificate first with those that signed it after it, and its key without a password"
        ) from None
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        raise GatewayRefused(f"BERTH_GATEWAY_CERTIFICATE: {chain}: not valid now, or no longer; renew it")
    lacking = [f"*.{domain}" for domain in domains if f"*.{domain}" not in _names(leaf)]
    if lacking:
        raise GatewayRefused(f"BERTH_GATEWAY_CERTIFICATE: {chain}: lacks {', '.join(lacking)}; have it issued for them")
    return Certificate(chain, key, None, leaf.not_valid_after_utc)


def _no_password() -> str:
    raise ValueError("the key is locked with a password")


def _authority(folder: Path, domain: str, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """The CA of a domain, made when there is none that lasts. Key and certificate are written as one file each."""
    key_file, ca_file = folder / "ca.key", folder / "ca.pem"
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(ca_file.read_bytes())
        fit = certificate.public_key() == key.public_key() and _lasts(certificate, now)
        if fit and isinstance(key, ec.EllipticCurvePrivateKey):
            return key, certificate
    except (FileNotFoundError, ValueError):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _new_ca(domain, key, now)
    _write(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(ca_file, certificate.public_bytes(Encoding.PEM))
    return key, certificate


def _new_ca(domain: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    serial = x509.random_serial_number()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Berth"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Berth pods {serial % 16**8:08x}"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(domain)], None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def _new_leaf(domain: str, ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, now: datetime) -> bytes:
    """Key, certificate and CA, as one PEM text."""
    key = ec.generate_private_key(ec.SECP256R1())
    common = [x509.NameAttribute(NameOID.COMMON_NAME, f"*.{domain}")] if len(domain) + 2 <= MOST_CN_CHARS else []
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(common))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + timedelta(days=LEAF_DAYS), ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(f"*.{domain}"), x509.DNSName(domain)]), critical=not common
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + certificate.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM)


def _signed_by(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except Exception:  # the library names no narrower class for a signature of another key
        return False
    return True


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    return now + timedelta(days=RENEW_DAYS) < certificate.not_valid_after_utc


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in found.value.get_values_for_type(x509.DNSName)]


def _write(path: Path, content: bytes) -> None:
    """Write whole or not at all, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
