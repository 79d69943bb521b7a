"""Keep files that users push: whose they are, and what they are.

Revision: 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pushed_images",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "user", "digest")),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_pushed_images_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", "user", "digest", name=op.f("pk_pushed_images")),
    )
    op.create_index(op.f("ix_pushed_images_digest"), "pushed_images", ["digest"])


def downgrade() -> None:
    op.drop_index(op.f("ix_pushed_images_digest"), table_name="pushed_images")
    op.drop_table("pushed_images")
