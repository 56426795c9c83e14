"""Declarations of properties, also deleted ones, and of roll-ups."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "properties",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("attribute_key", sa.String(64), primary_key=True),
        sa.Column("property_id", sa.String(128), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rollups",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("attribute_key", sa.String(64), primary_key=True),
        sa.Column("rollup_id", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
    )
