"""Credentials: how a user logs in to a system, tried for real before it is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scheduler.model.errors import NotFound, SpecInvalid
from scheduler.model.ids import LoginKey
from scheduler.model.systems import AuthnMethod, BackendKind, Credential, System, Verified
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action, demand
from scheduler.services.idempotency import Names, Repeatable, earlier, once
from scheduler.services.systems import readable
from scheduler.store.requests import AuditStore
from scheduler.store.systems import CredentialStore, SystemStore


@dataclass(frozen=True, slots=True)
class Kept:
    """A credential as it is kept. warnings: as in ``Verified``; none where it was not tried."""

    credential: Credential
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenCredential:
    """What a user gives to log in by; nothing at all asks for a key pair made here."""

    login_user: str | None = None
    private_key: str | None = None
    public_key: str | None = None
    password: str | None = None
    access_token: str | None = None

    @property
    def is_empty(self) -> bool:
        return self.private_key is None and self.password is None and self.access_token is None

    @property
    def has_ssh_parts(self) -> bool:
        return any(part is not None for part in (self.private_key, self.public_key, self.password))


async def create(
    ports: Ports,
    caller: Principal,
    system_id: str,
    user: str,
    given: GivenCredential,
    *,
    check: bool,
    repeatable: Repeatable | None,
) -> Kept:
    """Keep a credential for a user, replacing the earlier one. CredentialRefused in the system's own words.

    A key pair made here cannot be tried yet: its public half must be installed first.
    """
    known = await earlier(ports, caller, repeatable)
    if known is not None:
        return Kept(await get(ports, caller, system_id, user))
    system = await _system(ports, caller, system_id, user)
    credential = await credential_of(given, system, user, check=check)
    credential = replace(credential, created_at=ports.clock())
    verified = Verified()
    if check and not given.is_empty and system.backend is not BackendKind.LOCAL:
        verified = await ports.connections.verify(system, credential)
        credential = replace(credential, verified_at=ports.clock())

    async def keep(db: Any) -> Names:
        await CredentialStore(db).put(credential)
        await _pin(db, system, verified.host_key)
        detail = {"user": user, "login": credential.login_user, "method": credential.method}
        await AuditStore(db).add(caller.tenant, caller.username, "credential.create", system_id, detail, ports.clock())
        return {"systemId": system_id, "user": user}

    await once(ports, caller, repeatable, keep)
    await ports.connections.forget(LoginKey(caller.tenant, system_id, user))
    return Kept(credential, verified.warnings)


async def get(ports: Ports, caller: Principal, system_id: str, user: str) -> Credential:
    """What is kept; showing its secrets is not for the caller of this."""
    await _system(ports, caller, system_id, user)
    async with ports.reading() as db:
        return await CredentialStore(db).get(caller.tenant, system_id, user)


async def check(ports: Ports, caller: Principal, system_id: str, user: str) -> Kept:
    """Log in for real with what is kept; CredentialRefused or BackendUnavailable in the system's own words."""
    system = await _system(ports, caller, system_id, user)
    async with ports.reading() as db:
        credential = await CredentialStore(db).get(caller.tenant, system_id, user)
    verified = await ports.connections.verify(system, credential)
    credential = replace(credential, verified_at=ports.clock())
    async with ports.transaction() as db:
        await CredentialStore(db).put(credential)
        await _pin(db, system, verified.host_key)
    await ports.connections.forget(LoginKey(caller.tenant, system_id, user))
    return Kept(credential, verified.warnings)


async def remove(ports: Ports, caller: Principal, system_id: str, user: str) -> None:
    """Forget a credential, and close what was opened with it."""
    await _system(ports, caller, system_id, user)
    async with ports.transaction() as db:
        await CredentialStore(db).remove(caller.tenant, system_id, user)
        await AuditStore(db).add(
            caller.tenant, caller.username, "credential.remove", system_id, {"user": user}, ports.clock()
        )
    await ports.connections.forget(LoginKey(caller.tenant, system_id, user))


async def credential_of(given: GivenCredential, system: System, user: str, *, check: bool) -> Credential:
    """The credential that is meant, its key readable and in the form that ssh reads. SpecInvalid when it is not."""
    login_user = given.login_user or (user if system.is_dynamic_user else system.effective_user_id)
    blank = Credential(tenant=system.tenant, system_id=system.id, user=user, login_user=login_user)
    is_kubernetes = system.backend is BackendKind.K8S
    if is_kubernetes is not (given.access_token is not None) or (is_kubernetes and given.has_ssh_parts):
        raise SpecInvalid.of(*(_TOKEN_NEEDED if is_kubernetes else _TOKEN_UNUSED))
    if given.access_token is not None:
        return replace(blank, method=AuthnMethod.TOKEN, password=given.access_token)
    if given.is_empty:
        made_private, made_public = await asyncio.to_thread(new_key_pair, f"berth:{user}@{system.id}")
        return replace(blank, private_key=made_private, public_key=made_public)
    if given.password is not None:
        return replace(blank, method=AuthnMethod.PASSWORD, password=given.password)
    private_key = one_key(given.private_key or "")
    public_key = given.public_key
    if check:
        found = await asyncio.to_thread(public_half, private_key)
        public_key = public_key or found
    return replace(blank, private_key=private_key, public_key=public_key)


_TOKEN_NEEDED = (
    "accessToken",
    "is how a login is known to a Kubernetes, and nothing else is",
    "give the token of a service account: kubectl create token NAME",
)
_TOKEN_UNUSED = ("accessToken", "is for a Kubernetes (notes.berth.backend k8s)", "give privateKey or password")


def new_key_pair(comment: str) -> tuple[str, str]:
    """An ed25519 key pair as OpenSSH writes it: private PEM, public line."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return pem.decode(), f"{line.decode()} {comment}"


def one_key(text: str) -> str:
    """A private key as a file would hold it; the one-line form with ``\\n`` written out is what Tapis teaches."""
    lines = text.replace("\\n", "\n").replace("\r\n", "\n").strip()
    return lines + "\n"


def public_half(private_key: str) -> str:
    """The public line of a private key; SpecInvalid when the key cannot be read or needs a passphrase."""
    fix = "send the whole text of an unencrypted PEM or OpenSSH private key, for example of ~/.ssh/id_ed25519"
    data = private_key.encode()
    load = serialization.load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else serialization.load_pem_private_key
    try:
        key = load(data, password=None)
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except TypeError:
        raise SpecInvalid.of("privateKey", "is protected by a passphrase", fix) from None
    except (ValueError, UnsupportedAlgorithm, AttributeError) as unreadable:
        raise SpecInvalid.of("privateKey", f"cannot be read ({unreadable})", fix) from None
    return line.decode()


async def _system(ports: Ports, caller: Principal, system_id: str, user: str) -> System:
    """The system, when the caller may handle this user's credential for it: their own, or as its owner or an admin."""
    async with ports.reading() as db:
        system = await readable(db, caller, system_id)
    if user != caller.username or not system.is_dynamic_user:
        demand(caller, Action.OWN, system, "system", system_id)
    if not system.is_dynamic_user and user != system.effective_user_id:
        raise SpecInvalid.of(
            "userName",
            f"'{user}' does not log in to '{system_id}'",
            f"its jobs run as '{system.effective_user_id}'; register the credential under that name",
        )
    return system


async def _pin(db: Any, system: System, host_key: str | None) -> None:
    """Keep the host key of the first verified login; a system that changed meanwhile pins at the next one."""
    if host_key is None or system.host_key is not None:
        return
    store = SystemStore(db)
    try:
        current = await store.get(system.tenant, system.id)
    except NotFound:
        return
    if current.host_key is None and (current.host, current.port) == (system.host, system.port):
        await store.replace(replace(current, host_key=host_key))
