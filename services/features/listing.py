"""The keys that a projection knows, in order."""

import asyncio

import pyarrow as pa
import pyarrow.compute as pc

from services.features.projection import Projection
from services.kernel.interning import FORGOTTEN


async def keys_after(projection: Projection, attribute_key: str, after: str, count: int) -> list[str]:
    """The next values of an attribute key after one, by their code points; empty begins with the first."""
    arrays = texts_of(projection, attribute_key)
    return await asyncio.to_thread(_least_after, arrays, after, count)


def texts_of(projection: Projection, attribute_key: str) -> list[pa.Array]:
    """Copies of the key values of every engine of an attribute key: the engines go on."""
    engines = [engine for engine in projection.fold.engines if engine.attribute_key == attribute_key]
    return [_copied(engine.key_codes.array()) for engine in engines]


def union_of(arrays: list[pa.Array]) -> pa.Array:
    """All distinct key values, by their code points."""
    found = pc.unique(pa.chunked_array(arrays, pa.large_string()))
    found = found.filter(pc.invert(pc.starts_with(found, FORGOTTEN)))
    return found.take(pc.sort_indices(found))


def _copied(texts: pa.Array) -> pa.Array:
    return pa.concat_arrays([texts, pa.array([], pa.large_string())])


def _least_after(arrays: list[pa.Array], after: str, count: int) -> list[str]:
    least = []
    for array in arrays:
        rest = array.filter(pc.and_(pc.greater(array, after), pc.invert(pc.starts_with(array, FORGOTTEN))))
        least.append(rest.take(pc.select_k_unstable(rest, count, [("", "ascending")])) if len(rest) > count else rest)
    return union_of(least).slice(0, count).to_pylist() if least else []
