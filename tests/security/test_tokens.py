"""Tokens say who calls in Tapis's claims, and only ours hold, only as what they are, only until they expire."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from scheduler.model.errors import Unauthenticated
from scheduler.model.users import Principal, User
from scheduler.security import tokens as module
from scheduler.security.tokens import Tokens, new_signing_key

NOW = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)
ANN = User(tenant="dev", username="ann", is_admin=True)
KEY, OTHER_KEY = new_signing_key(NOW), new_signing_key(NOW)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tokens(clock):
    return Tokens([KEY], clock)


def part(thing):
    return base64.urlsafe_b64encode(json.dumps(thing).encode()).rstrip(b"=").decode()


def claims_of(token):
    return jwt.decode(token, RSAKey.import_key(KEY.public_pem), algorithms=["RS256"]).claims


def refused(tokens, token):
    with pytest.raises(Unauthenticated) as refusal:
        tokens.verify(token)
    return str(refusal.value)


def test_an_access_token_says_who_calls(tokens):
    assert tokens.verify(tokens.access(ANN).token) == Principal(tenant="dev", username="ann", is_admin=True)
    bob = replace(ANN, username="bob", is_admin=False)
    assert not tokens.verify(tokens.access(bob).token).is_admin


def test_an_access_token_carries_the_claims_of_tapis(tokens):
    issued = tokens.access(ANN, "http://berth.example.org")
    claims = claims_of(issued.token)
    expires_at = datetime(2026, 3, 1, 16, 0, tzinfo=UTC)
    assert claims == {
        "jti": issued.jti,
        "iss": "http://berth.example.org/v3/tokens",
        "sub": "ann@dev",
        "exp": int(expires_at.timestamp()),
        "tapis/tenant_id": "dev",
        "tapis/token_type": "access",
        "tapis/delegation": False,
        "tapis/delegation_sub": None,
        "tapis/username": "ann",
        "tapis/account_type": "user",
        "berth/admin": True,
        "berth/account": "",
    }
    assert (issued.expires_at, issued.expires_in_s) == (expires_at, 14400)


def test_the_published_keys_verify_what_was_signed(tokens):
    token = jwt.decode(tokens.access(ANN).token, KeySet.import_key_set(tokens.jwks()), algorithms=["RS256"])
    assert token.header == {"alg": "RS256", "typ": "JWT", "kid": KEY.kid}
    assert not {"d", "p", "q"} & {name for key in tokens.jwks()["keys"] for name in key}
    assert tokens.public_pem() == KEY.public_pem


def test_an_expired_token_is_refused_saying_so_also_when_it_was_verified_before(tokens, clock):
    fresh, unseen = tokens.access(ANN).token, tokens.access(ANN).token
    tokens.verify(fresh)
    clock.now = NOW + timedelta(hours=4)
    for token in (fresh, unseen, fresh):
        assert refused(tokens, token) == "the token expired at 2026-03-01T16:00:00.000000Z; log in again"


def test_a_token_of_another_type_is_refused_by_name(tokens):
    issued, _ = tokens.refresh(ANN)
    assert refused(tokens, issued.token) == "this is the refresh token; send the access token"
    with pytest.raises(Unauthenticated, match="this is the access token; send the refresh token"):
        tokens.read_refresh(tokens.access(ANN).token)


def test_a_key_that_is_retired_verifies_but_signs_no_more(clock):
    before = Tokens([KEY], clock).access(ANN).token
    after = Tokens([OTHER_KEY, replace(KEY, retired_at=NOW)], clock)
    assert after.verify(before).username == "ann"
    assert after.public_pem() == OTHER_KEY.public_pem
    assert len(after.jwks()["keys"]) == 2
    assert "not known here" in refused(Tokens([OTHER_KEY], clock), before)


CLAIMS = {"exp": 4e9, "tapis/token_type": "access", "tapis/tenant_id": "dev", "tapis/username": "root", "jti": "1"}
CLAIMS |= {"tapis/account_type": "user", "berth/admin": True}
PUBLIC_AS_SECRET = OctKey.import_key(base64.b64encode(KEY.public_pem.encode()).decode())
THIEF = RSAKey.import_key(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (f"{part({'alg': 'none', 'typ': 'JWT', 'kid': KEY.kid})}.{part(CLAIMS)}.", "is not signed with RS256"),
        (f"{part({'alg': 'none'})}.{part(CLAIMS)}.", "is not signed with RS256"),
        (f"{part({'alg': 'NoNe', 'kid': KEY.kid})}.{part(CLAIMS)}.", "is not signed with RS256"),
        (jwt.encode({"alg": "HS256", "kid": KEY.kid}, CLAIMS, PUBLIC_AS_SECRET), "is not signed with RS256"),
        (jwt.encode({"alg": "RS256", "kid": KEY.kid}, CLAIMS, THIEF), "signature does not hold"),
        (jwt.encode({"alg": "RS256", "kid": "elsewhere"}, CLAIMS, THIEF), "not known here"),
        (jwt.encode({"alg": "RS256"}, CLAIMS, RSAKey.import_key(KEY.private_pem)), "not known here"),
        (f"{part({'alg': 'RS256', 'kid': ['x']})}.{part(CLAIMS)}.AAAA", "not known here|not a signed JWT"),
        (f"{part({'kid': KEY.kid})}.{part(CLAIMS)}.AAAA", "not a signed JWT|RS256"),
        (f"{part(['alg'])}.{part(CLAIMS)}.AAAA", "not a signed JWT"),
        (
            jwt.encode({"alg": "RS256", "kid": KEY.kid}, {"exp": 4e9}, RSAKey.import_key(KEY.private_pem)),
            "lacks claims",
        ),
        (f"{part({'alg': ['RS256'], 'kid': KEY.kid})}.{part(CLAIMS)}.AAAA", "not a signed JWT|RS256"),
        (f"{part({'alg': 'RS256', 'kid': KEY.kid, 'crit': {}})}.{part(CLAIMS)}.AAAA", "not a signed JWT"),
        (f"{part(None)}.{part(CLAIMS)}.AAAA", "not a signed JWT"),
        (f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.{part(CLAIMS)}.AAAA", "not a signed JWT"),
        ("", "not a signed JWT"),
        ("token", "not a signed JWT"),
        ("a.b.c", "not a signed JWT"),
        ("é.é.é", "not a signed JWT"),
        ("\ud800.x.y", "not a signed JWT"),
        ("x" * 10_000, "longer than 8192 characters"),
    ],
)
def test_what_is_no_token_of_ours_is_refused_with_the_reason(tokens, token, message):
    with pytest.raises(Unauthenticated, match=message):
        tokens.verify(token)


SHARED = Tokens([KEY], Clock())
TOKEN = SHARED.access(ANN).token


@given(at=st.integers(0, len(TOKEN) - 2), to=st.characters(codec="ascii"))
@example(at=0, to=".")
def test_no_token_that_was_changed_anywhere_holds(at, to):
    """Except in the last character of the signature, some of whose bits base64 does not use."""
    changed = TOKEN[:at] + to + TOKEN[at + 1 :]
    if changed == TOKEN:
        assert SHARED.verify(changed).username == "ann"
    else:
        refused(SHARED, changed)


@given(st.text())
def test_no_text_whatever_breaks_verification(text):
    refused(SHARED, text)


def test_a_refresh_token_carries_its_access_token_and_goes_on_in_its_family(tokens, clock):
    issued, grant = tokens.refresh(ANN)
    claims = claims_of(issued.token)
    assert claims["tapis/access_token"]["tapis/username"] == "ann"
    assert claims["tapis/access_token"]["tapis/token_type"] == "access"
    assert claims["tapis/initial_ttl"] == issued.expires_in_s == 30 * 24 * 3600
    said = tokens.read_refresh(issued.token)
    assert (said.jti, said.tenant, said.username, said.count) == (grant.jti, "dev", "ann", 0)
    _, next_grant = tokens.refresh(ANN, spent=grant)
    assert (next_grant.family, next_grant.count) == (grant.family, 1)
    assert next_grant.jti != grant.jti
    clock.now = grant.expires_at
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.read_refresh(issued.token)


def test_what_is_remembered_of_verified_tokens_is_bounded(tokens, monkeypatch):
    monkeypatch.setattr(module, "MOST_REMEMBERED", 3)
    issued = [tokens.access(ANN).token for _ in range(10)]
    for token in issued:
        tokens.verify(token)
    assert len(tokens._verified) == 3
    assert tokens.verify(issued[0]).username == "ann"


def test_no_secret_shows_when_a_token_or_key_is_printed(tokens):
    issued = tokens.access(ANN)
    assert issued.token not in repr(issued)
    assert "PRIVATE" not in repr(KEY)
