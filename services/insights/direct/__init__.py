"""INFER the obvious way: one customer's rows, vectors, from scratch. It explains, and everything else is held to it."""
