"""Users of a tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists, NotFound
from scheduler.model.users import User
from scheduler.store import schema
from scheduler.store.statements import changed, insert_new

users = schema.users


class UserStore:
    """Who may log in. Passwords arrive hashed."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, user: User) -> None:
        """AlreadyExists when the name is taken in this tenant."""
        if not await insert_new(self._db, users, asdict(user)):
            raise AlreadyExists("user", user.username)

    async def get(self, tenant: str, username: str) -> User:
        """NotFound when there is none."""
        row = (await self._db.execute(select(users).where(_is(tenant, username)))).mappings().one_or_none()
        if row is None:
            raise NotFound("user", username)
        return User(**row)

    async def list(self, tenant: str, limit: int | None = None, skip: int = 0) -> Sequence[User]:
        """Users by name."""
        query = select(users).where(users.c.tenant == tenant).order_by(users.c.username).offset(skip)
        return [User(**row) for row in (await self._db.execute(query.limit(limit))).mappings()]

    async def set_password(self, tenant: str, username: str, password_hash: str) -> None:
        """NotFound when there is no such user."""
        found = await self._db.execute(update(users).where(_is(tenant, username)).values(password_hash=password_hash))
        if changed(found) == 0:
            raise NotFound("user", username)

    async def delete(self, tenant: str, username: str) -> None:
        """NotFound when there is no such user."""
        if changed(await self._db.execute(delete(users).where(_is(tenant, username)))) == 0:
            raise NotFound("user", username)


def _is(tenant: str, username: str) -> ColumnElement[bool]:
    return and_(users.c.tenant == tenant, users.c.username == username)
