"""Rules: counts and sums of a user's events, compared with targets, and what happens when they are met."""
