"""The tables of rules and of what they ask for."""
