"""Strings as dense integers."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Interner:
    """Gives each distinct string the next integer from 0, for ever."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self.values: list[str] = []
        """The strings by code."""

    def __len__(self) -> int:
        return len(self.values)

    def find(self, value: str) -> int | None:
        """The code of a string, or None."""
        return self._codes.get(value)

    def code(self, value: str) -> int:
        """The code of a string, given now if it is new."""
        found = self._codes.get(value)
        if found is None:
            found = self._codes[value] = len(self.values)
            self.values.append(value)
        return found

    def codes(self, values: pa.Array) -> NDArray[np.int32]:
        """The codes of an Arrow array of strings without nulls."""
        code = self.code
        return np.fromiter((code(value) for value in values.to_pylist()), np.int32, len(values))

    def replace(self, other: "Interner") -> None:
        """Takes the strings of another, in place: whoever holds the list of values keeps seeing them."""
        self._codes = other._codes
        self.values[:] = other.values

    def dump(self) -> dict[str, NDArray[np.generic]]:
        """The strings as UTF-8 bytes with offsets, for a snapshot."""
        array = pa.array(self.values, pa.large_string())
        _, offsets, data = array.buffers()
        return {
            "offsets": np.frombuffer(offsets, np.int64)[: len(array) + 1].copy(),
            "bytes": np.frombuffer(data or b"", np.uint8).copy(),
        }

    @classmethod
    def load(cls, arrays: dict[str, NDArray[np.generic]]) -> "Interner":
        """The strings back from their bytes."""
        offsets, data = pa.py_buffer(arrays["offsets"]), pa.py_buffer(arrays["bytes"])
        array = pa.LargeStringArray.from_buffers(len(arrays["offsets"]) - 1, offsets, data)
        self = cls()
        self.values = array.to_pylist()
        self._codes = {value: code for code, value in enumerate(self.values)}
        return self
