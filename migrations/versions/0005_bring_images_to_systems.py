"""Bring images to systems: what they need, their copies in stores, and who awaits one.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LOOKS = "ix_image_copies_next_look_at"
AWAITED = "ix_attempts_awaits_image"
COPY = ["tenant", "system_id", "owner", "manifest_digest"]


def upgrade() -> None:
    op.create_table(
        "image_records",
        sa.Column("manifest_digest", sa.Text(), nullable=False),
        sa.Column("needs", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("manifest_digest", name=op.f("pk_image_records")),
    )
    op.create_table(
        "image_copies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in COPY[1:]),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("reference", "asked_by", "message")),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("done_bytes", sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=True)
            for name in ("size_bytes", "total_bytes", "sent_bytes", "reused_bytes")
        ),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        *(sa.Column(name, sa.DateTime(timezone=True), nullable=False) for name in ("created_at", "updated_at")),
        *(
            sa.Column(name, sa.DateTime(timezone=True), nullable=True)
            for name in ("present_at", "used_at", "next_look_at", "lease_until")
        ),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("file_digest", "lease_owner")),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_image_copies_tenant_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_copies")),
        sa.UniqueConstraint(*COPY, name=op.f(f"uq_image_copies_{'_'.join(COPY)}")),
    )
    set_ = sa.text("next_look_at IS NOT NULL")
    op.create_index(LOOKS, "image_copies", ["next_look_at"], sqlite_where=set_, postgresql_where=set_)
    op.add_column("jobs", sa.Column("image", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("awaits_image", sa.Text(), nullable=True))
    set_ = sa.text("awaits_image IS NOT NULL")
    op.create_index(AWAITED, "attempts", ["awaits_image"], sqlite_where=set_, postgresql_where=set_)


def downgrade() -> None:
    op.drop_index(AWAITED, table_name="attempts")
    op.drop_column("attempts", "awaits_image")
    op.drop_column("jobs", "image")
    op.drop_index(LOOKS, table_name="image_copies")
    op.drop_table("image_copies")
    op.drop_table("image_records")
