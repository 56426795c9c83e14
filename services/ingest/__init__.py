"""The ingest service: takes events in, durably and in order, and hands them on to whoever follows the log."""
