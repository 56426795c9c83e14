"""The change journal: its entries, and for each project where it stands."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "change_journals",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("newest", sa.BigInteger, nullable=False),
        sa.Column("trimmed", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "change_journal_entries",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("stream", sa.String(160), nullable=False),
        sa.Column("key_value", sa.String(256), nullable=False),
        sa.Column("change", sa.String(32), nullable=False),
        sa.Column("instant_us", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("written_us", sa.BigInteger, nullable=False),
    )
