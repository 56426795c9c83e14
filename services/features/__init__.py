"""Holds definitions of attributes, keeps their values current from the log, and serves profiles."""
