"""Let a job wait in several places: copies of its lead, with numbers from one counter.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REVIEWS = "ix_jobs_review_at"
LOOKS = "ix_attempts_next_look_at"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("last_attempt", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET last_attempt = attempt")
    op.add_column("jobs", sa.Column("review_at", sa.DateTime(timezone=True), nullable=True))
    set_ = sa.text("review_at IS NOT NULL")
    op.create_index(REVIEWS, "jobs", ["review_at"], sqlite_where=set_, postgresql_where=set_)
    op.add_column("attempts", sa.Column("role", sa.String(32), nullable=False, server_default="LEAD"))
    for name in ("next_look_at", "lease_until", "unwanted_at", "go_at"):
        op.add_column("attempts", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    for name in ("lease_owner", "place"):
        op.add_column("attempts", sa.Column(name, sa.Text(), nullable=True))
    set_ = sa.text("next_look_at IS NOT NULL")
    op.create_index(LOOKS, "attempts", ["next_look_at"], sqlite_where=set_, postgresql_where=set_)


def downgrade() -> None:
    op.drop_index(LOOKS, table_name="attempts")
    for name in ("place", "go_at", "unwanted_at", "lease_until", "lease_owner", "next_look_at", "role"):
        op.drop_column("attempts", name)
    op.drop_index(REVIEWS, table_name="jobs")
    for name in ("review_at", "last_attempt"):
        op.drop_column("jobs", name)
