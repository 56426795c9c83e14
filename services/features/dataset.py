"""Training sets offline: the attributes of a group at many (key, instant) pairs, as typed columns.

The values are those that serving would have answered at these instants (`services.features.values`), whole columns at a
time.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.features.compile import compile_group
from services.features.definitions import Attribute, AttributeGroup, CategoryCounts, ValueType
from services.features.validation_types import INT_BOUNDS
from services.features.values import answer
from services.kernel.asof import AsOf, Column
from services.kernel.columns import EventBatch
from services.kernel.expressions import Instant

ARROW_TYPES: Mapping[ValueType, pa.DataType] = {
    ValueType.STRING: pa.string(),
    ValueType.INT32: pa.int32(),
    ValueType.INT64: pa.int64(),
    ValueType.FLOAT: pa.float32(),
    ValueType.DOUBLE: pa.float64(),
    ValueType.BOOL: pa.bool_(),
    ValueType.TIMESTAMP: pa.timestamp("us", "UTC"),
    ValueType.STRING_LIST: pa.list_(pa.string()),
    ValueType.INT64_LIST: pa.list_(pa.int64()),
    ValueType.DOUBLE_LIST: pa.list_(pa.float64()),
    ValueType.CATEGORY_COUNTS: pa.map_(pa.string(), pa.int64()),
}
"""The type of an attribute's column, by the type of its value."""


def fill(
    group: AttributeGroup,
    attribute_key: str,
    batches: Iterable[EventBatch],
    keys: pa.Array,
    instants_us: NDArray[np.int64],
) -> list[pa.Array]:
    """A column for each attribute of a valid group, with an entry for each pair of a key value and an instant t.

    Windows are `[t - period, t)`. An id counts once, the first time. A null key has no events.
    """
    engine = AsOf(attribute_key, compile_group(group))
    for batch in batches:
        engine.add(batch)
    columns = engine.answer(keys, instants_us)
    return [typed(attribute, column) for attribute, column in zip(group.attributes, columns, strict=True)]


def typed(attribute: Attribute, column: Column) -> pa.Array:
    """The attribute's values from the kernel's: its type, its default where there is none, null where out of range."""
    assert attribute.type is not None, "validated before"
    target = ARROW_TYPES[attribute.type]
    values = column.values
    if pa.types.is_map(target) or pa.types.is_decimal(values.type):
        readings = (column.reading(i) for i in range(len(column)))
        return pa.array([_plain(answer(attribute, reading).value) for reading in readings], target)
    converted = _converted(attribute.type, values, target)
    if attribute.default_value is None:
        return converted
    default = pa.scalar(_plain(attribute.default_value), target)
    return pc.if_else(values.is_null(), default, converted)


def _converted(value_type: ValueType, values: pa.Array, target: pa.DataType) -> pa.Array:
    if value_type in INT_BOUNDS:
        low, high = INT_BOUNDS[value_type]
        if pa.types.is_floating(values.type):
            # As doubles, because the greatest int64 is none: what is less than the power of two after it fits.
            values = pc.floor(values)
            fits = pc.and_(pc.greater_equal(values, float(low)), pc.less(values, float(high + 1)))
        else:
            fits = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
        return pc.if_else(fits, values, None).cast(target, safe=False)
    if pa.types.is_floating(target):
        numbers = values.cast(pa.float64(), safe=False).cast(target, safe=False)
        return pc.if_else(pc.is_finite(numbers), numbers, None)
    if pa.types.is_list(target):
        items = _decoded(values.values).cast(target.value_type, safe=False)
        return pa.ListArray.from_arrays(values.offsets, items, mask=values.is_null() if values.null_count else None)
    return _decoded(values).cast(target)


def _decoded(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _plain(value: Any) -> Any:
    """A value of an attribute as Arrow takes it."""
    if isinstance(value, Instant):
        return value.us
    if isinstance(value, CategoryCounts):
        return value.entries
    if isinstance(value, tuple):
        return list(value)
    return value
