"""Who is in a segment since when, and timers."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
from hypothesis import given, settings

from services.features.segments.evaluate_many import NEVER_US
from services.features.segments.membership import Members, Timers, decode, encode, frozen
from services.features.segments.universe import Universe
from services.kernel.engine import Engine

NUMBERS = st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NUMBERS, st.integers(1, 50) | st.none()),
        st.tuples(st.just("one"), st.integers(0, 30), st.integers(1, 50) | st.none()),
        st.tuples(st.just("many"), st.integers(1, 50)),
        st.tuples(st.just("take"), st.integers(0, 60)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_timers_give_each_profile_once_when_its_last_instant_has_come(steps: list[tuple[object, ...]]) -> None:
    timers, model, now = Timers(), dict[int, int](), 0
    for step in steps:
        match step:
            case ("set", list(numbers), int() | None as due):
                timers.set(np.array(numbers, np.int32), np.full(len(numbers), NEVER_US if due is None else now + due))
                model |= dict.fromkeys(numbers, now + due if due else NEVER_US)
            case ("one", int(number), int() | None as due):
                timers.set_one(number, None if due is None else now + due)
                model[number] = now + due if due else NEVER_US
            case ("many", int(due)):
                # So many that they are sorted as a batch.
                timers.set(np.arange(2_000, dtype=np.int32), np.full(2_000, now + due))
                model |= dict.fromkeys(range(2_000), now + due)
            case ("take", int(later)):
                now += later
                taken = timers.take(now).tolist()
                assert taken == sorted(number for number, due in model.items() if due <= now)
                model |= dict.fromkeys(taken, NEVER_US)
    assert timers.count == sum(due != NEVER_US for due in model.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), NUMBERS), max_size=12))
def test_members_are_those_that_entered_and_did_not_leave(steps: list[tuple[bool, list[int]]]) -> None:
    members, model = Members(), dict[int, int]()
    universe = Universe("user_id")
    universe.take_in(pa.array([f"u{i}" for i in range(31)]))
    for instant, (entered, numbers) in enumerate(steps):
        codes = np.array(numbers, np.int32)
        if entered:
            members.enter(codes, instant)
            model |= dict.fromkeys(numbers, instant)
        else:
            members.leave(codes)
            model = {number: since for number, since in model.items() if number not in numbers}
    assert (members.count, members.numbers().tolist()) == (len(model), sorted(model))
    everybody = np.arange(40, dtype=np.int32)
    assert members.are(everybody).tolist() == [number in model for number in range(40)]
    assert [members.since_us(number) for number in (*range(40), None)] == [*map(model.get, range(40)), None]
    saved = decode(encode(frozen(members, universe, 7)))
    assert (saved.sequence, saved.keys.to_pylist()) == (7, [f"u{i}" for i in sorted(model)])
    assert saved.since_us.tolist() == [model[number] for number in sorted(model)]


def test_engines_number_the_same_keys_differently_and_forgotten_keys_are_nobody() -> None:
    first, second, other = Engine("user_id", ()), Engine("user_id", ()), Engine("account_id", ())
    first.key_codes.codes(pa.array(["a", "b"]))
    second.key_codes.codes(pa.array(["b", "c"]))
    other.key_codes.codes(pa.array(["x"]))
    universe = Universe("user_id")
    universe.follow([first, second, other])
    assert universe.texts(universe.everybody()).to_pylist() == ["a", "b", "c"]
    assert universe.codes(second, universe.everybody()).tolist() == [-1, 0, 1]
    assert universe.numbers(second, np.array([1, 0], np.int32)).tolist() == [2, 1]
    second.key_codes.codes(pa.array(["d"]))
    assert universe.numbers(second, np.array([2], np.int32)).tolist() == [3]
    assert universe.codes(first, np.array([3], np.int32)).tolist() == [-1]
    for engine in (first, second):
        engine.key_codes.forget(np.array([text == "b" for text in engine.key_codes.texts()]))
    assert universe.forget("b") == 1
    assert universe.find("b") is None
    assert universe.everybody().tolist() == [0, 2, 3]
    assert universe.numbers(first, np.array([0, 1], np.int32)).tolist() == [0]
    universe.follow([second])
    assert universe.codes(first, universe.everybody()).tolist() == [-1, -1, -1]


def test_a_key_that_comes_back_while_it_is_forgotten_is_another_profile() -> None:
    engine, universe = Engine("user_id", ()), Universe("user_id")
    engine.key_codes.codes(pa.array(["a", "b"]))
    universe.follow([engine])
    engine.key_codes.forget(np.array([False, True]))
    engine.key_codes.codes(pa.array(["b"]))
    universe.follow([engine])
    assert universe.forget("b") == 1
    assert (universe.find("b"), universe.everybody().tolist()) == (2, [0, 2])
    assert universe.codes(engine, universe.everybody()).tolist() == [0, 2]
    assert universe.numbers(engine, np.array([2], np.int32)).tolist() == [2]
