"""A project's attributes as they are now: the fold of its log, and who waits for it or watches it.

Everything here runs on the event loop's thread, in steps that do not yield: a reader never sees half a batch.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.features.compile import compile_group
from services.features.definitions import AttributeGroup
from services.kernel.aggregations import Aggregation
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine
from services.kernel.fold import Fold
from services.runtime.clocks import Clock
from services.runtime.errors import DeadlineExceeded

Touched = Mapping[Engine, NDArray[np.int32]]
Listener = Callable[[Touched], None]


class Slot(NamedTuple):
    """Where an aggregation is computed."""

    engine: Engine
    place: int


class Projection:
    """One project's fold with what stands around it."""

    def __init__(self, fold: Fold, clock: Clock) -> None:
        self.fold = fold
        self.head_position = fold.position
        """The newest position that the log is known to have."""
        self.revision = 0
        """Rises when engines come or go."""
        self.apply_seconds = 0.0
        """Time spent applying batches, in all."""
        self.closed = False
        self._clock = clock
        self._waiters: set[tuple[int, asyncio.Future[None]]] = set()
        self._listeners: dict[object, Listener] = {}

    @property
    def position(self) -> int:
        """The position of the last record applied."""
        return self.fold.position

    @property
    def lag(self) -> int:
        """Records of the log that are not applied yet."""
        return max(0, self.head_position - self.fold.position)

    # Events and time.

    def apply(self, first_position: int, last_position: int, batch: EventBatch | None) -> None:
        """Applies some records of the log, then tells those who wait and those who watch."""
        started = time.perf_counter()
        self.fold.apply(first_position, last_position, batch)
        self.fold.advance(self._clock.now_us())
        self.apply_seconds += time.perf_counter() - started
        self.head_position = max(self.head_position, self.fold.position)
        for waiter in [each for each in self._waiters if each[0] <= self.fold.position]:
            self._waiters.discard(waiter)
            if not waiter[1].done():
                waiter[1].set_result(None)
        self._tell()

    def tick(self) -> None:
        """Time has passed: what expired is told to those who watch."""
        self.advance()
        self._tell()

    def advance(self) -> None:
        """Moves to the present, so that what is read next holds now."""
        self.fold.advance(self._clock.now_us())

    def _tell(self) -> None:
        touched = {engine: codes for engine, codes in self.fold.touched().items() if len(codes)}
        if touched:
            for listener in list(self._listeners.values()):
                listener(touched)

    def announce(self) -> None:
        """Tells those who watch that definitions or engines changed: they are called with nothing touched."""
        for listener in list(self._listeners.values()):
            listener({})

    def close(self) -> None:
        """Another projection takes its place: those who watch must go to that one."""
        self.closed = True
        self.announce()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with the keys that change, until the function returned is called."""
        token = object()
        self._listeners[token] = listener

        def stop() -> None:
            self._listeners.pop(token, None)

        return stop

    async def wait_for(self, position: int, timeout_seconds: float) -> None:
        """Returns once the position is applied; raises DeadlineExceeded after the timeout."""
        if position <= self.fold.position:
            return
        waiter = (position, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter[1]
        except TimeoutError:
            raise DeadlineExceeded(
                f"position {position} was not applied within {timeout_seconds:g} s: the log stands at "
                f"{self.head_position}, of which {self.fold.position} are applied",
                reason="POSITION_NOT_REACHED",
                metadata={"position": str(self.fold.position), "head_position": str(self.head_position)},
            ) from None
        finally:
            self._waiters.discard(waiter)

    # Engines.

    def slot(self, attribute_key: str, aggregation: Aggregation) -> Slot | None:
        """Where an aggregation over an attribute key is computed, or None."""
        for engine in self.fold.engines:
            if engine.attribute_key == attribute_key:
                index = engine.index_of(aggregation)
                if index is not None:
                    return Slot(engine, index)
        return None

    def missing(self, group: AttributeGroup) -> list[Aggregation]:
        """The aggregations of a group that no engine computes yet, each once."""
        wanted = dict.fromkeys(compile_group(group))
        return [each for each in wanted if self.slot(group.attribute_key, each) is None]

    def adopt(self, engine: Engine) -> None:
        """Takes an engine in that has seen the same log up to the same position."""
        self.fold.attach(engine)
        self.revision += 1
        self.announce()

    def release(self, needed: Iterable[AttributeGroup]) -> None:
        """Lets the engines go that none of the groups needs, with their state."""
        wanted = {(group.attribute_key, each) for group in needed for each in compile_group(group)}
        for engine in list(self.fold.engines):
            if not any((engine.attribute_key, each) in wanted for each in engine.aggregations):
                self.fold.detach(engine)
                self.revision += 1
        self.announce()
