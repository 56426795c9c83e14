"""Whether events fit the strict collections of their project: types and required properties, as vector operations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.ingest.admission import Verdicts
from services.ingest.collections import Declaration, FieldType
from services.ingest.compiled.faults import Fault
from services.ingest.compiled.fill import DELETION
from services.ingest.compiled.tables import Cell, Kind, Row, Scope, Symbol, Table
from services.ingest.decode import Scanned

# An integer fits a number: the field may have been widened, and older senders go on.
_KINDS = {
    FieldType.STRING: (Kind.STRING,),
    FieldType.NUMBER: (Kind.NUMBER, Kind.INTEGER),
    FieldType.INTEGER: (Kind.INTEGER,),
    FieldType.BOOLEAN: (Kind.BOOLEAN,),
    FieldType.TIMESTAMP: (Kind.INSTANT,),
    FieldType.STRING_LIST: (Kind.LIST,),
}


def refuse_misfits(scanned: Scanned, strict: Sequence[Declaration], verdicts: Verdicts) -> None:
    """Finds a fault with the events that do not fit a strict collection of their type.

    The properties of an event must be declared, of the declared type, and the required ones present. Its own data and
    its entities are not looked at. Deletions fit.
    """
    if not strict:
        return
    kinds = np.unique(scanned.events[:, Row.TYPE])
    added = scanned.events[:, Row.OPERATION] != DELETION
    for declaration in strict:
        of_type = [kind for kind in kinds.tolist() if declaration.describes(*scanned.event_type(kind))]
        if of_type:
            rows = added & np.isin(scanned.events[:, Row.TYPE], of_type)
            _refuse(scanned, declaration, rows, verdicts)


def _refuse(scanned: Scanned, declaration: Declaration, rows: NDArray[np.bool_], verdicts: Verdicts) -> None:
    fields = {each.name: each for each in declaration.fields}
    cells = scanned.cells
    cells = cells[rows[cells[:, Cell.ROW]]]
    symbols = cells[:, Cell.COLUMN] >> 3
    properties = np.flatnonzero(scanned.symbols[:, Symbol.SCOPE] == Scope.PROPERTY).tolist()
    by_name = {scanned.name(symbol): symbol for symbol in properties}
    for column in np.unique(cells[np.isin(symbols, properties), Cell.COLUMN]).tolist():
        declared = fields.get(scanned.name(column >> 3))
        if declared is None or declared.type is None:
            fault = Fault.UNDECLARED
        elif column & 7 not in _KINDS[declared.type]:
            fault = Fault.WRONG_TYPE
        else:
            continue
        verdicts.refuse(_rows_with(cells[cells[:, Cell.COLUMN] == column], len(rows)), fault, column >> 3)
    for declared in declaration.fields:
        if declared.required:
            present = _rows_with(cells[symbols == by_name.get(declared.name, -1)], len(rows))
            verdicts.refuse_lacking(rows & ~present, declared.name)


def _rows_with(cells: Table, count: int) -> NDArray[np.bool_]:
    found = np.zeros(count, np.bool_)
    found[cells[:, Cell.ROW]] = True
    return found
