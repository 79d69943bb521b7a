"""Keep the OAuth clients of users, and with which of them a refresh token was made.

Revision: 0012, after 0011.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "oauth_clients",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("client_key_sealed", sa.Text(), nullable=False),
        sa.Column("callback_url", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=op.f("fk_oauth_clients_tenant_tenants")),
        sa.PrimaryKeyConstraint("tenant", "client_id", name=op.f("pk_oauth_clients")),
    )
    op.create_index(op.f("ix_oauth_clients_tenant_owner"), "oauth_clients", ["tenant", "owner"])
    op.add_column("refresh_tokens", sa.Column("client_id", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("refresh_tokens", "client_id")
    op.drop_table("oauth_clients")
