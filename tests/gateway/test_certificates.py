"""Certificates: real TLS clients take them for the names of pods, and for nothing else."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from gateway import certificates
from gateway.certificates import LEAF_DAYS, RENEW_DAYS, Certificate
from gateway.errors import GatewayRefused

NOW = datetime.now(UTC).replace(microsecond=0)
DOMAIN = "pods.example.org"


def shake_hands(served: Certificate, trusted: Path, name: str) -> None:
    """A whole TLS handshake in memory; ssl.SSLError where the client refuses."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(served.chain, served.key)
    client = ssl.create_default_context(cafile=trusted)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (theirs, ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_a_client_that_trusts_the_ca_takes_the_name_of_a_pod(tmp_path):
    made = certificates.own(tmp_path, DOMAIN, NOW)
    shake_hands(made, made.ca, f"mypod-admin.{DOMAIN}")


@pytest.mark.parametrize("name", [f"a.b.{DOMAIN}", "mypod.pods.example.com", "example.org"])
def test_a_client_refuses_it_for_another_name(tmp_path, name):
    made = certificates.own(tmp_path, DOMAIN, NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, made.ca, name)


def test_the_ca_of_one_domain_cannot_speak_for_another(tmp_path):
    """Who trusts it does not trust it with a bank."""
    ours = certificates._authority(_made(tmp_path / "ca" / DOMAIN), DOMAIN, NOW)
    forged = tmp_path / "forged.pem"
    forged.write_bytes(certificates._new_leaf("bank.example.com", *ours, NOW))
    served = Certificate(forged, forged, None, NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
        shake_hands(served, tmp_path / "ca" / DOMAIN / "ca.pem", "www.bank.example.com")


def test_a_second_start_serves_the_same_certificate(tmp_path):
    first = certificates.own(tmp_path, DOMAIN, NOW).chain.read_bytes()
    assert certificates.own(tmp_path, DOMAIN, NOW).chain.read_bytes() == first


def test_one_that_ends_soon_is_renewed_under_the_same_ca(tmp_path):
    made = certificates.own(tmp_path, DOMAIN, NOW)
    before, ca = made.chain.read_bytes(), made.ca.read_bytes()
    assert certificates.own(tmp_path, DOMAIN, NOW + timedelta(days=LEAF_DAYS - RENEW_DAYS - 1)).chain.exists()
    assert made.chain.read_bytes() == before
    renewed = certificates.own(tmp_path, DOMAIN, NOW + timedelta(days=LEAF_DAYS - RENEW_DAYS + 1))
    assert renewed.chain.read_bytes() != before
    assert renewed.ca.read_bytes() == ca


@pytest.mark.parametrize("lost", ["ca.key", "ca.pem", "leaf.pem"])
def test_a_lost_or_cut_file_is_made_again_so_that_all_fit(tmp_path, lost):
    """As a power cut between two writes may leave them."""
    made = certificates.own(tmp_path, DOMAIN, NOW)
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:40])):
        damage(made.chain.with_name(lost))
        again = certificates.own(tmp_path, DOMAIN, NOW)
        shake_hands(again, again.ca, f"mypod.{DOMAIN}")


def test_keys_are_read_by_their_owner_only(tmp_path):
    made = certificates.own(tmp_path, DOMAIN, NOW)
    for path in (made.key, made.chain.with_name("ca.key")):
        assert path.stat().st_mode & 0o077 == 0
    assert made.chain.parent.stat().st_mode & 0o077 == 0


def test_a_long_domain_has_a_certificate_too(tmp_path):
    domain = f"pods.{'a' * 60}.example.org"
    made = certificates.own(tmp_path, domain, NOW)
    shake_hands(made, made.ca, f"mypod.{domain}")


def test_the_operators_files_serve_where_they_hold(tmp_path):
    made = certificates.own(tmp_path, DOMAIN, NOW)
    found = certificates.given(made.chain, made.key, [DOMAIN], NOW)
    assert found.ca is None
    assert found.not_after_at == x509.load_pem_x509_certificates(made.chain.read_bytes())[0].not_valid_after_utc


def test_the_operators_files_are_refused_in_words_where_they_do_not(tmp_path):
    made = certificates.own(tmp_path, DOMAIN, NOW)
    other = certificates.own(tmp_path / "other", DOMAIN, NOW)
    with pytest.raises(GatewayRefused, match=r"lacks \*\.pods\.elsewhere\.org"):
        certificates.given(made.chain, made.key, ["pods.elsewhere.org"], NOW)
    with pytest.raises(GatewayRefused, match="BERTH_GATEWAY_KEY"):
        certificates.given(made.chain, other.key, [DOMAIN], NOW)
    with pytest.raises(GatewayRefused, match="No such file"):
        certificates.given(tmp_path / "none.pem", made.key, [DOMAIN], NOW)
    with pytest.raises(GatewayRefused, match="renew it"):
        certificates.given(made.chain, made.key, [DOMAIN], NOW + timedelta(days=LEAF_DAYS))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
