"""Tests of the event log: one conformance suite, and what is particular to each implementation."""
