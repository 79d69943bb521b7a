"""What is remembered of requests: answers by idempotency key, and who did what."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists
from scheduler.store import schema
from scheduler.store.statements import changed, insert_new

keys, audit = schema.idempotency_keys, schema.audit


class IdempotencyStore:
    """Answers already given, so that a request that comes again gets the same one."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def get(self, tenant: str, user: str, route: str, key: str) -> tuple[str, Any] | None:
        """The hash of the body that came with this key and the answer that was given; None when the key is new."""
        query = select(keys.c.body_hash, keys.c.answer).where(
            keys.c.tenant == tenant, keys.c.user == user, keys.c.route == route, keys.c.key == key
        )
        row = (await self._db.execute(query)).one_or_none()
        return None if row is None else (row.body_hash, row.answer)

    async def put(
        self, tenant: str, user: str, route: str, key: str, body_hash: str, answer: Any, at: datetime
    ) -> None:
        """Keep an answer (anything that JSON can say), in the transaction of what it answers.

        AlreadyExists when a request with this key was faster: roll back and ``get`` its answer.
        """
        row = {"tenant": tenant, "user": user, "route": route, "key": key, "body_hash": body_hash, "answer": answer}
        if not await insert_new(self._db, keys, {**row, "created_at": at}):
            raise AlreadyExists("request with Idempotency-Key", key)

    async def sweep(self, before: datetime) -> int:
        """Forget answers given before an instant (24 hours ago, in production); how many there were."""
        return changed(await self._db.execute(delete(keys).where(keys.c.created_at < before)))


class AuditStore:
    """Who did what; only ever appended to."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(
        self, tenant: str, actor: str, action: str, subject: str, detail: Mapping[str, Any], at: datetime
    ) -> None:
        """``detail`` holds no secrets."""
        row = {"tenant": tenant, "actor": actor, "action": action, "subject": subject, "detail": detail, "at": at}
        await self._db.execute(insert(audit).values(row))
