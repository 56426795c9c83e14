"""Tables of the ingest service's own database, by Alembic."""
