"""Keep what nodes can do, and the small jobs that look at them.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ONE_LIVE = "ix_helper_jobs_tenant_system_id_owner"


def upgrade() -> None:
    op.create_table(
        "node_facts",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("system_id", sa.Text(), nullable=False),
        sa.Column("node_class", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_node_facts_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", "system_id", "node_class", name=op.f("pk_node_facts")),
    )
    op.create_table(
        "helper_jobs",
        sa.Column("marker", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("system_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_helper_jobs_tenant_tenants")),
        sa.PrimaryKeyConstraint("marker", name=op.f("pk_helper_jobs")),
    )
    live = sa.text("ended_at IS NULL")
    names = ["tenant", "system_id", "owner"]
    op.create_index(ONE_LIVE, "helper_jobs", names, unique=True, sqlite_where=live, postgresql_where=live)


def downgrade() -> None:
    op.drop_index(ONE_LIVE, table_name="helper_jobs")
    op.drop_table("helper_jobs")
    op.drop_table("node_facts")
