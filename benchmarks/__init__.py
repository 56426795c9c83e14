"""Figures, each beside its floor from the same run. `make bench` prints them all."""
