"""The tables of the change journal."""
