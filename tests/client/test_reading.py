"""Profiles are read with their statuses, and watched without end."""

import pytest

from inkling import AsyncClient, Status
from inkling.errors import NotFound
from tests.client.servers import Failure, Store


async def test_a_profile_has_values_and_statuses(client: AsyncClient) -> None:
    profile = await client.profiles.get("abc", service="shop")
    assert profile.values == {"length": 3, "missing": None}
    assert profile["length"] == 3
    assert profile.statuses == {"length": Status.PRESENT, "missing": Status.NEVER_SEEN}
    assert profile.position == 7


async def test_the_form_of_the_document_has_the_key_first(client: AsyncClient) -> None:
    values = await client.get_service_attributes(name="shop", attribute_key="user_id", identifier="abc")
    assert list(values.items()) == [("user_id", "abc"), ("length", 3), ("missing", None)]


async def test_many_profiles_come_in_the_order_asked(client: AsyncClient) -> None:
    keys = [str(number) for number in range(2_345)]
    assert [each.key_value for each in await client.profiles.batch_get(keys, service="shop")] == keys


async def test_an_unknown_service_is_not_found(client: AsyncClient, store: Store) -> None:
    import grpc

    store.failures.append(Failure(grpc.StatusCode.NOT_FOUND, "there is no service none", reason="NOT_FOUND"))
    with pytest.raises(NotFound, match="there is no service none"):
        await client.profiles.get("abc", service="none")


async def test_watching_resumes_after_what_was_seen(client: AsyncClient, store: Store) -> None:
    lengths = []
    async for changes in client.profiles.watch(["x"], service="shop", send_initial=True):
        lengths += [profile["length"] for profile in changes.profiles]
        if len(lengths) == 5:
            break
    assert lengths == [1, 2, 3, 4, 5]
    assert [request.resume_token for request in store.watched] == ["", "2", "4"]
    assert [request.send_initial for request in store.watched] == [True, False, False]
