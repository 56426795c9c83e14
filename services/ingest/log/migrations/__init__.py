"""The tables of the event log in PostgreSQL; in SQLite they are made by `sqlite_schema`."""
