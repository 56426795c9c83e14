"""The demo's own parts, and the whole of it."""

import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from examples.demo import cdnow
from examples.demo.attributes import compute, define
from examples.demo.cdnow import Purchase
from examples.demo.check import DifferenceError, compare, same
from examples.demo.insights import lapsed, sleeping, spree, vip, who
from examples.demo.living import Follower
from inkling.client import Profile, Reading, Status
from inkling.client.insights import InsightChange

ROOT = Path(__file__).resolve().parents[2]
START = datetime(1997, 1, 1, tzinfo=UTC)


def purchase(line: int, day: int, dollars: float, discs: int = 1) -> Purchase:
    return Purchase(line, "1", START + timedelta(days=day), discs, dollars)


def profile(values: dict[str, object]) -> Profile:
    readings = {name: Reading(value, Status.PRESENT) for name, value in values.items()}  # type: ignore[arg-type]
    return Profile("customer_id", "1", readings, 1, START)


def test_the_file_in_the_wheel_is_the_known_one_in_the_order_of_time() -> None:
    purchases = cdnow.read(cdnow.find_file())
    assert len({each.event_id for each in purchases}) == cdnow.PURCHASES
    assert [each.at for each in purchases] == sorted(each.at for each in purchases)
    assert len(cdnow.by_customer(purchases)) == cdnow.CUSTOMERS


def test_the_direct_computation_knows_its_windows() -> None:
    bought = [purchase(2, 0, 10.0), purchase(3, 30, 5.0, discs=2), purchase(4, 59, 2.5)]
    values = compute(bought, START + timedelta(days=60))
    assert [values[f"purchases_{suffix}"] for suffix in ("30d", "90d", "life")] == [2, 3, 3]
    assert (values["spent_30d"], values["mean_spent_life"]) == (7.5, 17.5 / 3)
    assert (values["first_spent_30d"], values["last_spent_30d"], values["basket_sizes_life"]) == (5.0, 2.5, 2)
    assert compute(bought, START)["purchases_life"] is None
    assert set(values) == {attribute.name for attribute in define()[0].attributes}


def test_what_should_hold_is_known_to_the_microsecond() -> None:
    now = datetime(1998, 6, 30, tzinfo=UTC)

    def at(instant: datetime, dollars: float, line: int = 2) -> Purchase:
        return Purchase(line, "1", instant, 1, dollars)

    edge = now - timedelta(days=90)
    # INFER's windows begin after the instant so long ago, those of attributes with it.
    assert lapsed([at(edge, 500.01)], now)
    assert not lapsed([at(edge + timedelta(microseconds=1), 500.01)], now)
    assert not lapsed([at(edge, 500.0)], now)
    assert sleeping([at(edge, 1_000.0)], now)
    assert not sleeping([at(edge + timedelta(microseconds=1), 1_000.0)], now)
    tenths = [at(edge, 0.1, line) for line in range(10_000)]
    assert vip(tenths, now)
    assert not vip(tenths[1:], now)
    old, new = at(datetime(1997, 7, 1, tzinfo=UTC), 90.0), at(datetime(1998, 6, 1, tzinfo=UTC), 10.0)
    assert not spree([old, new], now)
    assert spree([old, new, at(now, 0.01)], now)
    assert who({"1": [new], "2": [old]}, spree, now) == {"1"}


async def test_a_follower_refuses_to_be_told_twice() -> None:
    told = [change("applied"), change("withdrawn"), change("withdrawn")]

    async def watch(insights: object, *, send_initial: bool) -> AsyncIterator[InsightChange]:
        for each in told:
            yield each

    follower = Follower()
    with pytest.raises(DifferenceError, match="told twice to be withdrawn for 1"):
        await follower.follow(SimpleNamespace(insights=SimpleNamespace(watch=watch)))  # type: ignore[arg-type]
    assert follower.told == {("spree", "applied"): 1, ("spree", "withdrawn"): 1}


def change(kind: str) -> InsightChange:
    return InsightChange("insights/spree", "1", kind, START, 1, 1, "token")


def test_a_returned_purchase_is_a_correction_of_the_same_event() -> None:
    event = purchase(2, 0, 10.0).taken_back()
    assert (event.event_id, event.revision, event.deleted) == ("cdnow-00002", 1, True)


async def test_one_wrong_bit_fails_the_comparison() -> None:
    bought = {"1": [purchase(2, 0, 10.1)]}
    instant = START + timedelta(days=1)
    right = compute(bought["1"], instant)
    assert await compare({"1": profile(right)}, bought, instant) == len(right)
    wrong = {**right, "spent_life": 10.100000000000001}
    with pytest.raises(DifferenceError, match=r"1 of 18 values differ:\n  customer 1, spent_life"):
        await compare({"1": profile(wrong)}, bought, instant)
    lacking = {name: value for name, value in right.items() if name != "spent_life"}
    with pytest.raises(DifferenceError):
        await compare({"1": profile(lacking)}, bought, instant)


def test_a_status_that_changed_fails_the_comparison_after_recovery() -> None:
    before = profile({"spent": 1.0})
    assert same({"1": before}, {"1": before}) == 1
    after = replace(before, readings={"spent": Reading(1.0, Status.BACKFILLING)})
    with pytest.raises(DifferenceError, match="1 profiles changed"):
        same({"1": before}, {"1": after})


@pytest.mark.slow
def test_the_whole_demo_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("values of 23,570 customers are equal, to the last bit") == 2
    assert done.stdout.count("each equal to plain Python, for 23,570 customers") == 4
    for told in ("spree: 11 applied, 1,326 withdrawn", "trk_purchase is in the log", "is not marked vip any more"):
        assert told in done.stdout
