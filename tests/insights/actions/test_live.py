"""Rules at work: filled, changed, deleted, recovered; actions in the outbox, each once."""

import io
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from services.insights.actions.outbox import ActionState
from services.insights.rules.definitions import ActionKind, Condition, Limits, Operator, QuietHours, Rule, RuleAction
from services.insights.rules.live import RuleProject
from services.kernel import erasing
from services.kernel.building import EventRow
from services.kernel.columns import RESERVED_VENDOR
from services.runtime.blobs import MemoryBlobStore
from services.runtime.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from tests.features.memory_log import NOW_US, MemoryLog, purchase

from .serving import PROJECT, LaterError, RefusedError, scene

TWICE = Rule("twice", "buy", Condition(Operator.GREATER_OR_EQUAL, Decimal(2)))
FIRES = replace(TWICE, rule_id="fires", action=RuleAction(ActionKind.FIRE_EVENT), reset=True)
HOOK = replace(FIRES, rule_id="hook", action=RuleAction(ActionKind.WEBHOOK, "https://example.org/hook"))
SECOND_US = 1_000_000


def told(project: RuleProject) -> list[tuple[str, int, int]]:
    return [(result.rule_id, result.count, result.edges) for result in project.serving().results("u")]


def buy(number: int, user: str = "u", offset: int = 0) -> EventRow:
    return purchase(number, user, NOW_US + number * SECOND_US + offset)


async def test_a_rule_made_later_knows_the_past_and_is_quiet_about_it(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        await at.append(buy(1), buy(2), buy(3))
        await at.rules.create(PROJECT, [FIRES, replace(TWICE, act_on_past=True)])
        project = await at.rules.project(PROJECT)
        assert [(r.rule_id, r.count, r.edges) for r in project.serving().results("u")] == [
            ("fires", 1, 1),
            ("twice", 3, 1),
        ]
        assert await at.work() == [("set_property", "u", "buy")]
        await at.append(buy(4))
        assert await at.work() == [("fire_event", "u", "trk_buy")]


async def test_killed_and_recovered_it_asks_for_nothing_twice(tmp_path: Path) -> None:
    log, blobs = MemoryLog(), MemoryBlobStore()
    async with scene(tmp_path, log, blobs) as at:
        await at.rules.create(PROJECT, [FIRES, TWICE])
        await at.append(*(buy(i) for i in range(1, 6)))
        assert len(await at.work()) == 3
    for lose in (False, True):
        if lose:
            for info in await blobs.list("rules/"):
                await blobs.delete(info.key)
        async with scene(tmp_path, log, blobs) as at:
            await at.rules.wait_ready()
            project = await at.rules.project(PROJECT)
            assert [(r.rule_id, r.count, r.edges) for r in project.serving().results("u")] == [
                ("fires", 1, 2),
                ("twice", 5, 1),
            ]
            assert await at.work() == []
    async with scene(tmp_path, log, blobs) as at:
        await at.append(buy(6))
        assert await at.work() == [("fire_event", "u", "trk_buy")]


async def test_versions_are_kept_and_a_deleted_rule_is_gone_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        (first,) = await at.rules.create(PROJECT, [TWICE])
        await at.append(buy(1), buy(2))
        assert await at.work() == [("set_property", "u", "buy")]
        with pytest.raises(AlreadyExists):
            await at.rules.create(PROJECT, [TWICE])
        stricter = replace(TWICE, count=Condition(Operator.GREATER, Decimal(5)))
        second = await at.rules.update(PROJECT, stricter, first.etag)
        with pytest.raises(Aborted):
            await at.rules.update(PROJECT, stricter, first.etag)
        assert await at.work() == [("unset_property", "u", "buy")]
        assert [stored.rule.version for stored in await at.rules.store.versions(PROJECT, "twice")] == [2, 1]
        await at.rules.delete(PROJECT, "twice", second.etag)
        with pytest.raises(NotFound):
            await at.rules.get(PROJECT, "twice")
        assert (await at.rules.project(PROJECT)).serving().results("u") == []
        (again,) = await at.rules.create(PROJECT, [TWICE])
        assert again.rule.version == 3


async def test_switching_off_withdraws_and_on_fills_again(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        await at.rules.create(PROJECT, [replace(TWICE, act_on_past=True)])
        await at.append(buy(1), buy(2))
        assert await at.work() == [("set_property", "u", "buy")]
        await at.rules.switch(PROJECT, "twice", is_active=False)
        assert await at.work() == [("unset_property", "u", "buy")]
        await at.append(buy(3))
        await at.rules.switch(PROJECT, "twice", is_active=True)
        project = await at.rules.project(PROJECT)
        assert [result.count for result in project.serving().results("u")] == [3]


async def test_mistakes_and_cycles_are_refused_before_anything_changes(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        feeding = replace(
            FIRES,
            rule_id="a",
            event_name="trk_buy",
            count_system_events=True,
            action=RuleAction(ActionKind.FIRE_EVENT, "buy"),
        )
        with pytest.raises(InvalidArgument) as caught:
            await at.rules.create(PROJECT, [FIRES, feeding, replace(TWICE, count=None)], paths=["0", "1", "2"])
        assert [violation.field for violation in caught.value.violations] == ["1.action", "2.count"]
        assert await at.rules.all(PROJECT) == []
        assert await at.rules.create(PROJECT, [TWICE], validate_only=True)
        assert await at.rules.all(PROJECT) == []


async def test_what_fails_is_tried_again_later_and_given_up_at_last(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        await at.rules.create(PROJECT, [FIRES])
        await at.append(buy(1), buy(2))
        at.notebook.fails = [LaterError("UNAVAILABLE")] * 3
        waits = 0
        while not await at.work():
            waits += 1
            at.clock.advance(SECOND_US)
        assert waits == 1 + 2 + 4
        await at.append(buy(3), buy(4))
        at.notebook.fails = [RefusedError("TOO_LATE")]
        assert await at.work() == []
        assert await at.outbox.states(PROJECT, "fires") == {
            (ActionState.DONE, ""): 1,
            (ActionState.DEAD, "TOO_LATE"): 1,
        }
        await at.append(buy(5), buy(6))
        at.notebook.fails = [LaterError("UNAVAILABLE")] * 12
        for _ in range(12):
            at.clock.advance(4_000 * SECOND_US)
            await at.work()
        assert (await at.outbox.states(PROJECT, "fires"))[(ActionState.DEAD, "UNAVAILABLE")] == 1


async def test_a_property_is_withdrawn_only_after_it_was_set(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        await at.rules.create(PROJECT, [replace(TWICE, count=Condition(Operator.EQUAL, Decimal(2)))])
        await at.append(buy(1), buy(2), buy(3))
        at.notebook.fails = [LaterError("UNAVAILABLE")]
        assert await at.work() == []
        at.clock.advance(2 * SECOND_US)
        assert await at.work() == [("set_property", "u", "buy"), ("unset_property", "u", "buy")]


async def test_nothing_is_done_for_whom_consent_says_no(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        at.notebook.refusers = {"no"}
        await at.rules.create(PROJECT, [FIRES, TWICE, HOOK])
        await at.append(buy(1, "no"), buy(2, "no"), buy(3, "yes"), buy(4, "yes"))
        assert {user for _, user, _ in await at.work()} == {"yes"}
        for rule in ("fires", "twice", "hook"):
            assert (await at.outbox.states(PROJECT, rule))[(ActionState.SUPPRESSED, "NO_CONSENT")] == 1


@pytest.mark.parametrize(
    ("limits", "suppressed"),
    [(Limits(once_per_user=True), "ONCE_PER_USER"), (Limits(cooldown_us=60 * SECOND_US), "COOLDOWN")],
)
async def test_users_are_not_bothered_again(tmp_path: Path, limits: Limits, suppressed: str) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        await at.rules.create(PROJECT, [replace(FIRES, limits=limits)])
        await at.append(*(buy(i) for i in range(1, 5)))
        assert len(await at.work()) == 1
        assert (await at.outbox.states(PROJECT, "fires"))[(ActionState.SUPPRESSED, suppressed)] == 1
        at.clock.advance(61 * SECOND_US)
        await at.append(buy(5, offset=60 * SECOND_US), buy(6, offset=60 * SECOND_US))
        assert len(await at.work()) == (1 if limits.cooldown_us else 0)


async def test_quiet_hours_and_the_rate_of_a_rule_make_actions_wait(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        # NOW_US is 22:13:20 UTC.
        quiet = Limits(quiet_hours=QuietHours("22:00", "06:30", "UTC"))
        await at.rules.create(PROJECT, [replace(FIRES, limits=quiet), replace(HOOK, limits=Limits(per_hour=1))])
        await at.append(*(buy(i) for i in range(1, 5)))
        assert await at.work() == [("webhook", "u", "https://example.org/hook")]
        at.clock.advance(8 * 3_600 * SECOND_US)
        assert [effect for effect, _, _ in await at.work()] == ["webhook"]
        at.clock.advance(17 * 60 * SECOND_US)
        assert [effect for effect, _, _ in await at.work()] == ["fire_event", "fire_event"]


async def test_a_forgotten_users_actions_are_gone(tmp_path: Path) -> None:
    async with scene(tmp_path, MemoryLog(), MemoryBlobStore()) as at:
        await at.rules.create(PROJECT, [FIRES])
        await at.append(buy(1), buy(2))
        assert await at.outbox.forget(PROJECT, "user_id", "u") == 1
        assert await at.work() == []


async def test_an_erased_user_is_in_no_state_outbox_or_snapshot(tmp_path: Path) -> None:
    log, blobs = MemoryLog(), MemoryBlobStore()
    async with scene(tmp_path, log, blobs) as at:
        await at.rules.create(PROJECT, [FIRES, TWICE])
        await at.append(buy(1, "secret"), buy(2, "secret"), buy(3, "other"))
        subject = erasing.subject_hash(PROJECT, "user_id", "secret")
        data = {"attribute_key": "user_id", "subject": subject}
        at_us = NOW_US + 5 * SECOND_US
        mark = EventRow("m", erasing.MARKER_NAME, at_us, at_us, {}, RESERVED_VENDOR, erasing.VERSION, data=data)
        await at.append(mark, buy(6, "other"))
        assert {user for _, user, _ in await at.work()} == {"other"}
        project = await at.rules.project(PROJECT)
        assert project.serving().results("secret") == []
    for info in await blobs.list("rules/"):
        with np.load(io.BytesIO(await blobs.get(info.key))) as file:
            assert all(b"secret" not in file[name].tobytes() for name in file.files)
