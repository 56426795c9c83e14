"""The insights of a project over its log: one engine for each attribute key, fed with the rows that events are."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.insights.course import named
from services.insights.definitions import Insight
from services.insights.engine import memory
from services.insights.engine.engine import Engine
from services.insights.engine.entering import Binding, from_events
from services.insights.engine.plan import Plan
from services.insights.engine.pools import Bools
from services.insights.engine.snapshots import SchemaChangedError, freeze, thaw
from services.insights.engine.states import Changes, Standing
from services.insights.evaluators import Arrays
from services.kernel.columns import EventBatch
from services.kernel.dedup import ADDED, REPLACED, RETRACTED, Resolution
from services.runtime.journal import Change, Entry

NAME = "insights"
APPLIED, WITHDRAWN, FAILED = "applied", "withdrawn", "failed"
"""The words of the journal."""
_WORDS = {Standing.APPLIES: APPLIED, Standing.NOT: WITHDRAWN, Standing.ERROR: FAILED}
_STANDINGS = {word: standing for standing, word in _WORDS.items()}


@dataclass(frozen=True, slots=True)
class Held:
    """An insight that is kept true: where, and in which version."""

    insight: Insight
    plan: Plan
    attribute_key: str
    slot: int


@dataclass(frozen=True, slots=True)
class Result:
    """What an insight says of a customer."""

    insight: Insight
    standing: Standing
    since_us: int | None
    """Since when; None: since the insight or the customer is known."""
    until_us: int | None
    """The next instant at which time alone can change it, or None."""


class InsightEvaluator:
    """Keeps the active insights of one project true. It is an `evaluators.Evaluator`."""

    name = NAME

    def __init__(self, bindings: Sequence[Binding]) -> None:
        self.bindings = {binding.schema.name: binding for binding in bindings}
        """The sources whose rows are retained."""
        self.engines = {
            key: Engine(each.schema for each in bindings if each.attribute_key == key)
            for key in dict.fromkeys(each.attribute_key for each in bindings)
        }
        for engine in self.engines.values():
            engine.hurries = True
        self.held: dict[str, Held] = {}
        """By the insight's id."""
        self._by_slot: dict[tuple[str, int], str] = {}
        self._withdrawn: list[Change] = []
        self._now_us = 0

    # Insights.

    def put(self, insight: Insight, plan: Plan) -> None:
        """Keeps an insight true from now on, in place of its version before; it is evaluated for all customers."""
        attribute_key = self.bindings[plan.query.source].attribute_key
        before = self.held.get(insight.insight_id)
        if before is not None and before.attribute_key != attribute_key:
            self.remove(insight.insight_id)
            before = None
        engine = self.engines[attribute_key]
        slot = engine.put([plan], None if before is None else [before.slot])[0]
        self._hold(Held(insight, plan, attribute_key, slot))

    def trim(self, age_us: int) -> int:
        """Lets go of rows older than this that no insight looks at any more; returns how many."""
        return sum(
            memory.trim(engine.sources, engine.queries.plans, engine.now_us - age_us, engine.now_us)
            for engine in self.engines.values()
        )

    def holds(self, plan: Plan) -> bool:
        """Whether all rows are held that a query about one of the keys looks at: else the log has them."""
        engine = self.engines[self.bindings[plan.query.source].attribute_key]
        return memory.holds(engine.sources, plan, engine.now_us)

    def _hold(self, held: Held) -> None:
        self.held[held.insight.insight_id] = held
        self._by_slot[held.attribute_key, held.slot] = held.insight.insight_id

    def remove(self, insight_id: str, position: int = 0) -> None:
        """Keeps an insight true no more; it is withdrawn from whom it applied to."""
        held = self.held.pop(insight_id, None)
        if held is None:
            return
        engine = self.engines[held.attribute_key]
        for customer in engine.remove(held.slot).tolist():
            name = engine.customers.text(customer)
            self._withdrawn.append(self._change(held.insight, name, Standing.NOT, self._now_us, position))
        del self._by_slot[held.attribute_key, held.slot]

    # Records and time.

    def apply(self, batch: EventBatch, resolution: Resolution, now_us: int, position: int) -> None:
        """See Evaluator."""
        adds, gone = _effects(resolution)
        # First what time alone changes before the records come, then both.
        self.advance(now_us - 1)
        for name, binding in self.bindings.items():
            engine = self.engines[binding.attribute_key]
            new = from_events(binding, engine.pools, engine.customers, batch, adds, resolution.id_hashes)
            if new is not None or gone:
                engine.replace_rows(name, gone, new)
        self.advance(now_us)

    def advance(self, now_us: int) -> None:
        """See Evaluator."""
        self._now_us = max(now_us, self._now_us)
        for engine in self.engines.values():
            engine.advance(now_us)

    def forget(self, attribute_key: str, is_subject: Callable[[str], bool]) -> None:
        """See Evaluator."""
        engine = self.engines.get(attribute_key)
        for value in engine.customers.texts() if engine is not None else ():
            if engine is not None and is_subject(value):
                engine.forget(value)
        # The deletions before the marker took the subject's rows back here, whatever key they are about.
        for each in self.engines.values():
            each.forget_unused()

    def streams(self) -> list[str]:
        """See Evaluator."""
        return list(self.held)

    def settle(self, position: int) -> list[Change]:
        """See Evaluator."""
        found, self._withdrawn = self._withdrawn, []
        for key, engine in self.engines.items():
            # While the log was caught up with nobody was told anything.
            found += self._told_of(key, engine, engine.settle(net=engine.hurries), position)
            engine.hurries = False
        return found

    def _told_of(self, key: str, engine: Engine, changes: Changes, position: int) -> Iterable[Change]:
        columns = (changes.queries, changes.customers, changes.after, changes.since_us)
        for slot, customer, after, since_us in zip(*(column.tolist() for column in columns), strict=True):
            insight = self.held[self._by_slot[key, slot]].insight
            yield self._change(insight, engine.customers.text(customer), Standing(after), since_us, position)

    def _change(self, insight: Insight, customer: str, standing: Standing, since_us: int, position: int) -> Change:
        detail = json.dumps({"version": insight.version})
        return Change(insight.insight_id, customer, _WORDS[standing], since_us, position, detail)

    # Recovery.

    def told(self, entries: Sequence[Entry]) -> None:
        """See Evaluator."""
        for entry in entries:
            change = entry.change
            held = self.held.get(change.stream)
            if held is not None and change.change in _STANDINGS:
                engine = self.engines[held.attribute_key]
                engine.believe(held.slot, change.key_value, _STANDINGS[change.change], change.instant_us)

    def freeze(self) -> tuple[dict[str, Any], Arrays]:
        """See Evaluator."""
        manifest: dict[str, Any] = {"engines": {}, "insights": {}}
        arrays: Arrays = {}
        for key, engine in self.engines.items():
            manifest["engines"][key], parts = freeze(engine)
            arrays |= {f"{key}.{name}": array for name, array in parts.items()}
        for insight_id, held in self.held.items():
            manifest["insights"][insight_id] = [held.attribute_key, held.slot, held.insight.version]
        return manifest, arrays

    @classmethod
    def recovered(
        cls,
        bindings: Sequence[Binding],
        insights: Mapping[str, tuple[Insight, Plan]],
        manifest: Mapping[str, Any],
        arrays: Arrays,
    ) -> "InsightEvaluator":
        """Back from a snapshot, with the insights that are active now.

        Raises SchemaChangedError when its sources have other columns than the rows were retained with, or there are
        more of them: then only the log can tell.
        """
        self = cls(bindings)
        known: Mapping[str, list[Any]] = manifest["insights"]
        for key in self.engines:
            if key not in manifest["engines"]:
                raise SchemaChangedError(key)
            mine = {
                insight_id: pair
                for insight_id, pair in insights.items()
                if self.bindings[pair[1].query.source].attribute_key == key
            }
            slots = {insight_id: place for place, insight_id in enumerate(mine)}
            before = {
                slots[insight_id]: int(known[insight_id][1])
                for insight_id in mine
                if insight_id in known and known[insight_id][0] == key
            }
            schemas = [each.schema for each in bindings if each.attribute_key == key]
            plans = {slots[insight_id]: plan for insight_id, (_, plan) in mine.items()}
            engine = thaw(manifest["engines"][key], named(arrays, key), schemas, plans, before)
            engine.hurries = True
            self.engines[key] = engine
            for insight_id, (insight, plan) in mine.items():
                self._hold(Held(insight, plan, key, slots[insight_id]))
                if insight_id in known and known[insight_id][2] != insight.version:
                    engine.reconsider(slots[insight_id])
            self._now_us = max(self._now_us, engine.now_us)
        return self

    # Answers.

    def results(self, attribute_key: str, key_value: str) -> list[Result] | None:
        """What every insight about an attribute key says of one value, by id; None when it is not known."""
        engine = self.engines.get(attribute_key)
        customer = None if engine is None else engine.customers.find(key_value)
        if engine is None or customer is None:
            return None
        chosen = [held for _, held in sorted(self.held.items()) if held.attribute_key == attribute_key]
        until = engine.untils_us([held.slot for held in chosen], customer)
        return [
            Result(
                held.insight,
                engine.states.of(customer, held.slot),
                engine.states.since_us(customer, held.slot),
                until[held.slot],
            )
            for held in chosen
        ]

    def applied(self, insight_id: str) -> Iterable[tuple[str, int | None]]:
        """Whom an insight applies to, and since when."""
        held = self.held[insight_id]
        engine = self.engines[held.attribute_key]
        for code in engine.states.customers(held.slot, Standing.APPLIES, len(engine.customers)).tolist():
            yield engine.customers.text(code), engine.states.since_us(code, held.slot)

    def count(self, insight_id: str) -> int:
        """How many customers an insight applies to."""
        held = self.held[insight_id]
        engine = self.engines[held.attribute_key]
        return len(engine.states.customers(held.slot, Standing.APPLIES, len(engine.customers)))


def _effects(resolution: Resolution) -> tuple[Bools, list[int]]:
    """Which records of a batch add a row, and the ids (by hash) whose rows from before go."""
    actions, hashes = resolution
    adds: Bools = (actions == ADDED) | (actions == REPLACED)
    if not len(actions) or actions.max() <= ADDED:
        return adds, []
    corrected = hashes[(actions == REPLACED) | (actions == RETRACTED)]
    concerned: NDArray[np.intp] = np.flatnonzero(np.isin(hashes, corrected) & (actions > 0))
    latest: dict[int, int] = {}
    for i in concerned.tolist():
        before = latest.get(int(hashes[i]))
        if before is not None:
            # A later record of this very batch is about the same event.
            adds[before] = False
        latest[int(hashes[i])] = i
    return adds, np.unique(corrected).tolist()
