"""Files of the archive that are written or deleted, and are not in the index yet or any more."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "archive_leavings",
        sa.Column("project", sa.String(128), primary_key=True),
        sa.Column("key", sa.String(512), primary_key=True),
        sa.Column("wanted", sa.Boolean, nullable=False),
    )
