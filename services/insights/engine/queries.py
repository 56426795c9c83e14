"""The queries of an engine by slot, the totals they share, and what is made of all of them together."""

from collections.abc import Mapping
from dataclasses import replace

from services.insights.engine.passes import Pass
from services.insights.engine.plan import Plan, Total, Way
from services.insights.engine.pools import Pools
from services.insights.engine.programs import Instruction, Programs, ProgramStore
from services.insights.engine.recomputed import Timers, watched
from services.insights.engine.rows import SourceRows
from services.insights.engine.vectors import Condition, Vectors
from services.insights.language.tree import Node


class Queries:
    """Plans by slot. Equal totals of different plans are one, under one number for ever."""

    def __init__(self, sources: Mapping[str, SourceRows], pools: Pools) -> None:
        self.plans: list[Plan | None] = []
        self.timers: dict[int, Timers] = {}
        """Of the queries that are recomputed, by slot."""
        self._sources, self._pools = sources, pools
        self._numbers: dict[Total, int] = {}
        self.totals: dict[int, Total] = {}
        """By number."""
        self._readers: dict[int, set[int]] = {}
        self._next_number = 0
        self._passes: dict[str, Pass] | None = None
        self._programs = ProgramStore()
        self._unread: set[int] = set()
        """Totals that have lost a reader: they may have none."""
        self._conditions: dict[tuple[str, Node], Condition] = {}

    def at(self, slot: int) -> Plan:
        """The plan at a slot that has one."""
        plan = self.plans[slot]
        assert plan is not None, "the slot has a query"
        return plan

    def sharing(self, total: Total) -> int:
        """How many queries read a total."""
        number = self._numbers.get(total)
        return 0 if number is None else len(self._readers[number])

    def free(self, count: int) -> list[int]:
        """So many slots without a query, made now where there are none."""
        found = [slot for slot, plan in enumerate(self.plans) if plan is None][:count]
        while len(found) < count:
            found.append(len(self.plans))
            self.plans.append(None)
        return found

    def take(self, slot: int, plan: Plan) -> dict[int, Total]:
        """Puts a plan at a slot, in place of the one before. Returns the totals that no other query had, by number."""
        while len(self.plans) <= slot:
            self.plans.append(None)
        self.release(slot)
        self.plans[slot] = plan
        if plan.way is Way.RECOMPUTED:
            self.timers[slot] = Timers(watched(plan.query))
        new: dict[int, Total] = {}
        for total in plan.totals:
            number = self._numbers.get(total)
            if number is None:
                number = self._numbers[total] = self._next_number
                self._next_number += 1
                self._readers[number] = set()
                self.totals[number] = new[number] = total
            self._readers[number].add(slot)
        self._programs.put(slot, self._program(plan))
        return new

    def release(self, slot: int) -> None:
        """Empties a slot; its totals stay until `drop_unread`."""
        plan = self.plans[slot]
        self.plans[slot] = self._passes = None
        self._programs.put(slot, None)
        self.timers.pop(slot, None)
        for total in () if plan is None else plan.totals:
            number = self._numbers[total]
            self._readers[number].discard(slot)
            self._unread.add(number)

    def drop_unread(self) -> set[int]:
        """Forgets the totals that no query reads; returns their numbers."""
        unread = {number for number in self._unread if not self._readers[number]}
        self._unread.clear()
        if unread:
            for number in unread:
                del self._numbers[self.totals.pop(number)], self._readers[number]
            self._conditions.clear()
        return unread

    def quiet_pass(self, source: str, totals: Mapping[int, Total]) -> Pass:
        """A pass over a source for some totals, of which no query is told."""
        vectors = Vectors(self._sources[source], self._pools)
        return Pass(vectors, totals, source, dict.fromkeys(totals, ()))

    @property
    def passes(self) -> dict[str, Pass]:
        """By source the pass for all totals."""
        if self._passes is None:
            totals = self.totals
            readers = {number: sorted(self._readers[number]) for number in totals}
            self._passes = {
                name: Pass(Vectors(rows, self._pools), totals, name, readers) for name, rows in self._sources.items()
            }
        return self._passes

    @property
    def programs(self) -> Programs:
        """The closing programs by slot."""
        return self._programs.programs

    def _program(self, plan: Plan) -> list[Instruction] | None:
        if plan.way is Way.RECOMPUTED:
            return None
        numbers = [self._numbers[total] for total in plan.totals]
        return [each if each.total < 0 else replace(each, total=numbers[each.total]) for each in plan.program]

    def condition(self, source: str, node: Node) -> Condition:
        """A condition on the rows of a source, made once."""
        found = self._conditions.get((source, node))
        if found is None:
            made = Vectors(self._sources[source], self._pools).condition(node)
            found = self._conditions[source, node] = made
        return found
