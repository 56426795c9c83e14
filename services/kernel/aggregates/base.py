"""What an incremental aggregate is made of.

A *stream* is a filter, or a filter with a term that is not null; its rows carry its bit. A *state* holds, for each key,
what is known of one stream: either of the rows inside one window (`WindowedState`), or of all rows that came inside so
far, of which any window that ends now is the newest part (`StreamState`). States are told of rows that come inside and
go out again; equal states are shared between aggregates. A *reader* makes the value of one aggregate from its states.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregations import Aggregation, TermType
from services.kernel.expressions import Expression, Property
from services.kernel.interning import Interner
from services.kernel.rows import Bit, RowStore
from services.kernel.timelines import Timelines
from services.kernel.windows import MIN_US, Window

Value = int | float | str | bool | list["int | float | str | bool"] | dict["int | float | str | bool", int]
Scalar = int | float | str | bool
Reader = Callable[[int], Value | None]
"""From a key's code to the value, or None when the window holds no term."""


class Gathered(NamedTuple):
    """The values of many keys, in the order of their codes."""

    values: NDArray[np.int64] | NDArray[np.float64]
    """Numbers, or stored terms; anything where there is none."""
    present: NDArray[np.bool_]
    are_terms: bool = False
    """Whether the values are terms as `services.kernel.terms` stores them."""
    offsets: NDArray[np.int32] | None = None
    """Of lists: where each key's begins among the values; one more than there are keys."""
    truncated: NDArray[np.bool_] | None = None
    """Where a list was cut to its limit."""


ManyReader = Callable[[NDArray[np.int32]], Gathered | None]
"""The same for many keys at once; None when some value has no room in an int64: then they are read one by one."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The rows that enter an aggregate: filtered, and with a term that is not null if there is one."""

    filter: Expression
    term: Property | None = None
    term_type: TermType | None = None


class Bounds:
    """Where a window starts now: for all keys, or with a ttl for each."""

    def __init__(self, window: Window, ttl_us: int | None, stream: Stream) -> None:
        self.window, self.ttl_us, self.stream = window, ttl_us, stream
        self.lower_us = MIN_US
        self.session_starts: NDArray[np.int64] = np.zeros(0, np.int64)
        """With a ttl: by key, when its run of events began."""

    def lower(self, key: int) -> int:
        """The first instant inside for a key."""
        return self.lower_us if self.ttl_us is None else self.session_starts.item(key)

    def lowers(self, keys: NDArray[np.int32]) -> NDArray[np.int64]:
        """The first instants inside for some keys."""
        if self.ttl_us is None:
            return np.full(len(keys), self.lower_us, np.int64)
        starts: NDArray[np.int64] = self.session_starts[keys]
        return starts


@dataclass(slots=True)
class Memory:
    """What the states of an engine share."""

    store: RowStore
    timelines: Timelines
    strings: Interner
    now_us: int = MIN_US
    """The instant t: rows before it are inside."""


class State(ABC):
    """What is known of one stream, by key."""

    def __init__(self, memory: Memory, bit: Bit, term: int | None) -> None:
        self.memory, self.bit, self.term = memory, bit, term

    @property
    def values(self) -> NDArray[np.int64]:
        """The stream's terms, by row."""
        assert self.term is not None, "the stream has a term"
        return self.memory.store.terms[self.term]

    @abstractmethod
    def reserve_keys(self, count: int) -> None:
        """Makes room for so many keys."""

    @abstractmethod
    def enter(self, rows: NDArray[np.int32]) -> None:
        """Rows came inside; those without the stream's bit are passed over."""

    def leave(self, rows: NDArray[np.int32]) -> None:  # noqa: B027 (a stream has no window to leave)
        """Rows went out of the window at its start, or are about to be retracted."""

    def forget(self, rows: NDArray[np.int32], had_bit: NDArray[np.bool_]) -> None:  # noqa: B027 (counts left already)
        """Rows were retracted: they are in no timeline any more. `had_bit` says which belonged to the stream."""

    @abstractmethod
    def forget_key(self, key: int) -> None:
        """Leaves nothing of a key; its rows were retracted."""

    def referenced(self) -> NDArray[np.int32] | None:
        """Rows that must be kept whatever their age, if any; may contain -1."""
        return None

    def texts(self) -> NDArray[np.int64] | None:
        """The codes of texts that the state holds beside the rows, if it holds any."""
        return None

    def renumber(self, numbers: NDArray[np.int32]) -> None:  # noqa: B027 (not every state refers to rows)
        """Rows have new numbers; -1 for those gone."""

    @abstractmethod
    def dump(self) -> dict[str, NDArray[np.generic]]:
        """The state as arrays, for a snapshot."""

    @abstractmethod
    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Takes the state back from its arrays."""


class WindowedState(State):
    """What is known of the rows inside one window."""

    windowed: ClassVar[bool] = True

    def __init__(self, memory: Memory, bit: Bit, term: int | None, bounds: Bounds) -> None:
        super().__init__(memory, bit, term)
        self.bounds = bounds


class StreamState(State):
    """What is known of all rows of a stream."""

    windowed: ClassVar[bool] = False


W = TypeVar("W", bound=WindowedState)
S = TypeVar("S", bound=StreamState)


class States(Protocol):
    """Gives out states, the same one for the same question."""

    memory: Memory

    def bounds(self, aggregation: Aggregation) -> Bounds:
        """The bounds of an aggregation's window."""
        ...

    def windowed(self, kind: type[W], aggregation: Aggregation) -> W:
        """The state of the aggregation's stream in its window."""
        ...

    def of_stream(self, kind: type[S], aggregation: Aggregation) -> S:
        """The state of the aggregation's stream."""
        ...


def stream_of(aggregation: Aggregation) -> Stream:
    """The stream that an aggregation looks at."""
    return Stream(aggregation.filter, aggregation.term, aggregation.term_type)


def term_decoder(memory: Memory, term_type: TermType | None) -> Callable[[int], Scalar]:
    """From a stored term to its value."""
    if term_type is TermType.STRING:
        return memory.strings.text
    if term_type is TermType.NUMBER:
        return lambda stored: float(np.int64(stored).view(np.float64))
    if term_type is TermType.BOOLEAN:
        return bool
    return int
