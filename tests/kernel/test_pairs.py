"""Pairs of many terms, in windows that fill at different times."""

from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine
from services.kernel.expressions import Everything, Property
from services.kernel.fold import Fold
from services.kernel.windows import Rolling

DAY_US = 86_400_000_000
NOW_US = 1_700_000_000_000_000


def test_a_long_window_that_makes_pairs_leaves_the_short_one_readable() -> None:
    term = Property("atomic", "page")
    week, month = (
        Aggregation(Function.UNIQUE_LIST, Everything(), term, TermType.STRING, Rolling(days * DAY_US))
        for days in (7, 30)
    )
    engine = Engine("user", [week, month])
    fold = Fold("manual")
    fold.attach(engine)
    # All outside the week, and more than the tables begin with.
    rows = [
        EventRow(str(i), "view", NOW_US - 10 * DAY_US + i, 0, {"user": f"u{i % 3}"}, properties={"page": f"p{i}"})
        for i in range(600)
    ]
    fold.advance_exactly(NOW_US)
    fold.apply(1, len(rows), EventBatch(build_batch(rows)))
    for key in ("u0", "u1", "u2"):
        short, long = engine.read(key)
        assert short.value is None
        assert isinstance(long.value, list)
        assert len(long.value) == 200
