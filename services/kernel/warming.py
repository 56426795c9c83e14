"""Loads the compiled loops before the first event comes, or compiles them where they never ran."""

from services.kernel.aggregations import NUMERIC_ONLY, ORDERED_ONLY, WITHOUT_TERM, Aggregation, Function, TermType
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import ADD, DELETE, REPLACE, EventBatch
from services.kernel.engine import Engine
from services.kernel.expressions import Everything, Property
from services.kernel.fold import Fold
from services.kernel.windows import Rolling

_SECOND_US = 1_000_000


def warm() -> None:
    """Applies, corrects and reads events that nobody sent, with every function. Takes seconds on a new machine."""
    fold, engine = Fold("manual"), Engine("nobody", _aggregations())
    fold.attach(engine)
    versions = [(ADD, 0), (REPLACE, 1), (DELETE, 1)]
    for position, (operation, revision) in enumerate(versions, start=1):
        rows = [
            EventRow(
                f"{i}",
                "warm",
                i * _SECOND_US,
                0,
                {"nobody": "nobody"},
                properties={"text": f"{i % 2}", "number": float(i), "integer": i},
                operation=operation,
                revision=revision,
            )
            for i in range(20)
        ]
        fold.apply(20 * position - 19, 20 * position, EventBatch(build_batch(rows)))
        fold.advance_exactly((10 + 10 * position) * _SECOND_US)
        engine.read("nobody")
    fold.touched()


def _aggregations() -> list[Aggregation]:
    """Each function once for each type that has compiled code of its own."""
    kinds = {TermType.STRING: "text", TermType.NUMBER: "number", TermType.INTEGER: "integer"}
    window = Rolling(15 * _SECOND_US)
    result = [Aggregation(function, Everything(), window=window) for function in WITHOUT_TERM]
    for function in Function:
        if function in WITHOUT_TERM:
            continue
        for kind, name in kinds.items():
            if kind is TermType.STRING and function in NUMERIC_ONLY | ORDERED_ONLY:
                continue
            result.append(Aggregation(function, Everything(), Property("atomic", name), kind, window))
    ttl = Aggregation(Function.FIRST, Everything(), Property("atomic", "text"), TermType.STRING, ttl_us=_SECOND_US)
    return [*result, ttl]
