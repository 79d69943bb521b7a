"""Programs that users log in with, and their owners."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from scheduler.model.errors import NotFound, SpecInvalid, Unauthenticated
from scheduler.model.users import OAuthClient, Principal
from scheduler.ports import Ports
from scheduler.services.idempotency import Names, Repeatable, once
from scheduler.store.keys import RefreshStore
from scheduler.store.oauth_clients import OAuthClientStore
from scheduler.store.requests import AuditStore

MOST_OF_OWNER = 100
WRONG_CLIENT = "the client's id or key is wrong; its owner sees both at GET /v3/oauth2/clients"


async def create(
    ports: Ports,
    caller: Principal,
    client_id: str | None,
    client_key: str | None,
    *,
    callback_url: str,
    display_name: str,
    description: str,
    repeatable: Repeatable | None,
) -> OAuthClient:
    """A new client of the caller's; id and key are made up where they are not given."""
    now = ports.clock()
    made = OAuthClient(
        tenant=caller.tenant,
        client_id=client_id or secrets.token_hex(12),
        owner=caller.username,
        client_key=client_key or secrets.token_urlsafe(30),
        callback_url=_sound(callback_url),
        display_name=display_name,
        description=description,
        created_at=now,
        updated_at=now,
    )

    async def add(db: Any) -> Names:
        store = OAuthClientStore(db)
        if len(await store.list(caller.tenant, caller.username, MOST_OF_OWNER)) >= MOST_OF_OWNER:
            raise SpecInvalid.of("client_id", f"would be one more than {MOST_OF_OWNER}", "delete one that is not used")
        await store.add(made)
        await _audit(db, caller, "create", made.client_id, now)
        return {"client_id": made.client_id}

    return await get(ports, caller, (await once(ports, caller, repeatable, add))["client_id"])


async def clients(ports: Ports, caller: Principal, limit: int | None, skip: int) -> Sequence[OAuthClient]:
    """The caller's clients, by id."""
    async with ports.reading() as db:
        return await OAuthClientStore(db).list(caller.tenant, caller.username, limit, skip)


async def get(ports: Ports, caller: Principal, client_id: str) -> OAuthClient:
    """A client of the caller's; NotFound for those of others as well."""
    async with ports.reading() as db:
        return await _own(db, caller, client_id)


async def update(
    ports: Ports, caller: Principal, client_id: str, callback_url: str | None, display_name: str | None
) -> OAuthClient:
    """Change where a client is called back, and its name; None leaves either as it is."""
    now = ports.clock()
    async with ports.transaction() as db:
        client = await _own(db, caller, client_id)
        changed = replace(
            client,
            callback_url=client.callback_url if callback_url is None else _sound(callback_url),
            display_name=client.display_name if display_name is None else display_name,
            updated_at=now,
        )
        await OAuthClientStore(db).write(changed)
        await _audit(db, caller, "update", client_id, now)
    return changed


async def remove(ports: Ports, caller: Principal, client_id: str) -> None:
    """End a client of the caller's; the refresh tokens of logins that it made end with it."""
    async with ports.transaction() as db:
        client = await _own(db, caller, client_id)
        await _end(db, ports, client)
        await _audit(db, caller, "delete", client_id, ports.clock())


async def remove_all(db: Any, ports: Ports, tenant: str, owner: str) -> None:
    """The owner is gone: whoever gets the name next starts without clients."""
    for client in await OAuthClientStore(db).list(tenant, owner):
        await _end(db, ports, client)


async def demand_client(ports: Ports, tenant: str, client_id: str, client_key: str) -> OAuthClient:
    """The client of this id and key; Unauthenticated in the same words whatever was wrong."""
    try:
        async with ports.reading() as db:
            client = await OAuthClientStore(db).get(tenant, client_id)
    except NotFound:
        raise Unauthenticated(WRONG_CLIENT) from None
    if not hmac.compare_digest(client.client_key.encode(), client_key.encode("utf-8", "surrogatepass")):
        raise Unauthenticated(WRONG_CLIENT)
    return client


async def _own(db: Any, caller: Principal, client_id: str) -> OAuthClient:
    client = await OAuthClientStore(db).get(caller.tenant, client_id)
    if client.owner != caller.username:
        raise NotFound("client", client_id)
    return client


async def _end(db: Any, ports: Ports, client: OAuthClient) -> None:
    await OAuthClientStore(db).remove(client.tenant, client.client_id)
    await RefreshStore(db).revoke_client(client.tenant, client.client_id, ports.clock())


async def _audit(db: Any, caller: Principal, what: str, client_id: str, at: Any) -> None:
    await AuditStore(db).add(caller.tenant, caller.username, f"client.{what}", client_id, {}, at)


def _sound(callback_url: str) -> str:
    """An address to which browsers may be sent; empty for a client that needs none.

    It may end in a fragment, unlike in RFC 6749: applications in the browser, as Tapis's own, are told of tokens there.
    """
    if not callback_url:
        return ""
    fix = "write it as https://portal.example.org/callback"
    try:
        parts = urlsplit(callback_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SpecInvalid.of("callback_url", "is not a URL", fix) from None
    plain = callback_url.isascii() and callback_url.isprintable() and " " not in callback_url
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise SpecInvalid.of("callback_url", "is not an http or https URL", fix)
    if parts.username is not None:
        raise SpecInvalid.of("callback_url", "holds a user", fix)
    return callback_url
