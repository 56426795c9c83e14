"""The event log: an interface and its implementations, chosen by URL."""
