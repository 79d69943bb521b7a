"""How a registry is told who asks: Bearer tokens bought for a scope, or Basic, as its 401 demands.

Sources: the distribution project's token and OAuth2 documents; RFC 9110, 11.6.1 for the grammar of a challenge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from images.credentials import Login
from images.errors import ImagePrivate, RegistryMisbehaves, RegistryUnavailable, login_command
from images.exchange import Ask, Exchange, read_at_most
from images.reference import registry_at
from scheduler.model.errors import CredentialRefused

DEFAULT_TOKEN_S = 60.0
"""How long a token holds whose answer does not say."""

_MARGIN_S = 5.0
_MAX_TOKEN_BYTES = 64 * 1024
_MOST_KEPT = 512
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?=\s+[A-Za-z0-9_-]+\s*=|\s*$|\s*,)")
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for. ``scheme`` is in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """The challenges in all ``WWW-Authenticate`` headers of an answer; what is not understood is left out."""
    found = []
    for header in headers:
        place = 0
        while scheme := _SCHEME.match(header, place):
            place, parameters = scheme.end(), {}
            while parameter := _PARAMETER.match(header, place):
                name, quoted, plain = parameter.groups()
                parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if plain is None else plain
                place = parameter.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


class Tokens:
    """Authorizations that were bought, each kept for one server and repository until it runs out."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._kept: dict[tuple[str, str], tuple[str, float]] = {}

    def known(self, host: str, repository: str) -> str:
        """The ``Authorization`` for a repository that still holds; "" when there is none."""
        authorization, until_s = self._kept.get((host, repository), ("", 0.0))
        return authorization if self._exchange.clock() < until_s else ""

    def forget(self, host: str, repository: str) -> None:
        """What was bought did not do."""
        self._kept.pop((host, repository), None)

    async def answer(self, response: httpx.Response, host: str, repository: str, login: Login | None) -> None:
        """Earn an authorization for what a 401 demands; ImagePrivate when it cannot be had.

        repository: "" for the registry as a whole.
        """
        challenges = parse_challenges(response.headers.get_list("www-authenticate"))
        bearer = next((one for one in challenges if one.scheme == "bearer"), None)
        if bearer is not None:
            authorization, lifetime_s = await self._bought(bearer, host, repository, login)
        elif any(one.scheme == "basic" for one in challenges) and login is not None and not login.is_identity_token:
            authorization, lifetime_s = login.basic, 3600.0
        else:
            raise no_access(host, repository, login)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[host, repository] = authorization, self._exchange.clock() + lifetime_s

    async def _bought(self, challenge: Challenge, host: str, repository: str, login: Login | None) -> tuple[str, float]:
        """A token for the scope that the registry asks for, and the seconds that it holds."""
        ask = _token_ask(challenge, host, repository, login)
        response = await self._exchange.send(ask)
        if response.status_code in (400, 401, 403, 404):
            await response.aclose()
            raise no_access(host, repository, login)
        if response.status_code != 200:
            await response.aclose()
            raise RegistryUnavailable(f"{host}: its token server answers {response.status_code}")
        try:
            value = json.loads(await read_at_most(response, _MAX_TOKEN_BYTES) or b"")
            token, lifetime_s = value.get("token") or value.get("access_token"), value.get("expires_in")
        except httpx.TransportError as error:
            raise RegistryUnavailable(
                f"{host}: its token server broke off: {str(error) or type(error).__name__}"
            ) from None
        except (ValueError, AttributeError, RecursionError):
            token = lifetime_s = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise RegistryMisbehaves(f"{host}: its token server answers without a token")
        known = isinstance(lifetime_s, int | float) and 0 < lifetime_s < 10**7
        return f"Bearer {token}", max(1.0, (lifetime_s if known else DEFAULT_TOKEN_S) - _MARGIN_S)


def no_access(host: str, repository: str, login: Login | None) -> CredentialRefused:
    """Many registries say the same of what they hide and of what they do not have, so this says both."""
    host = registry_at(host)
    who = f"'{login.username}'" if login and login.username else "the identity token"
    if not repository:
        return CredentialRefused(f"{host} does not take the login of {who}; check the name, password or access token")
    if login is None:
        why = f"is private or does not exist; check its name, or log in: {login_command(host)}"
    else:
        why = f"may not be read with the login of {who}, which may have run out; log in again: {login_command(host)}"
    return ImagePrivate(f"{host}/{repository} {why}")


def _token_ask(challenge: Challenge, host: str, repository: str, login: Login | None) -> Ask:
    wanted = {"service": challenge.parameters.get("service", "")}
    wanted["scope"] = challenge.parameters.get("scope") or (repository and f"repository:{repository}:pull")
    wanted = {name: value for name, value in wanted.items() if value}
    try:
        realm = httpx.URL(challenge.parameters.get("realm", ""))
    except httpx.InvalidURL:
        realm = httpx.URL("")
    if not realm.host:
        raise RegistryMisbehaves(f"{host} asks for a token and does not say where to get one")
    if login is not None and login.is_identity_token:
        form = {**wanted, "grant_type": "refresh_token", "client_id": "berth", "refresh_token": login.secret}
        return Ask("POST", str(realm), form=form)
    url = str(realm.copy_merge_params(wanted))
    return Ask("GET", url, authorization=login.basic if login else "")
