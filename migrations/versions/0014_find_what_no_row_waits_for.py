"""Find what no row waits for: strays as they were seen, and where pods have been.

Revision: 0014, after 0013.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

GONE = sa.text("gone_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "pod_places",
        *(words(name) for name in ("pod_uuid", "system_id", "owner", "tenant", "directory")),
        instant("since_at", null=False),
        *(instant(name) for name in ("gone_at", "cleared_at")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_pod_places_tenant_tenants")),
        sa.PrimaryKeyConstraint("pod_uuid", "system_id", "owner", name=op.f("pk_pod_places")),
    )
    op.create_index(op.f("ix_pod_places_gone_at"), "pod_places", ["gone_at"], sqlite_where=GONE, postgresql_where=GONE)
    op.create_table(
        "strays",
        *(words(name) for name in ("tenant", "system_id", "owner")),
        sa.Column("job_type", sa.String(32), nullable=False),
        *(words(name) for name in ("marker", "remote_id")),
        sa.Column("standing", sa.String(32), nullable=False),
        *(instant(name, null=False) for name in ("first_seen_at", "last_seen_at")),
        instant("confirmed_at"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_strays_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", "system_id", "owner", "job_type", "marker", name=op.f("pk_strays")),
    )


def downgrade() -> None:
    for table in ("strays", "pod_places"):
        op.drop_table(table)


def words(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)


def instant(name: str, *, null: bool = True) -> "sa.Column[datetime]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)
