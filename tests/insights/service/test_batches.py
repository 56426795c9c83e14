"""An insight about many customers at many instants: what was known by then, as it is known now."""

import grpc
import pytest

from inkling.insights.v1 import insight_pb2
from inkling.insights.v1 import insight_service_pb2 as messages
from services.insights.messages import timestamp
from services.kernel.columns import DELETE
from tests.features.memory_log import NOW_US, MemoryLog
from tests.insights.service.serving import DAY_US, Client, transaction


def request(*pairs: tuple[str, int], **more: object) -> messages.BatchEvaluateInsightRequest:
    asked = [messages.CustomerInstant(customer=customer, instant_time=timestamp(at)) for customer, at in pairs]
    return messages.BatchEvaluateInsightRequest(name="insights/gambler", pairs=asked, **more)  # type: ignore[arg-type]


async def states(client: Client, *pairs: tuple[str, int], position: int = 0) -> list[str]:
    found = await client.insights.BatchEvaluateInsight(request(*pairs, min_position=position))
    return [insight_pb2.State.Name(each).removeprefix("STATE_") for each in found.states]


async def test_each_pair_sees_what_had_happened_by_its_instant(client: Client, log: MemoryLog) -> None:
    await client.create()
    bet = NOW_US - 100 * DAY_US
    position = await log.append(
        transaction(1, "ada", bet),
        transaction(2, "bob", bet),
        transaction(2, "bob", bet, revision=1, operation=DELETE),
        transaction(3, "bob", NOW_US - DAY_US),
    )
    pairs = [
        *(("ada", at) for at in (bet - 1, bet, bet + 5 * DAY_US, bet + 40 * DAY_US, bet)),
        *(("bob", at) for at in (bet, NOW_US - DAY_US - 1, NOW_US)),
        ("nobody", NOW_US),
    ]
    expected = ["NOT", "APPLIES", "APPLIES", "NOT", "APPLIES", "NOT", "NOT", "APPLIES", "NOT"]
    assert await states(client, *pairs, position=position) == expected
    # Without a pair it says whether it could be asked.
    found = await client.insights.BatchEvaluateInsight(request())
    assert (list(found.states), found.position, found.version) == ([], position, 1)


async def test_what_cannot_be_answered_is_refused(client: Client) -> None:
    await client.create()
    wrong = (
        (messages.BatchEvaluateInsightRequest(name="insights/other"), grpc.StatusCode.NOT_FOUND),
        (request(attribute_key="user_id"), grpc.StatusCode.INVALID_ARGUMENT),
        (request(("", NOW_US)), grpc.StatusCode.INVALID_ARGUMENT),
        (request(*[("ada", NOW_US)] * 10_001), grpc.StatusCode.INVALID_ARGUMENT),
    )
    for each, code in wrong:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.insights.BatchEvaluateInsight(each)
        assert caught.value.code() is code
