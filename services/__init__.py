"""The services of Inkling, and what they share: `runtime` (every process) and `kernel` (every evaluation)."""
