"""Who refers to whom: the profiles that name another one in a property, kept current by touched keys only."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregations import Aggregation
from services.kernel.engine import Engine

Touched = Mapping[Engine, NDArray[np.int32]]


class SlotLike(Protocol):
    """Where an aggregation is computed."""

    @property
    def engine(self) -> Engine:
        """The engine."""
        ...

    @property
    def place(self) -> int:
        """The place in it."""
        ...


class ReferenceIndex:
    """For one reference, such as from users to accounts: the referring profiles of each value."""

    def __init__(self, engine: Engine, place: int) -> None:
        self.engine = engine
        """Where the reference is computed; its codes stand for the referring profiles."""
        self.place = place
        self.touched: set[str] = set()
        """Profiles referred to that the last step touched: by who refers to them, or by values of those."""
        self._sources: set[Engine] = set()
        self._target: dict[int, str] = {}
        self._referring: dict[str, set[int]] = {}
        self._stamps: dict[str, int] = {}
        for code, value in enumerate(engine.column(place).values.to_pylist()):
            if value:
                self._target[code] = value
                self._referring.setdefault(value, set()).add(code)

    def add_source(self, engine: Engine) -> None:
        """Also changes of this engine's values touch the profiles that its keys refer to."""
        self._sources.add(engine)

    def drop_source(self, engine: Engine) -> None:
        """The engine is no more."""
        self._sources.discard(engine)

    def referring(self, target: str) -> set[int]:
        """The codes of the profiles that refer to a value now; not to be changed."""
        return self._referring.get(target, _NOBODY)

    def targets(self) -> list[str]:
        """All values that somebody refers to now."""
        return list(self._referring)

    def target(self, code: int) -> str:
        """To whom a profile refers, or an empty text."""
        return self._target.get(code, "")

    def stamp(self, target: str) -> int:
        """A number that rises whenever a value may have changed that is rolled up to this profile."""
        return self._stamps.get(target, 0)

    def changed_since(self, position: int, t_us: int) -> set[str]:
        """The profiles of which something rolled up may have changed since a state had this position and instant."""
        if len(self.engine.changed_since(position, t_us)):
            # Somebody may have left one: who it was before is not known any more.
            return set(self._referring)
        found: set[str] = set()
        for engine in self._sources:
            for code in engine.changed_since(position, t_us).tolist():
                own = self.engine.key_codes.find(engine.key_of(code))
                if own is not None and own in self._target:
                    found.add(self._target[own])
        return found

    def update(self, touched: Touched) -> None:
        """Takes in what a step of the fold touched."""
        self.touched = set()
        for code in _codes(touched, self.engine):
            self._move(code)
        for engine in self._sources:
            if engine is not self.engine:
                for code in _codes(touched, engine):
                    own = self.engine.key_codes.find(engine.key_of(code))
                    if own is not None and own in self._target:
                        self.touched.add(self._target[own])
        for target in self.touched:
            self._stamps[target] = self._stamps.get(target, 0) + 1

    def _move(self, code: int) -> None:
        value = self.engine.reading(self.place, code).value
        before, after = self._target.get(code, ""), value if isinstance(value, str) else ""
        if before:
            self.touched.add(before)
        if after:
            self.touched.add(after)
        if before == after:
            return
        if before:
            self._referring[before].discard(code)
            if not self._referring[before]:
                del self._referring[before]
            del self._target[code]
        if after:
            self._referring.setdefault(after, set()).add(code)
            self._target[code] = after


_NOBODY: set[int] = set()


class References:
    """The indexes of one projection, each made when it is first asked for."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, Aggregation], ReferenceIndex] = {}

    def index(self, attribute_key: str, aggregation: Aggregation, slot: SlotLike | None) -> ReferenceIndex | None:
        """The index of a reference of an attribute key, which is computed at `slot`; None when it is not computed."""
        key = attribute_key, aggregation
        if slot is None:
            self._indexes.pop(key, None)
            return None
        found = self._indexes.get(key)
        if found is None or found.engine is not slot.engine:
            found = self._indexes[key] = ReferenceIndex(slot.engine, slot.place)
        return found

    def forget(self, engine: Engine) -> None:
        """The engine is no more."""
        self._indexes = {key: index for key, index in self._indexes.items() if index.engine is not engine}
        for index in self._indexes.values():
            index.drop_source(engine)

    def update(self, touched: Touched) -> None:
        """Takes in what a step of the fold touched; before anybody is told of it."""
        for index in self._indexes.values():
            index.update(touched)


def _codes(touched: Touched, engine: Engine) -> list[int]:
    codes = touched.get(engine)
    return [] if codes is None else codes.tolist()
