"""What a project's evaluators say changed, written to the change journal: each change once, also through a crash.

The journal is what was told. After a recovery the evaluators are given what was told later than their snapshot, and
nothing is told until the log is caught up with; then they say how the present differs.
"""

from collections.abc import Sequence

from services.insights.evaluators import Evaluator
from services.runtime.errors import OutOfRange
from services.runtime.journal import Change, ChangeJournal, Entry

_AT_ONCE = 10_000


class Teller:
    """Writes the changes of one project."""

    def __init__(self, project: str, journal: ChangeJournal) -> None:
        self._project = project
        self._journal = journal
        self.sequence = 0
        """That of the last change told."""
        self._untold: list[Change] = []
        self._part: list[Change] = []
        self._uncertain = False

    async def recover(self, evaluators: Sequence[Evaluator], told: int) -> None:
        """Gives the evaluators what was told after a sequence."""
        self._untold, self._part, self._uncertain = [], [], False
        self.sequence = await self._journal.newest(self._project)
        after = max(told, await self._journal.oldest(self._project) - 1)
        names = [stream for evaluator in evaluators for stream in evaluator.streams()]
        while names and after < self.sequence:
            try:
                page = await self._journal.read(self._project, names, after, _AT_ONCE)
            except OutOfRange:
                return
            entries: tuple[Entry, ...] = page.entries
            for evaluator in evaluators:
                evaluator.told(entries)
            after = page.reached

    async def tell(self, evaluators: Sequence[Evaluator], position: int) -> None:
        """Asks the evaluators what changed, and writes it down. Raises Unavailable: then the next call tries again."""
        for evaluator in evaluators:
            self._untold += evaluator.settle(position)
        while self._untold:
            # The same part again after a failure: it may have been written all the same, as the journal then knows.
            part = self._part = self._part or self._untold[:_AT_ONCE]
            if self._uncertain and await self._journal.newest(self._project) >= self.sequence + len(part):
                self.sequence += len(part)
            else:
                self._uncertain = True
                self.sequence = await self._journal.append(self._project, part)
            self._uncertain, self._part = False, []
            del self._untold[: len(part)]

    @property
    def quiet(self) -> bool:
        """Whether everything was told."""
        return not self._untold
