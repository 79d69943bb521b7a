"""What is known of images, and where they are."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint

from images.needs import Needs
from scheduler.model.images import CopyState, PushedKind
from scheduler.store.columns import Record, Words, choice
from scheduler.store.schema.pieces import at, metadata, only_where_set, row_id, words

image_records = Table(
    "image_records",
    metadata,
    words("manifest_digest", primary_key=True),
    Column("needs", Record(Needs), nullable=False),
    at("created_at", null=False),
)
"""What images need, of all tenants: it follows from the content alone."""

pushed_images = Table(
    "pushed_images",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("user", primary_key=True),
    Column("digest", Words, primary_key=True, index=True),
    Column("kind", choice(PushedKind), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    words("name"),
    at("created_at", null=False),
)
"""Files that users pushed; one of the same bytes lies on the disk once."""

image_copies = Table(
    "image_copies",
    metadata,
    row_id(),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    words("system_id"),
    words("owner"),
    words("manifest_digest"),
    words("reference"),
    words("asked_by"),
    Column("state", choice(CopyState), nullable=False),
    words("file_digest", null=True),
    Column("size_bytes", BigInteger),
    Column("done_bytes", BigInteger, nullable=False),
    Column("total_bytes", BigInteger),
    Column("sent_bytes", BigInteger),
    Column("reused_bytes", BigInteger),
    Column("figures", Record(dict[str, float]), nullable=False),
    words("message"),
    Column("pinned", Boolean, nullable=False),
    at("created_at", null=False),
    at("updated_at", null=False),
    at("present_at"),
    at("used_at"),
    at("next_look_at"),
    words("lease_owner", null=True),
    at("lease_until"),
    Column("version", Integer, nullable=False),
    UniqueConstraint("tenant", "system_id", "owner", "manifest_digest"),
    only_where_set("next_look_at"),
    Index(None, "manifest_digest", "tenant"),
    Index(None, "tenant", "system_id", "present_at"),
)
"""``next_look_at`` is empty while nothing is to be done for a copy. ``owner``: of the login whose store it lies in."""
