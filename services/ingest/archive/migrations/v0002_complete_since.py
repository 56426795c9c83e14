"""Since when each project's archive is complete."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column."""
    op.add_column("archive_progress", sa.Column("complete_since_us", sa.BigInteger, nullable=True))
