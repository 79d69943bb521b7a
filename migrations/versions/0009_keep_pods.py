"""Keep pods: what is wanted of them, each start at a place, what was done, and their secrets.

Revision: 0009, after 0007.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None

LIVE = sa.text("state <> 'ENDED'")
DUE = sa.text("next_look_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "pods",
        *(words(name) for name in ("uuid", "tenant", "id", "owner")),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("desired", sa.String(32), nullable=False),
        *(words(name) for name in ("message", "description", "template")),
        sa.Column("instance_number", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.DateTime(timezone=True), nullable=False) for name in ("created_at", "updated_at")),
        *(instant(name) for name in ("started_at", "stop_at", "delete_requested_at", "wanted_at", "held_until")),
        instant("next_look_at"),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        instant("lease_until"),
        sa.Column("version", sa.Integer(), nullable=False),
        *(words(name) for name in ("asked", "definition")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_pods_tenant_tenants")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_pods")),
        sa.UniqueConstraint("tenant", "id", name=op.f("uq_pods_tenant_id")),
    )
    op.create_index(op.f("ix_pods_next_look_at"), "pods", ["next_look_at"], sqlite_where=DUE, postgresql_where=DUE)
    op.create_table(
        "pod_instances",
        words("pod_uuid"),
        sa.Column("number", sa.Integer(), nullable=False),
        *(words(name) for name in ("marker", "tenant", "system_id", "owner")),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=False),
        *(instant(name) for name in ("started_at", "answered_at", "ended_at", "unwanted_at", "go_on_until")),
        instant("missing_since"),
        sa.Column("wait_p90_s", sa.Float(), nullable=False),
        sa.Column("ending", sa.String(32), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        words("message"),
        sa.Column("version", sa.Integer(), nullable=False),
        *(words(name) for name in ("run", "seen")),
        sa.ForeignKeyConstraint(["pod_uuid"], ["pods.uuid"], name=op.f("fk_pod_instances_pod_uuid_pods")),
        sa.PrimaryKeyConstraint("pod_uuid", "number", name=op.f("pk_pod_instances")),
        sa.UniqueConstraint("marker", name=op.f("uq_pod_instances_marker")),
    )
    op.create_index("ix_pod_instances_live", "pod_instances", ["marker"], sqlite_where=LIVE, postgresql_where=LIVE)
    op.create_table(
        "pod_logs",
        words("pod_uuid"),
        sa.Column("number", sa.Integer(), nullable=False),
        words("text"),
        sa.ForeignKeyConstraint(["pod_uuid"], ["pods.uuid"], name=op.f("fk_pod_logs_pod_uuid_pods")),
        sa.PrimaryKeyConstraint("pod_uuid", "number", name=op.f("pk_pod_logs")),
    )
    op.create_table(
        "pod_actions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        words("pod_uuid"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        words("words"),
        sa.ForeignKeyConstraint(["pod_uuid"], ["pods.uuid"], name=op.f("fk_pod_actions_pod_uuid_pods")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pod_actions")),
    )
    op.create_index(op.f("ix_pod_actions_pod_uuid_id"), "pod_actions", ["pod_uuid", "id"])
    op.create_table(
        "pod_credentials",
        *(words(name) for name in ("pod_uuid", "user_password_sealed", "service_password_sealed")),
        sa.ForeignKeyConstraint(["pod_uuid"], ["pods.uuid"], name=op.f("fk_pod_credentials_pod_uuid_pods")),
        sa.PrimaryKeyConstraint("pod_uuid", name=op.f("pk_pod_credentials")),
    )


def downgrade() -> None:
    for table in ("pod_credentials", "pod_actions", "pod_logs", "pod_instances", "pods"):
        op.drop_table(table)


def words(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)


def instant(name: str) -> "sa.Column[datetime]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True)
