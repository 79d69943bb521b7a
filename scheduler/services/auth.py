"""Logging in, and the users of a tenant."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.model.errors import LoginRefused, NotFound, SpecInvalid, Unauthenticated
from scheduler.model.tenants import Site, Tenant
from scheduler.model.users import OAuthClient, Principal, RefreshGrant, User
from scheduler.ports import Ports
from scheduler.security import passwords
from scheduler.security.authorize import demand_admin
from scheduler.security.tokens import AuthorizationCode, Issued, RefreshClaims, Tokens
from scheduler.services import oauth_clients, pushes
from scheduler.services.idempotency import Names, Repeatable, once
from scheduler.store.keys import RefreshStore
from scheduler.store.registries import RegistryLoginStore
from scheduler.store.requests import AuditStore
from scheduler.store.tenants import TenantStore
from scheduler.store.users import UserStore

WRONG_LOGIN = "Invalid username/password combination."
NOT_GOOD_ANY_MORE = "what was sent was used before or revoked; log in again"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login gives. A client that proved itself by nothing that it keeps gets no refresh token."""

    access: Issued
    refresh: Issued | None


async def tenant_of_host(ports: Ports, host: str) -> Tenant:
    """The tenant that answers under a Host name; NotFound when several exist and none is meant."""
    async with ports.reading() as db:
        tenant = await TenantStore(db).by_host(host)
    if tenant is None:
        raise NotFound("tenant", host)
    return tenant


async def all_tenants(ports: Ports) -> tuple[Sequence[Site], Sequence[Tenant]]:
    """Sites and tenants; both are public."""
    async with ports.reading() as db:
        store = TenantStore(db)
        return await store.sites(), await store.tenants()


async def log_in(
    ports: Ports,
    tokens: Tokens,
    tenant: str,
    username: str,
    password: str,
    address: str,
    base_url: str,
    client: OAuthClient | None = None,
) -> TokenPair:
    """Tokens for a user name and password, as ``demand_password`` looks at them.

    client: who asks, proven; only it can use the refresh token then.
    """
    user = await demand_password(ports, tenant, username, password, address)
    return await pair(ports, tokens, user, base_url, client=client)


async def demand_password(ports: Ports, tenant: str, username: str, password: str, address: str) -> User:
    """The user of this name and password; LoginRefused in the same words whatever was wrong.

    TooManyLogins where too many were refused for the name, or from the address, whether or not this one is right.
    """
    ports.logins.begin(tenant, username, address, ports.clock())
    user = await _user_or_none(ports, tenant, username)
    matches = await passwords.verify(password, user.password_hash if user else None)
    if user is None or not matches or not user.enabled:
        raise LoginRefused(WRONG_LOGIN)
    ports.logins.succeeded(tenant, username, address, ports.clock())
    return user


async def refresh(
    ports: Ports, tokens: Tokens, tenant: str, token: str, base_url: str, client: OAuthClient | None = None
) -> TokenPair:
    """A new pair for a refresh token, which is spent by this. Unauthenticated when it does not hold."""
    claims = tokens.read_refresh(token)
    if claims.tenant != tenant:
        raise Unauthenticated("the refresh token belongs to another tenant")
    user, spent = await spend(ports, claims, client.client_id if client else None)
    return await pair(ports, tokens, user, base_url, spent=spent)


async def spend(
    ports: Ports, claims: RefreshClaims | AuthorizationCode, client_id: str | None
) -> tuple[User, RefreshGrant]:
    """Whose login a refresh token or code goes on with, and its grant, which is good no more. Unauthenticated."""
    async with ports.transaction() as db:
        spent = await RefreshStore(db).use(claims.jti, ports.clock(), client_id)
    if spent is None:
        raise Unauthenticated(NOT_GOOD_ANY_MORE)
    user = await _user_or_none(ports, claims.tenant, claims.username)
    if user is None or not user.enabled:
        raise Unauthenticated(NOT_GOOD_ANY_MORE)
    return user, spent


async def revoke(ports: Ports, tokens: Tokens, tenant: str, token: str) -> None:
    """End a refresh token and all that came of the same login. One that does not hold any more is success."""
    try:
        claims = tokens.read_refresh(token)
    except Unauthenticated:
        return
    if claims.tenant == tenant:
        async with ports.transaction() as db:
            await RefreshStore(db).revoke(claims.jti, ports.clock())


async def profile(ports: Ports, caller: Principal, username: str) -> User:
    """Any user of the caller's tenant."""
    async with ports.reading() as db:
        return await UserStore(db).get(caller.tenant, username)


async def profiles(ports: Ports, caller: Principal, limit: int | None, skip: int) -> Sequence[User]:
    """The users of the caller's tenant, by name."""
    async with ports.reading() as db:
        return await UserStore(db).list(caller.tenant, limit, skip)


async def create_user(
    ports: Ports, caller: Principal, user: User, password: str | None, repeatable: Repeatable | None
) -> tuple[User, str | None]:
    """A new user, and the password when it was made up here (told this once). For admins."""
    demand_admin(caller, "make users")
    told = None if password else secrets.token_urlsafe(15)
    password_hash = await passwords.hash(password or told or "")
    made = User(
        tenant=caller.tenant,
        username=user.username,
        email=user.email,
        given_name=user.given_name,
        last_name=user.last_name,
        password_hash=password_hash,
        is_admin=user.is_admin,
        created_at=ports.clock(),
    )
    fresh = False

    async def add(db: Any) -> Names:
        nonlocal fresh
        fresh = True
        await UserStore(db).add(made)
        detail = {"admin": made.is_admin}
        await AuditStore(db).add(caller.tenant, caller.username, "user.create", made.username, detail, ports.clock())
        return {"username": made.username}

    names = await once(ports, caller, repeatable, add)
    return await profile(ports, caller, names["username"]), told if fresh else None


async def delete_user(ports: Ports, caller: Principal, username: str) -> None:
    """End a user and every login of theirs. For admins, who cannot end themselves."""
    demand_admin(caller, "delete users")
    if username == caller.username:
        raise SpecInvalid.of("username", "is your own", "let another admin do it")
    async with ports.transaction() as db:
        await UserStore(db).delete(caller.tenant, username)
        await RefreshStore(db).revoke_user(caller.tenant, username, ports.clock())
        await RegistryLoginStore(db).remove_all(caller.tenant, username)
        await pushes.remove_all(db, ports, caller.tenant, username)
        await oauth_clients.remove_all(db, ports, caller.tenant, username)
        await AuditStore(db).add(caller.tenant, caller.username, "user.delete", username, {}, ports.clock())


async def set_password(ports: Ports, caller: Principal, username: str, password: str | None) -> str | None:
    """Set a user's password, by an admin or the user; the new one when it was made up here. Ends all logins."""
    if username != caller.username:
        demand_admin(caller, "set others' passwords")
    told = None if password else secrets.token_urlsafe(15)
    password_hash = await passwords.hash(password or told or "")
    async with ports.transaction() as db:
        await UserStore(db).set_password(caller.tenant, username, password_hash)
        await RefreshStore(db).revoke_user(caller.tenant, username, ports.clock())
        await AuditStore(db).add(caller.tenant, caller.username, "user.password", username, {}, ports.clock())
    return told


async def _user_or_none(ports: Ports, tenant: str, username: str) -> User | None:
    async with ports.reading() as db:
        try:
            return await UserStore(db).get(tenant, username)
        except NotFound:
            return None


async def pair(
    ports: Ports,
    tokens: Tokens,
    user: User,
    base_url: str,
    *,
    spent: RefreshGrant | None = None,
    client: OAuthClient | None = None,
) -> TokenPair:
    """Tokens for a user who is known: of a login with this client, or of one that goes on from what was spent."""
    refresh_token, grant = tokens.refresh(user, base_url, spent, client.client_id if client else None)
    async with ports.transaction() as db:
        await RefreshStore(db).add(grant)
    return TokenPair(tokens.access(user, base_url), refresh_token)
