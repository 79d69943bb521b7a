"""What is known of the nodes of each system, by class, as probes found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from images.host import HostFacts
from scheduler.store import schema
from scheduler.store.statements import put_row

node_facts = schema.node_facts


@dataclass(frozen=True, slots=True)
class KnownNodes:
    """Facts of one class of nodes. seen_at: when a probe last looked; None where it is asked to look again."""

    facts: HostFacts
    seen_at: datetime | None


class NodeFactsStore:
    """One record for each class of nodes; the newest word stays."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def put(self, tenant: str, system_id: str, facts: HostFacts, seen_at: datetime) -> None:
        """Keep the facts of a class in place of those before."""
        key = {"tenant": tenant, "system_id": system_id, "node_class": facts.node_class}
        await put_row(self._db, node_facts, {**key, "facts": facts, "seen_at": seen_at})

    async def of_system(self, tenant: str, system_id: str) -> Mapping[str, KnownNodes]:
        """By class of nodes."""
        return (await self.of_tenant(tenant, system_id)).get(system_id, {})

    async def of_tenant(self, tenant: str, system_id: str | None = None) -> Mapping[str, Mapping[str, KnownNodes]]:
        """By system, then by class of nodes; of one system where it is named."""
        query = select(node_facts).where(node_facts.c.tenant == tenant)
        if system_id is not None:
            query = query.where(node_facts.c.system_id == system_id)
        found: dict[str, dict[str, KnownNodes]] = {}
        for row in await self._db.execute(query.order_by(node_facts.c.system_id, node_facts.c.node_class)):
            found.setdefault(row.system_id, {})[row.node_class] = KnownNodes(row.facts, row.seen_at)
        return found

    async def seen_at(self, tenant: str) -> Mapping[tuple[str, str], datetime | None]:
        """When each class was last looked at, by system and class; the facts themselves are not read."""
        query = select(node_facts.c.system_id, node_facts.c.node_class, node_facts.c.seen_at)
        rows = await self._db.execute(query.where(node_facts.c.tenant == tenant))
        return {(row.system_id, row.node_class): row.seen_at for row in rows}

    async def look_again(self, tenant: str, system_id: str) -> None:
        """Let a probe look soon; until then what is known stays."""
        here = and_(node_facts.c.tenant == tenant, node_facts.c.system_id == system_id)
        await self._db.execute(update(node_facts).where(here).values(seen_at=None))
