"""The compiled part of ingest: from the bytes of requests to tables, what is wrong with them, and column buffers.

These modules know nothing but bytes and arrays of integers. `decode`, `admission` and `pivot` drive them.
"""
