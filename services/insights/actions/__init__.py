"""What rules ask for is done here: durably kept, in order, again until it works, and once."""
