"""Keep what sites want of the jobs of their batch schedulers.

Revision: 0015, after 0014.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scheduler_profiles",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "name", "owner", "definition")),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_scheduler_profiles_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_scheduler_profiles")),
    )


def downgrade() -> None:
    op.drop_table("scheduler_profiles")
