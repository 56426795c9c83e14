"""A project's attributes as they are now: the fold of its log, and who waits for it or watches it.

Everything here runs on the event loop's thread, in steps that do not yield: a reader never sees half a batch.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.features.compile import compile_group
from services.features.definitions import AttributeGroup
from services.features.references import References
from services.following.erasing import apply
from services.kernel.aggregations import Aggregation
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine
from services.kernel.fold import Fold
from services.runtime.clocks import Clock
from services.runtime.errors import DeadlineExceeded

Touched = Mapping[Engine, NDArray[np.int32]]
Listener = Callable[[Touched], None]
KeyListener = Callable[[str, Collection[str]], None]
_NEVER_US = 2**63 - 1


class Slot(NamedTuple):
    """Where an aggregation is computed."""

    engine: Engine
    place: int


class Projection:
    """One project's fold with what stands around it."""

    def __init__(self, fold: Fold, clock: Clock, project: str = "") -> None:
        self.fold = fold
        self.project = project
        self.erasing: dict[str, str] = {}
        """The key values of the subjects, by their hashes, that are being erased now."""
        self.head_position = fold.position
        """The newest position that the log is known to have."""
        self.revision = 0
        """Rises when engines come or go."""
        self.apply_seconds = 0.0
        """Time spent applying batches, in all."""
        self.closed = False
        self._changeable = asyncio.Event()
        self._changeable.set()
        self._freezers = 0
        self._stamps: dict[Engine, NDArray[np.int64]] = {}
        self._quiet_until_us: int | None = None
        """The next instant at which time alone changes a value, once it was asked for."""
        self._clock = clock
        self._waiters: set[tuple[int, asyncio.Future[None]]] = set()
        self._listeners: dict[object, Listener] = {}
        self._key_listeners: dict[object, KeyListener] = {}
        self.references = References()
        """Who refers to whom, for roll-ups."""

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
        forgotten = apply(self.fold, self.project, first_position, last_position, batch, self.erasing, self._tell)
        for each in forgotten:
            self.references.update({each.engine: each.touched})
            # Whatever was compiled for readers may hold values of the key.
            self.revision += 1
        self.fold.advance(self._clock.now_us())
        self._quiet_until_us = None
        self.apply_seconds += time.perf_counter() - started
        self.head_position = max(self.head_position, self.fold.position)
        for waiter in [each for each in self._waiters if each[0] <= self.fold.position]:
            self._waiters.discard(waiter)
            if not waiter[1].done():
                waiter[1].set_result(None)
        self._tell()

    def advance(self) -> None:
        """Moves to the present, so that what is read next holds now; tells those who watch. Not while frozen."""
        if self.frozen:
            return
        self.fold.advance(self._clock.now_us())
        self._tell()
        if self._quiet_until_us is not None and self.fold.as_of_us >= self._quiet_until_us:
            self._quiet_until_us = None

    def instant(self, *, moving: bool) -> int:
        """The present instant t, for which what is read next holds.

        While time alone changes nothing, the fold may stay behind: its values are those of t. `moving` says that values
        are read that change with every instant.
        """
        t_us = self._clock.now_us() + 1
        if self.fold.clock == "wall" and t_us > self.fold.as_of_us:
            if self._quiet_until_us is None:
                self._quiet_until_us = self.fold.next_change_us() or _NEVER_US
            if not moving and t_us < self._quiet_until_us:
                return t_us
            self.advance()
        return self.fold.as_of_us

    def _tell(self) -> None:
        touched = {engine: codes for engine, codes in self.fold.touched().items() if len(codes)}
        for engine, codes in touched.items():
            stamps = self._stamps.get(engine)
            if stamps is None or len(stamps) <= codes[-1]:
                stamps = self._stamps[engine] = _grown(stamps, len(engine.key_codes))
            stamps[codes] += 1
        if touched:
            self.references.update(touched)
            for listener in list(self._listeners.values()):
                listener(touched)

    def stamp(self, engine: Engine, code: int) -> int:
        """A number that rises whenever the values of a key may have changed, but for those that always change."""
        stamps = self._stamps.get(engine)
        return 0 if stamps is None or code >= len(stamps) else stamps.item(code)

    def announce(self) -> None:
        """Tells those who watch that definitions or engines changed: they are called with nothing touched."""
        for listener in list(self._listeners.values()):
            listener({})

    def mention(self, attribute_key: str, key_values: Collection[str]) -> None:
        """Tells those who watch of keys that changed beside the fold, such as by entering a segment."""
        for listener in list(self._key_listeners.values()):
            listener(attribute_key, key_values)

    @property
    def mentions_heard(self) -> bool:
        """Whether anybody listens to what is mentioned."""
        return bool(self._key_listeners)

    def listen_to_mentions(self, listener: KeyListener) -> Callable[[], None]:
        """Calls `listener` with the keys that are mentioned, until the function returned is called."""
        token = object()
        self._key_listeners[token] = listener

        def stop() -> None:
            self._key_listeners.pop(token, None)

        return stop

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

    # Snapshots.

    @property
    def frozen(self) -> bool:
        """Whether the state is being copied: it can be read, as of the instant it has, and must not change."""
        return not self._changeable.is_set()

    async def wait_changeable(self) -> None:
        """Returns once the state may be changed: before each step that does."""
        await self._changeable.wait()

    @contextmanager
    def freezing(self) -> Iterator[Fold]:
        """The fold, which does not change within the block. Several may copy at the same time."""
        self._freezers += 1
        self._changeable.clear()
        try:
            yield self.fold
        finally:
            self._freezers -= 1
            if not self._freezers:
                self._changeable.set()

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
        return self.missing_of(group.attribute_key, compile_group(group))

    def missing_of(self, attribute_key: str, aggregations: Iterable[Aggregation]) -> list[Aggregation]:
        """Those of the aggregations of an attribute key that no engine computes yet, each once."""
        return [each for each in dict.fromkeys(aggregations) if self.slot(attribute_key, each) is None]

    def adopt(self, engine: Engine) -> None:
        """Takes an engine in that has seen the same log up to the same position."""
        self.fold.attach(engine)
        self._quiet_until_us = None
        self.revision += 1
        self.announce()

    def release(self, needed: Iterable[tuple[str, Aggregation]]) -> None:
        """Lets the engines go, with their state, that compute no needed aggregation of their attribute key."""
        wanted = set(needed)
        for engine in list(self.fold.engines):
            if not any((engine.attribute_key, each) in wanted for each in engine.aggregations):
                self.fold.detach(engine)
                self._stamps.pop(engine, None)
                self.references.forget(engine)
                self.revision += 1
        self.announce()


def _grown(stamps: NDArray[np.int64] | None, count: int) -> NDArray[np.int64]:
    """Room for so many keys, and for as many more."""
    grown = np.zeros(2 * count, np.int64)
    if stamps is not None:
        grown[: len(stamps)] = stamps
    return grown
