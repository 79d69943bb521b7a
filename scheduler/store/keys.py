"""Signing keys and refresh tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import Unauthenticated
from scheduler.model.users import RefreshGrant, SigningKey
from scheduler.store import schema
from scheduler.store.sealing import reseal, sealer_of
from scheduler.store.statements import changed

keys, refresh = schema.signing_keys, schema.refresh_tokens


class KeyStore:
    """The keys that sign tokens; private halves lie encrypted."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, key: SigningKey) -> None:
        row = asdict(key)
        row["private_pem_sealed"] = sealer_of(self._db).encrypt(row.pop("private_pem"), _context(key.kid))
        await self._db.execute(insert(keys).values(row))

    async def all(self) -> Sequence[SigningKey]:
        """Every key, newest first; those that are not retired may sign, all verify."""
        rows = (await self._db.execute(select(keys).order_by(keys.c.created_at.desc(), keys.c.kid))).all()
        return [
            SigningKey(
                kid=row.kid,
                private_pem=sealer_of(self._db).decrypt(row.private_pem_sealed, _context(row.kid)),
                public_pem=row.public_pem,
                created_at=row.created_at,
                retired_at=row.retired_at,
            )
            for row in rows
        ]

    async def retire(self, kid: str, at: datetime) -> None:
        """Sign with it no more; tokens that it signed hold until they expire."""
        await self._db.execute(update(keys).where(keys.c.kid == kid, keys.c.retired_at.is_(None)).values(retired_at=at))

    async def reseal(self) -> int:
        """Encrypt every private half anew, with the present key of the box; how many there were."""
        return await reseal(self._db, keys, {"private_pem_sealed": lambda row: _context(row["kid"])})


class RefreshStore:
    """Refresh tokens given out. Each is good once; one that comes again was stolen, and its whole family ends."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, grant: RefreshGrant) -> None:
        await self._db.execute(insert(refresh).values(asdict(grant)))

    async def use(self, jti: str, at: datetime, client_id: str | None = None) -> RefreshGrant | None:
        """Spend a token; None when it was spent or revoked before, and then its family is revoked.

        Commit also when the answer is None: the revocation is the point. Unauthenticated, with
        nothing changed, for a token never given out, or given to another client than the one that was proven to ask.
        """
        row = (await self._db.execute(select(refresh).where(refresh.c.jti == jti))).mappings().one_or_none()
        if row is None:
            raise Unauthenticated("this refresh token is not known here; log in again")
        if row["client_id"] not in (None, client_id):
            raise Unauthenticated("this refresh token was given to a client; send that client's id and key with it")
        unspent = and_(refresh.c.jti == jti, refresh.c.rotated_at.is_(None), refresh.c.revoked_at.is_(None))
        fresh = changed(await self._db.execute(update(refresh).where(unspent).values(rotated_at=at))) == 1
        if not fresh:
            await self.revoke_family(row["family"], at)
            return None
        return RefreshGrant(**{name: row[name] for name in RefreshGrant.__dataclass_fields__})

    async def revoke_family(self, family: str, at: datetime) -> None:
        """End every token that came from one login."""
        await self._revoke(refresh.c.family == family, at=at)

    async def revoke_user(self, tenant: str, username: str, at: datetime) -> None:
        """End every refresh token of a user: the password changed, or the user is gone."""
        await self._revoke(refresh.c.tenant == tenant, refresh.c.username == username, at=at)

    async def revoke_client(self, tenant: str, client_id: str, at: datetime) -> None:
        """End every refresh token of logins that a client made: it is gone."""
        await self._revoke(refresh.c.tenant == tenant, refresh.c.client_id == client_id, at=at)

    async def revoke(self, jti: str, at: datetime) -> None:
        """End the family of one token; not known is success."""
        family = select(refresh.c.family).where(refresh.c.jti == jti).scalar_subquery()
        await self._revoke(refresh.c.family == family, at=at)

    async def sweep(self, before: datetime) -> int:
        """Forget tokens that expired before an instant; how many there were."""
        return changed(await self._db.execute(delete(refresh).where(refresh.c.expires_at < before)))

    async def _revoke(self, *which: ColumnElement[bool], at: datetime) -> None:
        live = refresh.c.revoked_at.is_(None)
        await self._db.execute(update(refresh).where(*which, live).values(revoked_at=at))


def _context(kid: str) -> str:
    return f"signing-key/{kid}"
