"""The table of training sets."""
