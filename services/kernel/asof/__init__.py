"""The as-of engine: all aggregates for many (key, instant) pairs at once, from sorted columns.

The incremental engine holds one instant and follows it; here each pair has its own. Both mean the same: what the events
of the key in `[lower bound of the window at t, t)` come to, bit for bit.

The events are sorted once by (key, time, event id), and the pairs by (key, instant). So what a pair sees of a stream is
a run of that stream's rows, and from each pair to the next both ends of the run only move forward: every aggregate is
computed by one pass with two pointers, whose cost is rows plus pairs, however much the windows overlap.
"""

from services.kernel.asof.engine import AsOf
from services.kernel.column import STATUSES, Column

__all__ = ["STATUSES", "AsOf", "Column"]
