"""Whoever is erased is nowhere: no file of the running suite holds the value, and nobody is served it."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from inkling import AtomicProperty, Attribute, AttributeKey, CustomerEvent, Event, Service, StreamAttributeGroup
from inkling.cli import make_app
from inkling.client import AsyncClient
from inkling.insights.v1 import rule_pb2
from services.ingest.archive import read_file
from services.insights.snapshots import decode
from services.kernel import snapshots
from tests.running import client_of, key_of, running_suite

VALUE = "ada.lovelace@example.org"
USER, ACCOUNT = AttributeKey(name="user_id"), AttributeKey(name="account_id")
SETTINGS = {
    "inkling_features_snapshot_events": "50",
    "inkling_features_snapshot_seconds": "0.2",
    "inkling_ingest_archive_flush_seconds": "0.3",
    "inkling_ingest_idle_seconds": "0.2",
}


def groups() -> list[StreamAttributeGroup]:
    """By user, with a text of theirs; and by account."""
    made = []
    for name, key in (("by_user", USER), ("by_account", ACCOUNT)):
        count = Attribute(name=f"{name}_buys", type="int32", events=[Event(name="buy")], aggregation="counter")
        mail = Attribute(
            name=f"{name}_mails",
            type="string_list",
            events=[Event(name="buy")],
            aggregation="unique_list",
            property=AtomicProperty(name="mail"),
        )
        made.append(
            StreamAttributeGroup(
                name=name, version=1, attribute_key=key, owner="me@example.org", attributes=[count, mail]
            )
        )
    return made


def event(number: int, user: str) -> CustomerEvent:
    """A purchase."""
    return CustomerEvent(
        name="buy",
        event_id=f"e{number}",
        occurred_at=datetime.now(UTC) - timedelta(minutes=number),
        keys={"user_id": user, "account_id": f"account-{number % 2}"},
        properties={"mail": user},
    )


def payment(number: int, customer: str) -> CustomerEvent:
    """A payment, whose description names the customer."""
    return CustomerEvent(
        vendor="bank",
        name="transaction",
        version="1-0-0",
        event_id=f"p{number}",
        occurred_at=datetime.now(UTC) - timedelta(minutes=number),
        keys={"customer_id": customer},
        properties={"amount": 30.0, "credit_debit_indicator": "debit", "merchant_name": f"shop of {customer}"},
    )


async def values(client: AsyncClient, key: AttributeKey, value: str, position: int = 0) -> list[object]:
    """The values of a key."""
    group = "by_user" if key is USER else "by_account"
    profile = await client.profiles.get(value, groups=[group], min_position=position, wait=timedelta(seconds=20))
    return list(profile.values.values())


async def members(client: AsyncClient) -> list[str]:
    """Who is in the segment."""
    return [each.key_value async for each in client.segments.members("buyers")]


def holding(folder: Path) -> list[Path]:
    """The files that hold the value, also in what they compress."""
    found = []
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        # Some are replaced by others meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if VALUE.encode() in content(path):
                found.append(path)
    return found


def content(path: Path) -> bytes:
    """The bytes of a file, and what it holds when it is decoded."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        data += repr(read_file(path).to_pylist()).encode()
    elif path.suffix == ".npz":
        with np.load(path) as file:
            data += b"".join(np.ascontiguousarray(file[name]).tobytes() for name in file.files)
    elif path.suffix == ".snap" and "insights" in path.parts:
        manifest, arrays = decode(data)
        data += repr(manifest).encode() + b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    elif path.suffix == ".snap":
        _, arrays = snapshots.freeze(snapshots.read(path))
        data += b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    return data


async def test_nothing_of_an_erased_subject_is_left_anywhere(tmp_path: Path) -> None:
    async with running_suite(tmp_path, **SETTINGS) as suite, client_of(suite, "shop") as client:
        await client.publish([*groups(), Service(name="all", owner="me@example.org", attribute_groups=groups()[:1])])
        await client.properties.declare("contact", "string", attribute_key="user_id")
        await client.properties.set(VALUE, {"contact": f"mailto:{VALUE}"}, attribute_key="user_id")
        await client.segments.create("buyers", "by_user_buys > 10", attribute_key="user_id")
        for number in range(200):
            await client.events.send(event(number, VALUE if number % 4 == 0 else f"user-{number % 7}"))
        sent = await client.events.flush()
        assert (await values(client, USER, VALUE, sent.position))[0] == 50
        assert (await values(client, ACCOUNT, "account-0"))[0] == 100
        stores = {".parquet", ".snap", ".db-wal"}
        while not stores <= {path.suffix for path in holding(tmp_path)}:  # noqa: ASYNC110 (files tell nobody)
            await asyncio.sleep(0.2)
        assert await members(client) == [VALUE, *(f"user-{n}" for n in range(7))]
        # One more that is not archived yet.
        await client.events.send(event(1000, VALUE))
        await client.events.flush()

        receipt = await client.subjects.erase("user_id", VALUE, request_id="ticket 1")
        assert receipt.stores["events"] == receipt.stores["log"] == 52
        assert receipt.stores["archive"] in (51, 52)
        assert receipt.stores["segments"] >= 1
        assert receipt.stores["snapshots"] >= 1
        assert json.loads(receipt.content_json)["subject"] == receipt.subject
        assert holding(tmp_path) == []

        assert await values(client, USER, VALUE) in ([None, None], [0, None], [0, []], [None, []])
        count, mails = await values(client, ACCOUNT, "account-0", receipt.position)
        assert count == 50
        assert VALUE not in mails
        assert await members(client) == [f"user-{n}" for n in range(7)]
        assert await client.subjects.receipt(receipt.name) == receipt

        await suite.kill("features")
        await suite.kill("ingest")
        await suite.start_one("ingest")
        await suite.start_one("features")
        assert holding(tmp_path) == []
        assert (await client.subjects.erase("user_id", VALUE, request_id="ticket 1")) == receipt

        # A new life, erased by the command.
        await client.events.send(event(2000, VALUE))
        sent = await client.events.flush()
        assert (await values(client, USER, VALUE, sent.position))[0] == 1
        file = tmp_path / "receipt.json"
        addresses = ["--ingest", suite.address("ingest"), "--features", suite.address("features")]
        command = ["--api-key", await key_of(tmp_path, "shop"), *addresses, "profile", "erase", f"user_id={VALUE}"]
        done = await asyncio.to_thread(
            CliRunner().invoke, make_app(), [*command, "--yes", "--receipt", str(file)], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        assert {each["store"]: each["count"] for each in json.loads(file.read_text())["stores"]}["events"] == 1
        assert holding(tmp_path) == []


async def test_insights_and_rules_forget_an_erased_customer_too(tmp_path: Path) -> None:
    names = ("ingest", "features", "insights")
    paced = {"inkling_insights_snapshot_events": "50", "inkling_insights_snapshot_seconds": "0.2"}
    async with running_suite(tmp_path, names=names, **SETTINGS, **paced) as suite, client_of(suite, "bank") as client:
        await client.insights.create("INFER spender FROM transactions HAVING SUM(amount) < -100", insight_id="spender")
        payments = [payment(number, VALUE if number % 4 == 0 else f"customer-{number % 7}") for number in range(60)]
        sent = await client.events.ingest(payments, wait_for_insights=timedelta(seconds=10))
        assert {each.customer for each in sent.changed_insights if each.state == "APPLIES"} >= {VALUE, "customer-1"}
        paid = rule_pb2.RuleCondition(operator=rule_pb2.RULE_OPERATOR_GREATER_OR_EQUAL, target="3")
        rule = rule_pb2.Rule(
            event_name="transaction",
            count=paid,
            user_key="customer_id",
            act_on_past=True,
            action=rule_pb2.RuleAction(fire_event=rule_pb2.FireEvent()),
        )
        await client.rules.create("payer", rule)
        while VALUE not in {each.user async for each in client.rules.actions()}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        # Its database, its snapshots, those of rules.
        while not {".snap", ".npz"} <= {path.suffix for path in holding(tmp_path)}:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        assert any(path.name.startswith("insights") for path in holding(tmp_path))

        receipt = await client.subjects.erase("customer_id", VALUE)
        assert receipt.stores["insight_changes"] >= 1
        assert receipt.stores["insight_snapshots"] >= 1
        assert receipt.stores["rule_actions"] == 1
        # Rules write theirs anew at the marker already.
        assert "rule_snapshots" in receipt.stores
        assert holding(tmp_path) == []

        await suite.kill("insights")
        await suite.start_one("insights")
        assert await client.insights.of(VALUE, min_position=receipt.position) == []
        others = await client.insights.of("customer-1", min_position=receipt.position)
        assert [each.state for each in others] == ["APPLIES"]
        results = await client.rules.results(VALUE, user_key="customer_id", min_position=receipt.position)
        assert not results.results
        assert VALUE not in {each.user async for each in client.rules.actions()}
        assert holding(tmp_path) == []
        # A new life.
        sent = await client.events.ingest([payment(100, VALUE)], wait_for_insights=timedelta(seconds=10))
        assert sent.insights_evaluated
        assert [each.state for each in await client.insights.of(VALUE)] == ["NOT"]
