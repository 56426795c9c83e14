"""What a project feeds its log and its time to: insights, and whatever else is evaluated over the same records.

An evaluator is a pure function of the records, instants and definitions given to it. It says what changed when it is
asked to `settle`; the project writes that to the change journal, which watchers read. While the log is being caught up
with nobody asks: a change and its undoing in the past are told to nobody.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.kernel.columns import EventBatch
from services.kernel.dedup import Resolution
from services.runtime.journal import Change, Entry

Arrays = dict[str, NDArray[np.generic]]


class Evaluator(Protocol):
    """Evaluates something over one project's log. Not thread-safe; none of its methods may take long."""

    @property
    def name(self) -> str:
        """Under which its part of a snapshot is found; without a dot."""

    def apply(self, batch: EventBatch, resolution: Resolution, now_us: int, position: int) -> None:
        """Applies the records of a batch, of which `resolution` says what each does, then moves to an instant.

        `position` is that of the last record.
        """

    def advance(self, now_us: int) -> None:
        """Time has passed; never back."""

    def settle(self, position: int) -> Sequence[Change]:
        """What has changed since it was last asked, to be told: the state as it was last told is forgotten with it."""

    def told(self, entries: Sequence[Entry]) -> None:
        """After recovery: what was told later than the snapshot, in order."""

    def freeze(self) -> tuple[dict[str, Any], Arrays]:
        """Its state as JSON and copies of arrays, for a snapshot."""

    def streams(self) -> list[str]:
        """The streams of the journal that its changes are in."""

    def forget(self, attribute_key: str, is_subject: Callable[[str], bool]) -> None:
        """A subject was erased: everything about the value of this key that is the one goes; nobody is told."""


class EvaluatorMaker(Protocol):
    """Makes an evaluator of each project."""

    @property
    def name(self) -> str:
        """That of its evaluators."""

    async def make(self, project: str, manifest: Mapping[str, Any] | None, arrays: Arrays) -> Evaluator:
        """The evaluator of a project: from its part of a snapshot, or None and then from the log's start.

        Raises `SchemaChangedError` when the snapshot is of no use: then all starts over from the log.
        """
        ...
