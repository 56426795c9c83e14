"""Remembers the Arrow fields and schemas of columns: from one batch to the next they are nearly always the same."""

import pyarrow as pa

from services.ingest.compiled.tables import KIND_LETTERS, Scope, Symbol, Table
from services.ingest.decode import Scanned
from services.kernel.columns import FIXED_FIELDS, KIND_TYPES

_MOST = 1_000
"""Columns and schemas remembered; then all are forgotten, so that made-up names cannot fill the memory."""
_WIDE = 200
"""Schemas of more columns are not remembered."""

Column = tuple[int, str, pa.Field]
"""The rank of its scope, its name, its field: columns are ordered by the first two."""


class Schemas:
    """The memory of one process. Threads may share it."""

    def __init__(self) -> None:
        self._columns: dict[tuple[int, int, bytes], Column] = {}
        self._schemas: dict[tuple[str, ...], pa.Schema] = {}

    def columns(self, scanned: Scanned, codes: Table) -> list[Column]:
        """The columns of column codes (8 * symbol + kind)."""
        symbols = scanned.tables.symbols[codes >> 3][:, [Symbol.SCOPE, Symbol.OFFSET, Symbol.SIZE]]
        found = []
        for code, (scope, offset, size) in zip(codes.tolist(), symbols.tolist(), strict=True):
            if scope >= Scope.TYPE:
                found.append(_column(scanned, code))
                continue
            key = (scope, code & 7, scanned.data[offset : offset + size].tobytes())
            column = self._columns.get(key)
            if column is None:
                if len(self._columns) >= _MOST:
                    self._columns.clear()
                column = self._columns[key] = _column(scanned, code)
            found.append(column)
        return found

    def schema(self, columns: list[Column]) -> pa.Schema:
        """The schema of the fixed fields and these columns."""
        names = tuple(name for _, name, _ in columns)
        schema = self._schemas.get(names)
        if schema is None:
            schema = pa.schema([*FIXED_FIELDS, *(field for _, _, field in columns)])
            if len(names) <= _WIDE:
                if len(self._schemas) >= _MOST:
                    self._schemas.clear()
                self._schemas[names] = schema
        return schema


def _column(scanned: Scanned, code: int) -> Column:
    path = scanned.path(code >> 3)
    kind = KIND_LETTERS[code & 7]
    name = path if path.startswith("k.") else f"{path}:{kind}"
    return "kade".index(name[0]), name, pa.field(name, KIND_TYPES[kind])
