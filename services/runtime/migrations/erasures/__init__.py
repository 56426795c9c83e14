"""The tables of erasures."""
