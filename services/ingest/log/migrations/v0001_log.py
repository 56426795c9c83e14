"""Projects and batches."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "log_projects",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("head", sa.BigInteger, nullable=False),
        sa.Column("kept_count", sa.BigInteger, nullable=False),
        sa.Column("kept_bytes", sa.BigInteger, nullable=False),
        sa.Column("appended_bytes", sa.BigInteger, nullable=False),
        sa.Column("max_occurred_us", sa.BigInteger, nullable=False),
        sa.Column("complete_since_us", sa.BigInteger, nullable=True),
    )
    op.create_table(
        "log_batches",
        sa.Column("project_id", sa.BigInteger, sa.ForeignKey("log_projects.id"), primary_key=True),
        sa.Column("last_position", sa.BigInteger, primary_key=True),
        sa.Column("first_position", sa.BigInteger, nullable=False),
        sa.Column("min_occurred_us", sa.BigInteger, nullable=False),
        sa.Column("max_occurred_us", sa.BigInteger, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    # Batches are Arrow IPC, compressed already: the server should not try again.
    op.execute("ALTER TABLE log_batches ALTER COLUMN data SET STORAGE EXTERNAL")
