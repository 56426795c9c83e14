"""Training sets, with what was asked for and what came of it."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "datasets",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("dataset_id", sa.String(64), primary_key=True),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("manifest", sa.Text, nullable=True),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("operation", sa.String(128), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
    )
    op.create_index("datasets_by_request", "datasets", ["project", "request_id"], unique=True)
    op.create_index("datasets_by_time", "datasets", ["project", "create_time_us", "dataset_id"])
