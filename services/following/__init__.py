"""How a service follows the log of ingest: for every service that keeps a state folded from it."""
