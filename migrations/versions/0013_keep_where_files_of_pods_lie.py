"""Keep where the files of volumes and snapshots of pods lie. Those that are there lie with Berth.

Revision: 0013, after 0012.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = ("pod_volumes", "pod_snapshots")
WORDS = ("system_id", "login_owner", "directory")
INSTANTS = ("moved_at", "lease_until")


def upgrade() -> None:
    for table in TABLES:
        for name in WORDS:
            op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=""))
        for name in INSTANTS:
            op.add_column(table, sa.Column(name, sa.DateTime(timezone=True), nullable=True))
        op.add_column(table, sa.Column("lease_owner", sa.Text(), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        for name in (*WORDS, *INSTANTS, "lease_owner"):
            op.drop_column(table, name)
