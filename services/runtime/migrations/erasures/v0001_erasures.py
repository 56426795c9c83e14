"""Erasures of subjects: how far they are, and their receipts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "erasures",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("erasure_id", sa.String(64), primary_key=True),
        sa.Column("attribute_key", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("value", sa.Text, nullable=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("receipt", sa.Text, nullable=True),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
    )
