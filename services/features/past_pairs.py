"""What is asked of the past."""

from typing import NamedTuple


class Pair(NamedTuple):
    """A key and an instant t: the events before it count."""

    key_value: str
    instant_us: int
