"""The answers for one aggregation: values with statuses, as columns."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.readings import Reading, Status
from services.kernel.windows import MIN_US

STATUSES = tuple(Status)
"""The statuses by the numbers that columns hold."""
STATUS_CODES = {status: code for code, status in enumerate(STATUSES)}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One entry for each pair, in the order of the question."""

    values: pa.Array
    """Null where there is none. int64 (counts, integers, instants in microseconds; decimal128 when a sum is beyond),
    double, bool, dictionary<int32, string>, a list of these, or for category_count a map from these to int64."""
    statuses: NDArray[np.int8]
    """Places in STATUSES."""
    last_event_us: NDArray[np.int64]
    """The time of the last relevant event before the instant; `windows.MIN_US` when there is none."""
    covered_fractions: NDArray[np.float64] | None = None
    """Where the status is LEFT_TRUNCATED, the part of the window that the log covers. None: 1 everywhere."""

    def __len__(self) -> int:
        return len(self.statuses)

    def reading(self, index: int) -> Reading:
        """One entry in the form that the incremental engine gives."""
        last_us = int(self.last_event_us[index])
        covered = 1.0 if self.covered_fractions is None else float(self.covered_fractions[index])
        value = _plain(self.values[index].as_py(), pa.types.is_map(self.values.type))
        return Reading(value, STATUSES[self.statuses[index]], None if last_us == MIN_US else last_us, covered)


def _plain(value: Any, is_map: bool) -> Any:
    if is_map and value is not None:
        return dict(value)
    return int(value) if isinstance(value, Decimal) else value
