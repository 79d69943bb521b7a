"""Keep what queues show: everyone's jobs, one row for each.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "seen_jobs",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("system_id", sa.Text(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("cores", sa.BigInteger(), nullable=False),
        sa.Column("walltime_s", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_seen_jobs_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", "system_id", "remote_id", "submitted_at", name=op.f("pk_seen_jobs")),
    )
    op.create_index(op.f("ix_seen_jobs_seen_at"), "seen_jobs", ["seen_at"])
    op.create_index(
        op.f("ix_seen_jobs_tenant_system_id_submitted_at"), "seen_jobs", ["tenant", "system_id", "submitted_at"]
    )


def downgrade() -> None:
    for name in ("tenant_system_id_submitted_at", "seen_at"):
        op.drop_index(f"ix_seen_jobs_{name}", table_name="seen_jobs")
    op.drop_table("seen_jobs")
