"""All profiles of one attribute key, each with one number: engines number the same keys differently."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.kernel.engine import Engine
from services.kernel.interning import FORGOTTEN, Interner

_AT_ONCE = 500_000
Codes = NDArray[np.int32]


class Universe:
    """The profiles that any engine of the attribute key knows, or knew. Numbers only grow."""

    def __init__(self, attribute_key: str) -> None:
        self.attribute_key = attribute_key
        self.keys = Interner()
        self._forgotten: set[int] = set()
        self._ours: dict[Engine, Codes] = {}
        """For each engine: our number of each of its codes; -1 for what it has forgotten."""
        self._theirs: dict[Engine, Codes] = {}
        """For each engine: its code of each of our numbers; -1 for what it does not know."""

    def __len__(self) -> int:
        return len(self.keys)

    def everybody(self) -> Codes:
        """The numbers of all that were not forgotten."""
        return self.alive(np.arange(len(self.keys), dtype=np.int32))

    def alive(self, numbers: Codes) -> Codes:
        """Those that were not forgotten."""
        if not self._forgotten:
            return numbers
        return numbers[~np.isin(numbers, np.array(sorted(self._forgotten), np.int32))]

    def follow(self, engines: Iterable[Engine]) -> None:
        """Knows from here on the keys of these engines, and lets go of others."""
        wanted = [engine for engine in engines if engine.attribute_key == self.attribute_key]
        for engine in [each for each in self._ours if each not in wanted]:
            del self._ours[engine], self._theirs[engine]
        for engine in wanted:
            self.sync(engine)

    def sync(self, engine: Engine) -> None:
        """Takes in the keys that are new in an engine."""
        ours = self._ours.setdefault(engine, np.empty(0, np.int32))
        theirs = self._theirs.setdefault(engine, np.empty(0, np.int32))
        known, count = len(ours), len(engine.key_codes)
        if known == count:
            return
        parts = [ours]
        for start in range(known, count, _AT_ONCE):
            texts = engine.key_codes.array().slice(start, min(_AT_ONCE, count - start)).cast(pa.string())
            forgotten = pc.starts_with(texts, FORGOTTEN).to_numpy(zero_copy_only=False)
            alive = np.flatnonzero(~forgotten)
            part = np.full(len(texts), -1, np.int32)
            part[alive] = self.keys.codes(texts.take(pa.array(alive)) if len(alive) < len(texts) else texts)
            parts.append(part)
        ours = self._ours[engine] = np.concatenate(parts)
        if len(theirs) < len(self.keys):
            grown = np.full(max(len(self.keys), 2 * len(theirs)), -1, np.int32)
            grown[: len(theirs)] = theirs
            theirs = self._theirs[engine] = grown
        fresh = ours[known:]
        theirs[fresh[fresh >= 0]] = np.arange(known, count, dtype=np.int32)[fresh >= 0]

    def numbers(self, engine: Engine, codes: Codes) -> Codes:
        """Our numbers of an engine's codes, without those that it has forgotten."""
        self.sync(engine)
        found = self._ours[engine][codes]
        return found[found >= 0]

    def codes(self, engine: Engine, numbers: Codes) -> Codes:
        """An engine's codes of our numbers; -1 for those it does not know."""
        theirs = self._theirs.get(engine)
        if theirs is None or not len(theirs):
            return np.full(len(numbers), -1, np.int32)
        inside = numbers < len(theirs)
        return np.where(inside, theirs[np.where(inside, numbers, 0)], np.int32(-1))

    def code(self, engine: Engine, number: int) -> int | None:
        """The same for one."""
        theirs = self._theirs.get(engine)
        found = -1 if theirs is None or number >= len(theirs) else theirs.item(number)
        return None if found < 0 else found

    def find(self, key_value: str) -> int | None:
        """The number of a key, or None."""
        return self.keys.find(key_value)

    def take_in(self, key_values: pa.Array) -> Codes:
        """The numbers of key values, given now where they are new."""
        return self.keys.codes(key_values)

    def texts(self, numbers: Codes | Sequence[int]) -> pa.Array:
        """The key values of numbers, as an Arrow array."""
        return self.keys.array().take(pa.array(numbers, pa.int32()))

    def text(self, number: int) -> str:
        """The key value of a number."""
        return self.keys.text(number)

    def forget(self, key_value: str) -> int | None:
        """Takes a key's text away; returns the number that it had."""
        number = self.keys.find(key_value)
        if number is None:
            return None
        for engine, theirs in self._theirs.items():
            code = self.code(engine, number)
            if code is not None:
                self._ours[engine][code] = -1
                theirs[number] = -1
        self._forgotten.add(number)
        self.keys.forget(np.arange(len(self.keys)) == number)
        for engine, ours in self._ours.items():
            # The same value may have come back by now: it is another profile.
            code = engine.key_codes.find(key_value)
            if code is not None and code < len(ours):
                ours[code] = self.keys.codes(pa.array([key_value]))[0]
                self._theirs[engine] = self._theirs_of(ours)
        return number

    def _theirs_of(self, ours: Codes) -> Codes:
        theirs = np.full(len(self.keys), -1, np.int32)
        theirs[ours[ours >= 0]] = np.flatnonzero(ours >= 0).astype(np.int32)
        return theirs
