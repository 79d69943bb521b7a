"""Access and refresh tokens: JWTs with Tapis's claims, signed with RS256 by keys named in ``kid``."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import GuestProtocol, RSAKey

from scheduler.model.errors import Unauthenticated
from scheduler.model.units import utc, zulu
from scheduler.model.users import OAuthClient, Principal, RefreshGrant, SigningKey, User

ALGORITHM = "RS256"
RSA_BITS = 2048
ACCESS_TTL_S = 4 * 3600
REFRESH_TTL_S = 30 * 24 * 3600
CODE_TTL_S = 120
CODE = "authorization-code"
MOST_TOKEN_CHARS = 8192
MOST_REMEMBERED = 10_000
REQUIRED_CLAIMS = frozenset(
    {"jti", "exp", "tapis/tenant_id", "tapis/username", "tapis/token_type", "tapis/account_type"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token as it is given out once."""

    token: str = field(repr=False)
    jti: str
    expires_at: datetime
    expires_in_s: int


class PodPassKind(StrEnum):
    """What a pass to a pod is for."""

    CODE = "pod-code"
    """From Berth's login page to Berth itself, for a ticket."""
    TICKET = "pod-ticket"
    """From Berth to the gateway, once."""
    SESSION = "pod-session"
    """From the browser to the gateway, with each request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPass:
    """What a pass that holds says. state: what the gateway had made up when it asked who somebody is."""

    principal: Principal
    jti: str
    state: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshClaims:
    """What a refresh token that holds says; whether it was spent, only the store knows."""

    jti: str
    tenant: str
    username: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationCode:
    """What a code that holds says; whether it was spent, only the store knows. challenge: of RFC 7636, by S256."""

    jti: str
    tenant: str
    username: str
    client_id: str
    callback_url: str
    challenge: str


class Tokens:
    """Issues and verifies tokens.

    keys: newest first; the first that is not retired signs, all verify. clock: aware UTC.
    """

    def __init__(
        self,
        keys: Sequence[SigningKey],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        access_ttl_s: int = ACCESS_TTL_S,
        refresh_ttl_s: int = REFRESH_TTL_S,
    ) -> None:
        signing = next(key for key in keys if key.retired_at is None)
        self._signing_key = RSAKey.import_key(signing.private_pem)
        self._kid, self._public_pem = signing.kid, signing.public_pem
        self._keys = {key.kid: RSAKey.import_key(key.public_pem) for key in keys}
        self._clock, self._access_ttl_s, self._refresh_ttl_s = clock, access_ttl_s, refresh_ttl_s
        self._verified: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def access(self, user: User, base_url: str = "") -> Issued:
        """A token that says who ``user`` is. base_url: the tenant's, for ``iss``."""
        expires_at = self._expiry(self._access_ttl_s)
        claims = self._access_claims(user, base_url, expires_at)
        return self._issue(claims, expires_at)

    def refresh(
        self, user: User, base_url: str = "", spent: RefreshGrant | None = None, client_id: str | None = None
    ) -> tuple[Issued, RefreshGrant]:
        """A refresh token, and the grant to store with it.

        spent: the one it takes the place of; None at a login, which was made with the client of that id, or none.
        """
        expires_at = self._expiry(self._refresh_ttl_s)
        grant = self._first(user, client_id, expires_at)
        if spent is not None:
            grant = replace(grant, family=spent.family, count=spent.count + 1, client_id=spent.client_id)
        access = self._access_claims(user, base_url, self._expiry(self._access_ttl_s))
        claims = {
            **_common_claims(user, base_url, "refresh", expires_at),
            "jti": grant.jti,
            "tapis/initial_ttl": self._refresh_ttl_s,
            "tapis/refresh_count": grant.count,
            "tapis/access_token": access,
        }
        return self._issue(claims, expires_at), grant

    def verify(self, token: str) -> Principal:
        """Who an access token speaks for; Unauthenticated says what is wrong with it.

        The signature is checked once; until it expires, the same token then costs microseconds.
        """
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is None:
            known = self._remember(digest, self._claims(token, "access"))
        expires_at_s, principal = known
        if expires_at_s <= self._clock().timestamp():
            self._verified.pop(digest, None)
            raise _expired(expires_at_s)
        return principal

    def read_refresh(self, token: str) -> RefreshClaims:
        """What a refresh token says; Unauthenticated when it does not hold. Spend it in the store next."""
        claims = self._claims(token, "refresh")
        return RefreshClaims(
            jti=str(claims["jti"]),
            tenant=str(claims["tapis/tenant_id"]),
            username=str(claims["tapis/username"]),
            count=int(claims["tapis/refresh_count"]),
        )

    def code(self, user: User, client: OAuthClient, challenge: str) -> tuple[Issued, RefreshGrant]:
        """A code that a client trades for tokens, and the grant to store with it, from which these will come.

        So a code that comes twice ends them, as a refresh token does.
        """
        expires_at = self._expiry(CODE_TTL_S)
        grant = self._first(user, client.client_id, expires_at, count=-1)
        ours = {
            "jti": grant.jti,
            "aud": client.client_id,
            "berth/callback": client.callback_url,
            "berth/challenge": challenge,
        }
        return self._issue({**_common_claims(user, "", CODE, expires_at), **ours}, expires_at), grant

    def read_code(self, token: str) -> AuthorizationCode:
        """What a code says; Unauthenticated when it does not hold. Spend it in the store next."""
        claims = self._claims(token, CODE)
        return AuthorizationCode(
            jti=str(claims["jti"]),
            tenant=str(claims["tapis/tenant_id"]),
            username=str(claims["tapis/username"]),
            client_id=str(claims["aud"]),
            callback_url=str(claims["berth/callback"]),
            challenge=str(claims["berth/challenge"]),
        )

    def pod_pass(
        self, kind: PodPassKind, user: User | Principal, host_name: str, ttl_s: int, state: str = ""
    ) -> Issued:
        """A pass that says who somebody is; good under one host name (a code: for one label), and for nothing else."""
        expires_at = self._expiry(ttl_s)
        ours = {"aud": host_name, "berth/state": state, "berth/account": user.account}
        return self._issue({**_common_claims(user, "", kind, expires_at), **ours}, expires_at)

    def read_pod_pass(self, kind: PodPassKind, token: str, host_name: str) -> PodPass:
        """Whom a pass speaks for; Unauthenticated when it does not hold here."""
        claims = self._claims(token, kind)
        if claims.get("aud") != host_name:
            raise Unauthenticated("the pass is for another name; log in again")
        principal = Principal(
            tenant=claims["tapis/tenant_id"],
            username=claims["tapis/username"],
            account=str(claims.get("berth/account", "")),
        )
        state, expires_at = str(claims.get("berth/state", "")), utc(float(claims["exp"]))
        return PodPass(principal=principal, jti=str(claims["jti"]), state=state, expires_at=expires_at)

    def jwks(self) -> dict[str, Any]:
        """The public keys, as ``/v3/oauth2/jwks`` publishes them."""
        extra = {"alg": ALGORITHM, "use": "sig"}
        return {"keys": [{**key.as_dict(private=False), "kid": kid, **extra} for kid, key in self._keys.items()]}

    def public_pem(self) -> str:
        """The public half of the key that signs now, in PEM, as tenants show it."""
        return self._public_pem

    # -- below --------------------------------------------------------------------------------------------------

    def _expiry(self, ttl_s: int) -> datetime:
        """The instant at which a token of now ends; whole seconds, as ``exp`` has no others."""
        return self._clock().replace(microsecond=0) + timedelta(seconds=ttl_s)

    def _first(self, user: User, client_id: str | None, expires_at: datetime, count: int = 0) -> RefreshGrant:
        """The first grant of a login."""
        return RefreshGrant(
            jti=str(uuid.uuid4()),
            family=str(uuid.uuid4()),
            tenant=user.tenant,
            username=user.username,
            count=count,
            issued_at=self._clock(),
            expires_at=expires_at,
            client_id=client_id,
        )

    def _access_claims(self, user: User, base_url: str, expires_at: datetime) -> dict[str, Any]:
        ours = {"berth/admin": user.is_admin, "berth/account": user.account}
        return {**_common_claims(user, base_url, "access", expires_at), **ours}

    def _issue(self, claims: dict[str, Any], expires_at: datetime) -> Issued:
        header = {"alg": ALGORITHM, "typ": "JWT", "kid": self._kid}
        token = jwt.encode(header, claims, self._signing_key, algorithms=[ALGORITHM])
        lasts_s = int((expires_at - self._clock().replace(microsecond=0)).total_seconds())
        return Issued(token=token, jti=claims["jti"], expires_at=expires_at, expires_in_s=lasts_s)

    def _claims(self, token: str, token_type: str) -> Mapping[str, Any]:
        """The claims of a token of ours that is of this type and has not expired."""
        if len(token) > MOST_TOKEN_CHARS:
            raise Unauthenticated(f"the token is longer than {MOST_TOKEN_CHARS} characters")
        try:
            claims = jwt.decode(token, self._key_of, algorithms=[ALGORITHM]).claims
        except UnsupportedAlgorithmError:
            raise Unauthenticated(f"the token is not signed with {ALGORITHM}, the only accepted algorithm") from None
        except BadSignatureError:
            raise Unauthenticated("the token's signature does not hold") from None
        except (JoseError, ValueError, TypeError, RecursionError):  # the library trusts headers to be plain objects
            raise Unauthenticated("the token is not a signed JWT; log in to get one") from None
        if not claims.keys() >= REQUIRED_CLAIMS:
            raise Unauthenticated(f"the token lacks claims: {', '.join(sorted(REQUIRED_CLAIMS - claims.keys()))}")
        if claims["exp"] <= self._clock().timestamp():
            raise _expired(claims["exp"])
        if claims["tapis/token_type"] != token_type:
            raise Unauthenticated(f"this is the {claims['tapis/token_type']} token; send the {token_type} token")
        return claims

    def _key_of(self, token: GuestProtocol) -> RSAKey:
        key = self._keys.get(str(token.headers().get("kid")))
        if key is None:
            raise Unauthenticated("the token was signed with a key that is not known here; log in again")
        return key

    def _remember(self, digest: bytes, claims: Mapping[str, Any]) -> tuple[float, Principal]:
        principal = Principal(
            tenant=claims["tapis/tenant_id"],
            username=claims["tapis/username"],
            is_admin=claims.get("berth/admin") is True,
            account_type=claims["tapis/account_type"],
            account=str(claims.get("berth/account", "")),
        )
        known = (float(claims["exp"]), principal)
        self._verified[digest] = known
        if len(self._verified) > MOST_REMEMBERED:
            self._verified.popitem(last=False)
        return known


def new_signing_key(at: datetime) -> SigningKey:
    """A fresh RSA key pair. Takes some tenths of a second of a core: not on the event loop."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    kid = sha256(public).hexdigest()[:16]
    return SigningKey(kid=kid, private_pem=secret.decode(), public_pem=public.decode(), created_at=at)


def _common_claims(user: User | Principal, base_url: str, token_type: str, expires_at: datetime) -> dict[str, Any]:
    """What access and refresh tokens both say, in Tapis's claims."""
    return {
        "jti": str(uuid.uuid4()),
        "iss": f"{base_url}/v3/tokens",
        "sub": f"{user.username}@{user.tenant}",
        "exp": int(expires_at.timestamp()),
        "tapis/tenant_id": user.tenant,
        "tapis/token_type": token_type,
        "tapis/delegation": False,
        "tapis/delegation_sub": None,
        "tapis/username": user.username,
        "tapis/account_type": "user",
    }


def _expired(expired_at_s: float) -> Unauthenticated:
    return Unauthenticated(f"the token expired at {zulu(utc(expired_at_s))}; log in again")
