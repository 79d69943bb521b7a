"""What an empty store needs before anyone can log in: site, tenant, administrator, and a key that signs tokens."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from scheduler.model.tenants import Site, Tenant
from scheduler.model.users import SigningKey, User
from scheduler.ports import Ports
from scheduler.security import passwords
from scheduler.security.tokens import new_signing_key
from scheduler.store.keys import KeyStore
from scheduler.store.tenants import TenantStore
from scheduler.store.users import UserStore

PASSWORD_BYTES = 18


@dataclass(frozen=True, slots=True)
class Founding:
    """What is made at the first start; ``password`` None: a random one."""

    site: str
    tenant: str
    admin_user: str
    password: str | None = None


async def found(ports: Ports, founding: Founding) -> str | None:
    """Make what is missing in an empty store, all or nothing; answers the administrator's password when it was made up.

    None when there was nothing to do, or the password was given.
    """
    async with ports.reading() as db:
        if await TenantStore(db).tenants():
            return None
    now = ports.clock()
    password = founding.password or secrets.token_urlsafe(PASSWORD_BYTES)
    password_hash = await passwords.hash(password)
    admin = User(
        tenant=founding.tenant,
        username=founding.admin_user,
        password_hash=password_hash,
        is_admin=True,
        created_at=now,
    )
    async with ports.transaction() as db:
        tenants = TenantStore(db)
        await tenants.add_site(Site(id=founding.site, admin_tenant_id=founding.tenant, created_at=now))
        await tenants.add_tenant(
            Tenant(
                id=founding.tenant,
                site_id=founding.site,
                owner=founding.admin_user,
                admin_user=founding.admin_user,
                created_by=founding.admin_user,
                created_at=now,
                updated_at=now,
            )
        )
        await UserStore(db).add(admin)
    return None if founding.password else password


async def signing_keys(ports: Ports) -> list[SigningKey]:
    """The keys of the store, newest first; one is made when there is none that signs."""
    async with ports.transaction() as db:
        store = KeyStore(db)
        keys = list(await store.all())
        if not any(key.retired_at is None for key in keys):
            keys.insert(0, new_signing_key(ports.clock()))
            await store.add(keys[0])
    return keys
