"""The tables of the archive's index."""
