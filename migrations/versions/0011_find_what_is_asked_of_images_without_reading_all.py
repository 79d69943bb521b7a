"""Find what is asked of images and attempts by an index: who may still read one, where one lies, what was spent.

Revision: 0011, after 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_attempts_tenant_id": ("attempts", ["tenant", "id"]),
    "ix_image_copies_manifest_digest_tenant": ("image_copies", ["manifest_digest", "tenant"]),
    "ix_image_copies_tenant_system_id_present_at": ("image_copies", ["tenant", "system_id", "present_at"]),
}
LIVE = "ix_attempts_tenant_system_id"


def upgrade() -> None:
    live = sa.text("ended_at IS NULL")
    op.create_index(LIVE, "attempts", ["tenant", "system_id"], sqlite_where=live, postgresql_where=live)
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)


def downgrade() -> None:
    for name, (table, _) in INDEXES.items():
        op.drop_index(name, table_name=table)
    op.drop_index(LIVE, table_name="attempts")
