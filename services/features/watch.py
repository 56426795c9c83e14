"""Follows profiles: who watches is told, in time, of keys whose chosen values changed, by events or by time alone.

A watcher holds the keys that may have changed since it last looked (a set, so a slow consumer costs memory for each
key once and never holds up the fold), evaluates only those, and sends what differs from what it sent before.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from services.features import wire
from services.features.profiles import CompiledSelection, as_of_field
from services.features.projection import Projection, Touched
from services.runtime.errors import Unavailable

CHUNK = 200
"""Profiles in one message, at most."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a watcher stands: all changes up to this state were sent."""

    position: int
    as_of_us: int


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a watcher wants to know."""

    key_values: frozenset[str]
    """Only these; empty is all."""
    resume: Cursor | None
    min_interval_seconds: float
    send_initial: bool


class Watcher:
    """One stream of changes."""

    def __init__(
        self,
        request: WatchRequest,
        compiled: Callable[[], CompiledSelection],
        projection: Projection,
        sign: Callable[[Cursor], str],
    ) -> None:
        self._request = request
        self._compiled_now = compiled
        self._projection = projection
        self._sign = sign
        self._compiled = compiled()
        self._pending: set[str] = set()
        self._sent: dict[str, bytes] = {}
        """Digests of the values that the consumer has."""
        self._wake = asyncio.Event()

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """WatchProfilesResponse messages, without end."""
        stop = self._projection.listen(self._note)
        stop_mentions = self._projection.listen_to_mentions(self._note_mentioned)
        try:
            cursor = await self._start()
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._refresh()
                keys = sorted(self._pending)
                self._pending.clear()
                self._projection.advance()
                reached = Cursor(self._projection.position, self._projection.fold.as_of_us)
                for start in range(0, len(keys), CHUNK):
                    last = start + CHUNK >= len(keys)
                    changed = self._changed(keys[start : start + CHUNK])
                    if changed:
                        token = self._sign(reached if last else cursor)
                        yield b"".join(changed) + wire.text_field(2, token)
                    # Others get their turn, also when nothing was sent.
                    await asyncio.sleep(0)
                cursor = reached
                if keys:
                    await asyncio.sleep(self._request.min_interval_seconds)
        finally:
            stop_mentions()
            stop()

    async def _start(self) -> Cursor:
        """Decides what is sent first, and what counts as known."""
        request, projection = self._request, self._projection
        projection.advance()
        cursor = request.resume or Cursor(projection.position, projection.fold.as_of_us)
        if request.resume is not None:
            self._pending.update(self._changed_since(request.resume))
        elif request.send_initial:
            self._pending.update(request.key_values)
        else:
            for i, key in enumerate(request.key_values):
                self._sent[key] = _digest(self._compiled.values(key))
                if i % CHUNK == CHUNK - 1:
                    await asyncio.sleep(0)
        if self._pending:
            self._wake.set()
        return cursor

    def _changed_since(self, cursor: Cursor) -> Iterable[str]:
        """The watched keys whose values may have changed since a cursor."""
        if cursor.position > self._projection.position:
            # The log is another one than the token's: everything may be different.
            everything: set[str] = set().union(*(engine.keys() for engine in self._compiled.engines))
            return everything & self._request.key_values if self._request.key_values else everything
        found: set[str] = set()
        found.update(self._watched(list(self._compiled.changed_since(cursor.position, cursor.as_of_us))))
        return found

    def _note(self, touched: Touched) -> None:
        """Called within the fold's step: only remembers."""
        self._pending.update(self._watched(list(self._compiled.concerned(touched))))
        # Nothing touched means that definitions changed: look at them.
        if self._pending or not touched:
            self._wake.set()

    def _note_mentioned(self, attribute_key: str, key_values: Collection[str]) -> None:
        if attribute_key == self._compiled.attribute_key and self._compiled.has_parts:
            self._pending.update(self._watched(list(key_values)))
            self._wake.set()

    def _watched(self, keys: Sequence[str]) -> Iterable[str]:
        wanted = self._request.key_values
        return wanted.intersection(keys) if wanted else keys

    def _refresh(self) -> None:
        """When definitions or engines changed, the values of all that was ever sent may have."""
        if self._projection.closed:
            raise Unavailable("the project's attributes are being recovered: resume", reason="NOT_READY")
        compiled = self._compiled_now()
        if compiled is not self._compiled:
            self._compiled = compiled
            self._pending.update(self._sent)

    def _changed(self, keys: Sequence[str]) -> list[bytes]:
        """The profiles whose values are not those that the consumer has, as fields of the message."""
        projection = self._projection
        as_of = as_of_field(projection.fold.as_of_us)
        position = projection.position
        result = []
        for key in keys:
            values = self._compiled.values(key)
            digest = _digest(values)
            if self._sent.get(key) != digest:
                self._sent[key] = digest
                result.append(wire.delimited(1, self._compiled.profile_of(key, values, position, as_of)))
        return result


def _digest(values: bytes) -> bytes:
    return hashlib.blake2b(values, digest_size=12).digest()
