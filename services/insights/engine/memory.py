"""Which rows need not be held any more.

A query that looks at all rows of a source, whatever their time, keeps all of them, and so does one that is recomputed.
Of others, no row at or before the start of their windows is looked at again: windows only move on. So no verdict
depends on what is let go; a correction of such a row has no effect, or adds a row that counts.
"""

from collections.abc import Iterable

from services.insights.engine.plan import Plan
from services.insights.engine.rows import SourceRows
from services.kernel.windows import MIN_US


def trim(sources: dict[str, SourceRows], plans: Iterable[Plan | None], before_us: int, now_us: int) -> int:
    """Lets go of rows earlier than an instant that no query looks at from now on; returns how many."""
    active = [plan for plan in plans if plan is not None]
    dropped = 0
    for name, rows in sources.items():
        dropped += rows.trim(min([before_us - 1, *(plan.looks_after_us(name, now_us) for plan in active)]))
    return dropped


def holds(sources: dict[str, SourceRows], plan: Plan, now_us: int) -> bool:
    """Whether all rows are held that a query looks at from now on."""
    return all(
        rows.trimmed_us == MIN_US or plan.looks_after_us(name, now_us) >= rows.trimmed_us
        for name, rows in sources.items()
    )
