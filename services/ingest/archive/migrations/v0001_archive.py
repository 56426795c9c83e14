"""How far each project is archived, and in which files."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "archive_progress",
        sa.Column("project", sa.String(128), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("pending", sa.BigInteger, nullable=True),
    )
    op.create_table(
        "archive_files",
        sa.Column("project", sa.String(128), primary_key=True),
        sa.Column("hour_us", sa.BigInteger, primary_key=True),
        sa.Column("last_position", sa.BigInteger, primary_key=True),
        sa.Column("first_position", sa.BigInteger, nullable=False),
        sa.Column("min_occurred_us", sa.BigInteger, nullable=False),
        sa.Column("max_occurred_us", sa.BigInteger, nullable=False),
        sa.Column("event_count", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("condemned", sa.Boolean, nullable=False),
    )
    op.create_index("archive_files_by_position", "archive_files", ["project", "last_position"])
