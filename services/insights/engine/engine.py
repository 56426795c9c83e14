"""The engine: the rows of all sources, the queries over them, and what each query says of each customer.

Rows come and go (`replace_rows`), time passes (`advance`), queries come and go (`put`, `remove`); each of these keeps
the totals current and queues the pairs of a customer and a query that it may concern. `settle` decides what is queued
and says what changed. It does no I/O and starts no threads.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.insights.direct.evaluator import evaluate
from services.insights.direct.outcome import Outcome, Rows
from services.insights.engine.cells import DIGITS, QUEUED, longer, nbytes, new_queue, without
from services.insights.engine.passes import CHUNK, Pass, Tables
from services.insights.engine.plan import Block, Plan, Total
from services.insights.engine.pools import Pools
from services.insights.engine.programs import ASKED, SAME, decide
from services.insights.engine.queries import Queries
from services.insights.engine.recomputed import Timers
from services.insights.engine.rows import NewRows, RowNumbers, SourceRows, View
from services.insights.engine.states import NOT, Changes, Standing, States, joined
from services.insights.engine.tables import rows_of
from services.insights.engine.walking import Walk
from services.insights.language.sources import SourceSchema
from services.insights.language.tree import CheckedQuery
from services.insights.language.types import Kind
from services.kernel.interning import Interner
from services.kernel.windows import MIN_US

MOST_STEPS = 100
"""How often a recomputed query is evaluated for a customer, at most, when time passes."""
_STANDINGS = {"APPLIES": Standing.APPLIES, "NOT": Standing.NOT, "ERROR": Standing.ERROR}


class Engine:
    """One project's queries, by slot, over its retained rows. Not thread-safe."""

    def __init__(self, schemas: Iterable[SourceSchema] = ()) -> None:
        self.pools = Pools()
        self.customers = Interner()
        self.sources: dict[str, SourceRows] = {}
        self.now_us = MIN_US
        """The instant that states hold at."""
        self.states = States()
        self.recomputed = 0
        """Evaluations from rows so far."""
        self.hurries = False
        """Whether recomputed queries are evaluated once at the next `settle`, not at each instant that time may change
        them."""
        self.untold: list[Changes] = []
        """What changed and was not asked for yet."""
        self.queries = Queries(self.sources, self.pools)
        self._seen = 0
        """Customers whose states are known to exist."""
        self._tables = Tables.empty(new_queue())
        self._scratch: tuple[NDArray[np.int64], NDArray[np.int64]] = (
            np.zeros((1, DIGITS), np.int64),
            np.zeros(DIGITS + 1, np.int64),
        )
        for schema in schemas:
            self.add_source(schema)

    def add_source(self, schema: SourceSchema) -> None:
        """A source without rows yet. Does nothing when it is there."""
        self.sources.setdefault(schema.name, SourceRows(schema))

    @property
    def nbytes(self) -> dict[str, int]:
        """Memory held in arrays, in bytes: of rows, of totals, of states."""
        return {
            "rows": sum(rows.nbytes for rows in self.sources.values()),
            "totals": nbytes(self._tables.counts) + nbytes(self._tables.sums),
            "states": self.states.nbytes,
        }

    # Queries.

    def put(self, plans: Sequence[Plan], slots: Sequence[int] | None = None) -> list[int]:
        """Takes queries in, at slots of queries that they replace or at free ones; fills their totals from the rows.

        All customers are queued for them; a replaced query's states stay until they are decided.
        """
        queries = self.queries
        chosen = list(slots) if slots is not None else queries.free(len(plans))
        new: dict[int, Total] = {}
        for slot, plan in zip(chosen, plans, strict=True):
            new |= queries.take(slot, plan)
        self._drop_unread()
        self.states.reserve(len(self.customers), len(queries.plans))
        self._fill(new)
        for slot in chosen:
            self.reconsider(slot)
        return chosen

    def remove(self, slot: int) -> NDArray[np.int32]:
        """Lets a query go, with its states; returns the customers that it applied to."""
        # Nobody was told of what was not asked for.
        for changes in reversed(self.untold):
            mine = changes.chosen(changes.queries == slot)
            self.states.table[mine.customers[::-1], slot] = mine.before[::-1]
        self.untold = [changes.chosen(changes.queries != slot) for changes in self.untold]
        applied = self.states.customers(slot, Standing.APPLIES, len(self.customers))
        self.queries.release(slot)
        self._drop_unread()
        self._keep_queued(self._tables.queue.queries[: self.queued] != slot)
        self.states.clear(slot)
        return applied

    def restore(
        self, plans: Mapping[int, Plan], slots: Mapping[int, int], states: dict[str, NDArray[np.generic]]
    ) -> None:
        """Takes queries in with the states they had; `slots` says where each query of these states is now.

        The rows must be there already. Queries without states are queued for everyone.
        """
        for slot, plan in plans.items():
            self.queries.take(slot, plan)
        self._seen = len(self.customers)
        self.states.load(states, dict(slots), self._seen, len(self.queries.plans))
        self._fill(self.queries.totals)
        for slot in plans.keys() - set(slots.values()):
            self.reconsider(slot)

    def reconsider(self, slot: int) -> None:
        """A query is to be decided for everyone again."""
        self.enqueue(np.arange(len(self.customers), dtype=np.int32), slot)

    def believe(self, slot: int, customer: str, standing: Standing, since_us: int) -> None:
        """What was told of a customer after this state was written down; what holds is decided at the next `settle`."""
        code = int(self.customers.codes(pa.array([customer], pa.string()))[0])
        self.states.reserve(len(self.customers), len(self.queries.plans))
        self.states.table[code, slot] = standing | (self.states.table[code, slot] & QUEUED)
        self.states.note(np.array([slot], np.int32), np.array([code], np.int32), np.array([since_us], np.int64))
        self.enqueue(np.array([code], np.int32), slot)

    def _drop_unread(self) -> None:
        unread = self.queries.drop_unread()
        if unread:
            self._tables.counts = without(self._tables.counts, unread)
            self._tables.sums = without(self._tables.sums, unread)

    def _keep_queued(self, wanted: NDArray[np.bool_]) -> None:
        queue = self._tables.queue
        kept = np.flatnonzero(wanted)
        queue.customers[: len(kept)], queue.queries[: len(kept)] = queue.customers[kept], queue.queries[kept]
        queue.used[0] = len(kept)

    def enqueue(self, customers: NDArray[np.int32], slot: int) -> None:
        """A query is to be decided for customers, each given once."""
        table = self.states.table
        new = customers[(table[customers, slot] & QUEUED) == 0]
        table[new, slot] |= QUEUED
        queue = self._tables.queue = longer(self._tables.queue, len(new))
        used = int(queue.used[0])
        queue.customers[used : used + len(new)] = new
        queue.queries[used : used + len(new)] = slot
        queue.used[0] = used + len(new)

    def _fill(self, totals: dict[int, Total]) -> None:
        """Counts what the rows held now make of new totals."""
        for name, rows in self.sources.items():
            made = self.queries.quiet_pass(name, totals)
            for first in range(0, rows.store.count if len(made) else 0, CHUNK):
                living = rows.alive(first, min(first + CHUNK, rows.store.count))
                self._run(made, rows, living, 1)

    # Rows.

    def replace_rows(self, source: str, gone: Iterable[int], new: NewRows | None) -> None:
        """Takes back the rows of some event ids (by hash), then adds rows. Customers of both are queued."""
        rows = self.sources[source]
        taken = rows.find(gone)
        touched = [rows.store.columns.keys[taken]]
        made = self.queries.passes[source]
        if len(taken):
            self._run(made, rows, taken, -1)
            rows.remove(taken)
        if new is not None and len(new.times):
            self._welcome()
            added = rows.append(new)
            touched.append(new.customers)
            for first in range(0, len(added), CHUNK):
                self._run(made, rows, added[first : first + CHUNK], 1)
        self._touch(source, np.unique(np.concatenate(touched)))
        rows.compact()

    def forget(self, customer: str) -> None:
        """Leaves nothing of a customer: no rows, no states, no text. Nothing changes that could be told."""
        code = self.customers.find(customer)
        if code is None:
            return
        for name, rows in self.sources.items():
            self.replace_rows(name, rows.store.columns.id_hashes[rows.of(code)].tolist(), None)
            rows.compact(at_once=True)
        queue = self._tables.queue
        self._keep_queued(queue.customers[: self.queued] != code)
        self.untold = [changes.chosen(changes.customers != code) for changes in self.untold]
        self.states.table[code] = 0
        forgotten = np.zeros(len(self.customers), np.bool_)
        forgotten[code] = True
        self.customers.forget(forgotten)

    def forget_unused(self) -> None:
        """Leaves nothing of rows that were taken back: no texts or arrays that only they held."""
        texts, arrays = [], []
        for rows in self.sources.values():
            rows.compact(at_once=True)
            for name, place in rows.columns.items():
                cells, kind = rows.store.terms[place][: rows.store.count], rows.schema.columns[name]
                if kind.array:
                    arrays.append(cells)
                elif kind.kind is Kind.STRING:
                    texts.append(cells)
        self.pools.forget_unused(texts, arrays)

    def _run(self, made: Pass, rows: SourceRows, numbers: RowNumbers, sign: int) -> None:
        view = rows.view(numbers)
        signs = np.full(len(numbers), sign, np.int8)
        made.run(self._tables, self.states.table, view, made.inside(view.times, self.now_us), signs)

    def _welcome(self) -> None:
        """New customers: every query is to be decided for them, whatever their rows are."""
        count = len(self.customers)
        self.states.reserve(count, len(self.queries.plans))
        new = np.arange(self._seen, count, dtype=np.int32)
        self._seen = count
        if len(new):
            for slot, plan in enumerate(self.queries.plans):
                if plan is not None:
                    self.enqueue(new, slot)

    def _touch(self, source: str, customers: NDArray[np.int32]) -> None:
        for slot in self.queries.timers:
            if source in self.queries.at(slot).sources:
                self.enqueue(customers, slot)

    # Time.

    def advance(self, now_us: int) -> None:
        """Moves to an instant, never back: what time alone changes meanwhile holds since the instant it did.

        Pairs that are queued already are decided at the next `settle`.
        """
        before = self.now_us
        if now_us <= before:
            return
        self.now_us = now_us
        passes = [(made, self.sources[name]) for name, made in self.queries.passes.items()]
        programs, table = self.queries.programs, self.states.table
        walk = Walk(self._tables, programs, table, self._scratch, self._standing)
        found = [walk.run(passes, before, now_us)]
        for slot, timers in self.queries.timers.items():
            due = timers.take_due(now_us)
            if self.hurries or not timers.steps:
                self.enqueue(due[0], slot)
            else:
                found.append(self._step(slot, timers, *due))
        self._found(joined(found))

    def _step(self, slot: int, timers: Timers, customers: NDArray[np.int32], due_us: NDArray[np.int64]) -> Changes:
        """Evaluates a recomputed query at each instant at which time may change its answers."""
        found: list[tuple[int, int, int, int, int]] = []
        query = self.queries.at(slot).query
        for customer, at_us in zip(customers.tolist(), due_us.tolist(), strict=True):
            state = int(self.states.table[customer, slot])
            if state & QUEUED:
                continue
            rows, due, steps = self.tables(customer, self.sources), at_us, 0
            while due is not None and due <= self.now_us and steps < MOST_STEPS:
                self.recomputed += 1
                after = int(_STANDINGS[evaluate(query, rows, due).state])
                if after != state:
                    found.append((slot, customer, state, after, due))
                state, steps, due = after, steps + 1, timers.next_change_us(self.sources, customer, due)
            self.states.table[customer, slot] = state
            timers.set(customer, due)
            if due is not None and due <= self.now_us:
                self.enqueue(np.array([customer], np.int32), slot)
        kinds = (np.int32, np.int32, np.uint8, np.uint8, np.int64)
        columns = list(zip(*found, strict=True)) or [()] * len(kinds)
        return Changes(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))

    def _found(self, changes: Changes) -> None:
        """Keeps what changed until it is asked for."""
        if changes:
            ordered = changes.chosen(np.argsort(changes.since_us, kind="stable"))
            self.states.note(ordered.queries, ordered.customers, ordered.since_us)
            self.untold.append(ordered)

    # Decisions.

    @property
    def queued(self) -> int:
        """How many pairs are to be decided."""
        return int(self._tables.queue.used[0])

    def pairs_queued(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The customers and the queries of the pairs that are to be decided."""
        queue, used = self._tables.queue, self.queued
        return queue.customers[:used], queue.queries[:used]

    def settle(self, *, net: bool = False) -> Changes:
        """Decides what is queued; returns what changed since it was last asked, in order.

        With `net`, what changed and changed back meanwhile is left out.
        """
        self._decide()
        found, self.untold = joined(self.untold), []
        return found.net() if net and found else found

    def _decide(self) -> None:
        tables, queue = self._tables, self._tables.queue
        used = int(queue.used[0])
        if not used:
            return
        customers, queries = queue.customers[:used].copy(), queue.queries[:used].copy()
        queue.used[0] = 0
        before, table = np.zeros(used, np.uint8), self.states.table
        decide(self.queries.programs, tables.counts, tables.sums, customers, queries, table, before, *self._scratch)
        for i in np.flatnonzero(before == ASKED).tolist():
            query, customer = int(queries[i]), int(customers[i])
            state, after = table[customer, query], self._from_rows(query, customer)
            table[customer, query] = after
            before[i] = SAME if state == after or (state == 0 and after == NOT) else state
        told = np.flatnonzero(before != SAME)
        queries, customers = queries[told], customers[told]
        since = np.full(len(told), self.now_us)
        self._found(Changes(queries, customers, before[told], table[customers, queries], since))

    def _from_rows(self, slot: int, customer: int) -> int:
        timers = self.queries.timers.get(slot)
        if timers is not None:
            timers.set(customer, timers.next_change_us(self.sources, customer, self.now_us))
        return self._standing(slot, customer, self.now_us)

    def _standing(self, slot: int, customer: int, at_us: int) -> int:
        self.recomputed += 1
        return int(_STANDINGS[self.outcome(self.queries.at(slot).query, customer, at_us).state])

    # Answers.

    def tables(self, customer: int, sources: Iterable[str]) -> dict[str, Rows]:
        """A customer's rows of some sources, for the direct evaluator."""
        return {name: rows_of(self.sources[name], self.pools, customer) for name in sources}

    def outcome(self, query: CheckedQuery, customer: int, now_us: int) -> Outcome:
        """What a query says of a customer at an instant, from the rows, with the reasons."""
        return evaluate(query, self.tables(customer, self.sources), now_us)

    def until_us(self, slot: int, customer: int) -> int | None:
        """The next now at which time alone can change a query's answer about a customer, or None."""
        return self.untils_us([slot], customer)[slot]

    def untils_us(self, slots: Iterable[int], customer: int) -> dict[int, int | None]:
        """The same for several queries at once: what they share is looked at once."""
        looked: dict[Block, int | None] = {}
        found: dict[int, int | None] = {}
        views: dict[str, View] = {}
        for slot in slots:
            timers = self.queries.timers.get(slot)
            if timers is not None:
                found[slot] = timers.next_change_us(self.sources, customer, self.now_us)
                continue
            instants = []
            for block in self.queries.at(slot).blocks:
                if block not in looked:
                    looked[block] = self._next_change_us(block, customer, views)
                instants.append(looked[block])
            found[slot] = min((at for at in instants if at is not None), default=None)
        return found

    def _next_change_us(self, block: Block, customer: int, views: dict[str, View]) -> int | None:
        if block.range.everything:
            return None
        view = views.get(block.source)
        if view is None:
            rows = self.sources[block.source]
            view = views[block.source] = rows.view(rows.of(customer))
        kept = np.ones(len(view), np.bool_)
        for condition in block.conditions:
            kept &= self.queries.condition(block.source, condition)(view)
        return block.range.next_change_us(view.times[kept], self.now_us)
