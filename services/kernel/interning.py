"""Strings as dense integers: a hash table over the bytes of Arrow's columns, so that no Python string is made."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.kernel.hashing import hash128
from services.kernel.jit import compiled
from services.kernel.rows import grown

FORGOTTEN = "\x00"
"""How the placeholder of a text begins that was forgotten."""
_REMEMBERED = 65_536


class _Table(NamedTuple):
    slots: NDArray[np.int32]
    """Open addressing: a code, or -1. A power of two, at most half full."""
    hashes: NDArray[np.uint64]
    """By code."""
    offsets: NDArray[np.int64]
    """By code: where its bytes begin; one more than there are codes."""
    content: NDArray[np.uint8]
    size: NDArray[np.int64]
    """One entry: how many codes there are."""


class Interner:
    """Gives each distinct string the next integer from 0, for ever."""

    def __init__(self) -> None:
        self._table = _Table(
            np.full(128, -1, np.int32),
            np.zeros(64, np.uint64),
            np.zeros(65, np.int64),
            np.zeros(1024, np.uint8),
            np.zeros(1, np.int64),
        )
        self._texts: dict[int, str] = {}

    def __len__(self) -> int:
        return int(self._table.size[0])

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(array.nbytes for array in self._table)

    def find(self, value: str) -> int | None:
        """The code of a string, or None."""
        code = _find(self._table, np.frombuffer(value.encode(), np.uint8))
        return None if code < 0 else code

    def codes(self, values: pa.Array) -> NDArray[np.int32]:
        """The codes of an Arrow array of strings without nulls, given now where they are new."""
        if not len(values):
            return np.empty(0, np.int32)
        ends, content = _bytes_of(values)
        self._reserve(len(values), int(ends[-1] - ends[0]))
        result = np.empty(len(values), np.int32)
        _intern(self._table, ends, content, result)
        return result

    def known_codes(self, values: pa.Array) -> NDArray[np.int32]:
        """The codes of an Arrow array of strings without nulls; -1 for those that have none."""
        result = np.empty(len(values), np.int32)
        if len(values):
            _find_all(self._table, *_bytes_of(values), result)
        return result

    def text(self, code: int) -> str:
        """The string of a code."""
        found = self._texts.get(code)
        if found is None:
            first, last = self._table.offsets[code : code + 2].tolist()
            found = self._table.content[first:last].tobytes().decode()
            if len(self._texts) >= _REMEMBERED:
                self._texts.clear()
            self._texts[code] = found
        return found

    def texts(self) -> list[str]:
        """All strings, by code."""
        return [self.text(code) for code in range(len(self))]

    def array(self) -> pa.Array:
        """All strings, by code, as a large string array over the bytes held: valid until the next one is added."""
        arrays = self.dump()
        offsets, content = (pa.py_buffer(arrays[name]) for name in ("offsets", "content"))
        return pa.LargeStringArray.from_buffers(len(self), offsets, content)

    def forget(self, forgotten: NDArray[np.bool_]) -> None:
        """Takes the texts of codes away, given a mark for each code: the codes stay, but no string has them any more.

        What stands in their place begins with a zero character, which no string of the outside has.
        """
        codes = np.flatnonzero(forgotten)
        if not len(codes):
            return
        fillers = pa.array([f"{FORGOTTEN}{code:x}" for code in codes.tolist()], pa.large_string())
        texts = pc.replace_with_mask(self.array(), pa.array(forgotten), fillers)
        _, offsets, content = texts.buffers()
        self.load(
            {"offsets": np.frombuffer(offsets, np.int64)[: len(texts) + 1], "content": np.frombuffer(content, np.uint8)}
        )

    def _reserve(self, added: int, size: int) -> None:
        table, count = self._table, len(self)
        used = int(table.offsets[count])
        if used + size > len(table.content):
            table = table._replace(content=grown(table.content, max(2 * len(table.content), used + size)))
        if count + added > len(table.hashes):
            capacity = max(2 * len(table.hashes), count + added)
            table = table._replace(
                slots=np.full(1 << (2 * capacity - 1).bit_length(), -1, np.int32),
                hashes=grown(table.hashes, capacity),
                offsets=grown(table.offsets, capacity + 1),
            )
            _fill_slots(table)
        self._table = table

    def dump(self) -> dict[str, NDArray[np.generic]]:
        """The strings as UTF-8 bytes with offsets, for a snapshot."""
        offsets = self._table.offsets[: len(self) + 1]
        return {"offsets": offsets, "content": self._table.content[: offsets[-1]]}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Takes the strings back, in place of those held."""
        self.__init__()  # type: ignore[misc]
        array = pa.LargeStringArray.from_buffers(
            len(arrays["offsets"]) - 1, pa.py_buffer(arrays["offsets"]), pa.py_buffer(arrays["content"])
        )
        self._reserve(len(array), len(arrays["content"]))
        for start in range(0, len(array), _REMEMBERED):
            self.codes(array.slice(start, _REMEMBERED).cast(pa.string()))


def _bytes_of(values: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Where the strings of an array begin and end, and their bytes."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return ends, np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)


@compiled
def _matches(table: _Table, code: int, content: NDArray[np.uint8], first: int, last: int) -> bool:
    start = table.offsets[code]
    if table.offsets[code + 1] - start != last - first:
        return False
    for i in range(last - first):  # noqa: SIM110 (compiled: no generators)
        if table.content[start + i] != content[first + i]:
            return False
    return True


@compiled
def _slot(table: _Table, h: np.uint64, content: NDArray[np.uint8], first: int, last: int) -> int:
    """The slot of a string, or the free one where it belongs."""
    mask = np.int64(len(table.slots) - 1)
    slot = np.int64(h & np.uint64(mask))
    while True:
        code = table.slots[slot]
        if code < 0 or (table.hashes[code] == h and _matches(table, code, content, first, last)):
            return int(slot)
        slot = (slot + 1) & mask


@compiled
def _find(table: _Table, content: NDArray[np.uint8]) -> int:
    h, _ = hash128(content, 0, len(content))
    return int(table.slots[_slot(table, h, content, 0, len(content))])


@compiled
def _find_all(table: _Table, ends: NDArray[np.int32], content: NDArray[np.uint8], result: NDArray[np.int32]) -> None:
    for i in range(len(result)):
        h, _ = hash128(content, ends[i], ends[i + 1])
        result[i] = table.slots[_slot(table, h, content, ends[i], ends[i + 1])]


@compiled
def _intern(table: _Table, ends: NDArray[np.int32], content: NDArray[np.uint8], result: NDArray[np.int32]) -> None:
    for i in range(len(result)):
        first, last = ends[i], ends[i + 1]
        h, _ = hash128(content, first, last)
        slot = _slot(table, h, content, first, last)
        code = table.slots[slot]
        if code < 0:
            code = table.size[0]
            table.slots[slot] = code
            table.hashes[code] = h
            start = table.offsets[code]
            for j in range(last - first):
                table.content[start + j] = content[first + j]
            table.offsets[code + 1] = start + last - first
            table.size[0] = code + 1
        result[i] = code


@compiled
def _fill_slots(table: _Table) -> None:
    mask = np.int64(len(table.slots) - 1)
    for code in range(table.size[0]):
        slot = np.int64(table.hashes[code] & np.uint64(mask))
        while table.slots[slot] >= 0:
            slot = (slot + 1) & mask
        table.slots[slot] = code
