"""Project settings, collections, the request ids that declared them, and dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "project_settings",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("clock", sa.String(8), nullable=False),
        sa.Column("retention_us", sa.BigInteger, nullable=True),
        sa.Column("horizon_us", sa.BigInteger, nullable=False),
        sa.Column("max_lead_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "collections",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("collection_id", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "collection_requests",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "dead_letters",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("letter_id", sa.String(32), primary_key=True),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("field", sa.String(400), nullable=False),
        sa.Column("message", sa.String(400), nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=True),
        sa.Column("csv_line", sa.LargeBinary, nullable=True),
    )
    op.create_index("dead_letters_by_time", "dead_letters", ["project", "create_time_us", "letter_id"])
