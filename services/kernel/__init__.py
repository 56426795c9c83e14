"""The shared heart: columns, expressions, windows, incremental aggregates and the fold that every evaluator runs.

The kernel knows no gRPC, no SQL and no environment variables. Time is int64 microseconds since the epoch, in UTC.
"""
