"""What stands around pods: grants, templates, images, volumes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table

from scheduler.model.pod_catalog import FilesStatus, PodKind
from scheduler.store.columns import Instant, Record, Words, choice
from scheduler.store.schema.pieces import at, metadata, only_where_set, words

pod_grants = Table(
    "pod_grants",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    Column("kind", choice(PodKind), primary_key=True),
    words("name", primary_key=True),
    words("user", primary_key=True),
    Column("level", Integer, nullable=False),
    Index(None, "tenant", "kind", "user"),
)

pod_templates = Table(
    "pod_templates",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("id", primary_key=True),
    words("owner"),
    words("description"),
    Column("metatags", Record(tuple[str, ...]), nullable=False),
    words("archive_message"),
    at("created_at", null=False),
    at("updated_at", null=False),
)

pod_template_tags = Table(
    "pod_template_tags",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("template_id", primary_key=True),
    words("tag", primary_key=True),
    Column("created_at", Instant, primary_key=True),
    Column("definition", Record(dict[str, Any]), nullable=False),
    words("commit_message"),
    words("added_by"),
    Column("is_stateful", Boolean),
)
"""To the second: what one tag names is told apart by it on the wire."""

pod_images = Table(
    "pod_images",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("image", primary_key=True),
    Column("tenants", Record(tuple[str, ...]), nullable=False),
    words("description"),
    words("added_by"),
    at("created_at", null=False),
)
"""``tenant``: whose admin listed it; ``tenants``: for whom."""


def _home_of_files() -> tuple[Column[Any], ...]:
    """Where the files of a volume or a snapshot lie, and who brings them there now."""
    return (
        words("system_id"),
        words("login_owner"),
        words("directory"),
        at("moved_at"),
        words("lease_owner", null=True),
        at("lease_until"),
    )


pod_volumes = Table(
    "pod_volumes",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("id", primary_key=True),
    words("uuid"),
    words("owner"),
    words("description"),
    Column("size_limit_mib", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("status", choice(FilesStatus), nullable=False),
    words("message"),
    *_home_of_files(),
    at("created_at", null=False),
    at("updated_at", null=False),
    Column("version", Integer, nullable=False),
    Index(None, "status"),
)

pod_snapshots = Table(
    "pod_snapshots",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("id", primary_key=True),
    words("uuid"),
    words("owner"),
    words("source_volume_id"),
    words("source_path"),
    words("destination_path"),
    words("description"),
    Column("size_limit_mib", BigInteger, nullable=False),
    words("cron"),
    words("retention_policy"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("status", choice(FilesStatus), nullable=False),
    words("message"),
    at("next_at"),
    *_home_of_files(),
    at("created_at", null=False),
    at("updated_at", null=False),
    Column("version", Integer, nullable=False),
    only_where_set("next_at"),
    Index(None, "status"),
)
