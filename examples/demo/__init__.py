"""Real customers' attributes from real transactions, exactly, through the running services."""
