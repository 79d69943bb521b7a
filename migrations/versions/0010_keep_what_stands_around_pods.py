"""Keep what stands around pods: permissions, templates, allowed images, volumes, snapshots.

Revision: 0010, after 0009.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _words(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _at(name: str, *, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def _whole(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _keys(table: str, *names: str) -> list[sa.Constraint]:
    return [
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f(f"fk_{table}_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", *names, name=op.f(f"pk_{table}")),
    ]


def upgrade() -> None:
    op.create_table(
        "pod_grants",
        *_words("tenant", "name", "user"),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        *_keys("pod_grants", "kind", "name", "user"),
    )
    op.create_index(op.f("ix_pod_grants_tenant_kind_user"), "pod_grants", ["tenant", "kind", "user"])
    op.create_table(
        "pod_templates",
        *_words("tenant", "id", "owner", "description", "metatags", "archive_message"),
        _at("created_at"),
        _at("updated_at"),
        *_keys("pod_templates", "id"),
    )
    op.create_table(
        "pod_template_tags",
        *_words("tenant", "template_id", "tag", "definition", "commit_message", "added_by"),
        _at("created_at"),
        sa.Column("is_stateful", sa.Boolean(), nullable=True),
        *_keys("pod_template_tags", "template_id", "tag", "created_at"),
    )
    op.create_table(
        "pod_images",
        *_words("tenant", "image", "tenants", "description", "added_by"),
        _at("created_at"),
        *_keys("pod_images", "image"),
    )
    op.create_table("pod_volumes", *_words(*_FILES), *_files(), *_keys("pod_volumes", "id"))
    op.create_index(op.f("ix_pod_volumes_status"), "pod_volumes", ["status"])
    op.create_table(
        "pod_snapshots",
        *_words(*_FILES, "source_volume_id", "source_path", "destination_path", "cron", "retention_policy"),
        *_files(),
        _at("next_at", null=True),
        *_keys("pod_snapshots", "id"),
    )
    op.create_index(op.f("ix_pod_snapshots_status"), "pod_snapshots", ["status"])
    there = sa.text("next_at IS NOT NULL")
    op.create_index(
        op.f("ix_pod_snapshots_next_at"), "pod_snapshots", ["next_at"], sqlite_where=there, postgresql_where=there
    )


_FILES = ("tenant", "id", "uuid", "owner", "description", "message")


def _files() -> list[sa.Column[Any]]:
    return [
        _whole("size_limit_mib"),
        _whole("size_bytes"),
        sa.Column("status", sa.String(32), nullable=False),
        _at("created_at"),
        _at("updated_at"),
        sa.Column("version", sa.Integer(), nullable=False),
    ]


def downgrade() -> None:
    op.drop_index(op.f("ix_pod_snapshots_next_at"), table_name="pod_snapshots")
    op.drop_index(op.f("ix_pod_snapshots_status"), table_name="pod_snapshots")
    op.drop_table("pod_snapshots")
    op.drop_index(op.f("ix_pod_volumes_status"), table_name="pod_volumes")
    op.drop_table("pod_volumes")
    op.drop_table("pod_images")
    op.drop_table("pod_template_tags")
    op.drop_table("pod_templates")
    op.drop_index(op.f("ix_pod_grants_tenant_kind_user"), table_name="pod_grants")
    op.drop_table("pod_grants")
