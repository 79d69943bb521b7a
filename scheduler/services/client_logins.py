"""People who log in to a program of somebody's, an OAuth client, on Berth's own page: it never sees their password.

The authorization code grant of RFC 6749 with RFC 7636 (PKCE), and the implicit grant in Tapis's shape.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from urllib.parse import urlencode

from scheduler.model.errors import NotFound, SpecInvalid, Unauthenticated
from scheduler.model.users import OAuthClient
from scheduler.ports import Ports
from scheduler.security.tokens import Tokens
from scheduler.services import auth
from scheduler.services.auth import TokenPair
from scheduler.store.keys import RefreshStore
from scheduler.store.oauth_clients import OAuthClientStore
from scheduler.store.requests import AuditStore

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


class Wanted(StrEnum):
    """What a client wants to be called back with: ``response_type``."""

    CODE = "code"
    TOKEN = "token"  # noqa: S105 - the wire's word, not a secret


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for. challenge: of PKCE, or empty."""

    client: OAuthClient
    wanted: Wanted
    state: str
    challenge: str

    def answer(self, **said: str | int) -> str:
        """Where the browser goes, and what it says there."""
        return called_back(self.client.callback_url, state=self.state, **said)


class AskedWrongly(Exception):
    """What is wrong is for the client to know; location: where it is told, in RFC 6749's words."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


async def asked(ports: Ports, tenant: str, query: Mapping[str, str]) -> Asked:
    """What the parameters of ``authorize`` say.

    SpecInvalid where no client of that address is known, so that nobody may be sent there; AskedWrongly for the rest.
    """
    client = await _client(ports, tenant, query.get("client_id", ""))
    if not client.callback_url or query.get("redirect_uri", client.callback_url) != client.callback_url:
        fix = "let the client's owner set its callback_url to the very same (PUT /v3/oauth2/clients/{client_id})"
        raise SpecInvalid.of("redirect_uri", "is not where this client is called back", fix)
    state, challenge = query.get("state", ""), query.get("code_challenge", "")

    def wrong(error: str, description: str) -> AskedWrongly:
        told = {"error": error, "error_description": description, "state": state}
        return AskedWrongly(called_back(client.callback_url, **told))

    wanted = query.get("response_type", "")
    if wanted not in list(Wanted):
        raise wrong("unsupported_response_type", f"response_type must be one of {', '.join(Wanted)}")
    method = query.get("code_challenge_method", "plain" if challenge else "S256")
    if method != "S256" or (challenge and _CHALLENGE.fullmatch(challenge) is None):
        raise wrong("invalid_request", "code_challenge must be that of code_challenge_method S256")
    return Asked(client, Wanted(wanted), state, challenge)


async def log_in(ports: Ports, tokens: Tokens, asked: Asked, login: tuple[str, str, str], base_url: str) -> str:
    """Where to send somebody who gave user name and password: to the client, with what it asked for.

    login: user name, password, and the address that they come from. Raises LoginRefused and TooManyLogins.
    """
    client, now = asked.client, ports.clock()
    user = await auth.demand_password(ports, client.tenant, *login)
    async with ports.transaction() as db:
        detail = {"for": asked.wanted.value}
        await AuditStore(db).add(client.tenant, user.username, "client.login", client.client_id, detail, now)
        if asked.wanted is Wanted.CODE:
            code, grant = tokens.code(user, client, asked.challenge)
            await RefreshStore(db).add(grant)
            return asked.answer(code=code.token)
    access = tokens.access(user, base_url)
    return asked.answer(access_token=access.token, expires_in=access.expires_in_s, token_type="Bearer")  # noqa: S106


async def trade(
    ports: Ports,
    tokens: Tokens,
    tenant: str,
    code: str,
    callback_url: str,
    base_url: str,
    client: OAuthClient | None,
    client_id: str,
    verifier: str,
) -> TokenPair:
    """Tokens for a code, which is good once; a second time ends what it gave. Unauthenticated for what does not hold.

    client: who asks, proven by its key. One that can keep no key says its ``client_id``, and proves by the verifier
    that it is the one that began; it gets no refresh token.
    """
    known = tokens.read_code(code)
    if (known.tenant, known.client_id) != (tenant, client.client_id if client else client_id):
        raise Unauthenticated("the code was given to another client")
    if known.callback_url != callback_url:
        raise Unauthenticated("redirect_uri is not the one to which the code was sent")
    if client is None and not known.challenge:
        raise Unauthenticated("send the client's key, or begin with a code_challenge")
    if not hmac.compare_digest(known.challenge, _challenge(verifier)):
        raise Unauthenticated("code_verifier is not the one with whose code_challenge this login was begun")
    await _client(ports, tenant, known.client_id)
    user, spent = await auth.spend(ports, known, known.client_id)
    if client is None:
        return TokenPair(tokens.access(user, base_url), None)
    return await auth.pair(ports, tokens, user, base_url, spent=spent)


def called_back(callback_url: str, **said: str | int) -> str:
    """A client's address with what it is told, as the last of its query; of its fragment where it has one."""
    last = callback_url[callback_url.find("#") + 1 :]
    query = urlencode({name: value for name, value in said.items() if value != ""})
    return f"{callback_url}{'&' if '?' in last else '?'}{query}"


def _challenge(verifier: str) -> str:
    """Empty where there is no verifier, as where there is no challenge."""
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=") if verifier else ""


async def _client(ports: Ports, tenant: str, client_id: str) -> OAuthClient:
    try:
        async with ports.reading() as db:
            return await OAuthClientStore(db).get(tenant, client_id)
    except NotFound:
        raise SpecInvalid.of("client_id", "is not known here", "make the client: POST /v3/oauth2/clients") from None
