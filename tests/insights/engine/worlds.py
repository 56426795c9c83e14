"""A world for the engine: transactions that come late, are replaced and deleted, time that passes, restarts."""

from collections.abc import Sequence
from random import Random

from services.insights.direct.outcome import Cell, Rows
from services.insights.engine.engine import Engine
from services.insights.engine.entering import from_values, hash_of
from services.insights.engine.plan import Plan, plan
from services.insights.engine.snapshots import freeze, thaw
from services.insights.language.sources import transactions
from services.insights.language.tree import Dialect
from tests.insights.asking import SOURCES, checked

DAY_US = 86_400_000_000
CUSTOMERS = ("ada", "bob", "cy")
STEPS_US = (1, 3_600_000_000, DAY_US, 7 * DAY_US, 31 * DAY_US)


def planned(text: str, dialect: Dialect = Dialect.STRICT) -> Plan:
    """The plan of a query over `transactions`."""
    return plan(checked(text, dialect), SOURCES)


class World:
    """An engine, what was given to it, and steps that a random generator chooses."""

    def __init__(self, now_us: int, plans: Sequence[Plan]) -> None:
        self.engine = Engine([transactions()])
        self.engine.advance(now_us)
        self.plans = dict(zip(self.engine.put(plans), plans, strict=True))
        self._ids: list[str] = []

    def give(self, rows: Rows, random: Random) -> None:
        """Rows come, each for some customer; some of them replace earlier ones."""
        ids, gone = [], []
        for _ in range(rows.count):
            if self._ids and random.random() < 0.25:
                again = random.choice(self._ids)
                if again in ids:
                    continue
                gone.append(again)
                ids.append(again)
            else:
                self._ids.append(f"{random.getrandbits(32):08x}")
                ids.append(self._ids[-1])
        columns: dict[str, list[Cell]] = {name: list(values[: len(ids)]) for name, values in rows.columns.items()}
        names = [random.choice(CUSTOMERS) for _ in ids]
        engine = self.engine
        new = from_values(transactions(), engine.pools, engine.customers, names, ids, columns)
        engine.replace_rows("transactions", map(hash_of, gone), new)

    def take(self, random: Random) -> None:
        """Some rows are deleted, or the ids of rows that are not there."""
        gone = random.sample(self._ids, min(len(self._ids), 3))
        self.engine.replace_rows("transactions", map(hash_of, gone), None)

    def wait(self, random: Random) -> None:
        """Time passes."""
        self.engine.advance(self.engine.now_us + random.choice(STEPS_US))

    def restart(self) -> None:
        """The engine is written down and read back."""
        manifest, arrays = freeze(self.engine)
        slots = {slot: slot for slot in self.plans}
        self.engine = thaw(manifest, arrays, [transactions()], self.plans, slots)

    def reconsider(self, random: Random) -> None:
        """A query goes, and comes back or takes the place of another."""
        slot = random.choice(list(self.plans))
        other = random.choice(list(self.plans.values()))
        if random.random() < 0.5:
            self.engine.remove(slot)
            del self.plans[slot]
            slot = self.engine.put([other])[0]
        else:
            self.engine.put([other], [slot])
        self.plans[slot] = other

    def check(self, random: Random) -> None:
        """Every state is what the rows say, and stays so until it says."""
        engine = self.engine
        for customer in range(len(engine.customers)):
            for slot, each in self.plans.items():
                expected = engine.outcome(each.query, customer, engine.now_us).state
                found = engine.states.of(customer, slot)
                assert found.name == expected.value, (each.query.text, each.way, each.reason)
                until = engine.until_us(slot, customer)
                assert until is None or until > engine.now_us
                if random.random() < 0.1:
                    last = engine.now_us + 400 * DAY_US if until is None else until - 1
                    assert engine.outcome(each.query, customer, last).state is expected, (each.query.text, until)
