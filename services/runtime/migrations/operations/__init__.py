"""The table of long-running operations."""
