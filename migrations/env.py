"""Run by Alembic: apply revisions on the connection that ``migrations.run`` opened."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Enum

from scheduler.store.columns import Instant, Record, Words
from scheduler.store.schema import metadata


def plain(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Our column types as the database sees them: a revision must not change when our code does."""
    if kind == "type" and isinstance(item, Words | Record):
        return "sa.Text()"
    if kind == "type" and isinstance(item, Instant):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Enum):
        return f"sa.String({item.length})"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_item=plain,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by copying it
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
