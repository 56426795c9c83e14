"""Webhooks over real HTTP: signed, tried again when that may help, and not to private addresses unless allowed."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from services.insights.actions.clients import property_id
from services.insights.actions.delivery import LaterError, RefusedError
from services.insights.actions.outbox import ActionState, Outgoing
from services.insights.actions.webhooks import Webhooks, WebhookSecrets
from services.insights.rules.actions import Effect


class Receiver:
    """A server that keeps what it gets, and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}/hook?a=b"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


ACTION = Outgoing(
    sequence=1,
    project="p",
    action_id="rule:1:e000000001",
    rule_id="fires",
    version=2,
    user_key="user_id",
    user="ada",
    effect=Effect.WEBHOOK,
    name="",
    value=None,
    at_us=1_700_000_000_000_000,
    count=3,
    sum=0.5,
    state=ActionState.PENDING,
    reason="",
    attempts=0,
    create_time_us=1_700_000_001_000_000,
    done_time_us=None,
)
KEYS = WebhookSecrets(b"master")


async def test_a_call_is_signed_and_says_what_came_true(receiver: Receiver) -> None:
    async with httpx.AsyncClient() as http:
        await Webhooks(http, KEYS, allow_private=True).call(replace(ACTION, name=receiver.url))
    ((headers, body),) = receiver.got
    assert json.loads(body) == {
        "id": "rule:1:e000000001",
        "rule": "fires",
        "version": 2,
        "user_key": "user_id",
        "user": "ada",
        "instant": "2023-11-14T22:13:20Z",
        "count": 3,
        "sum": 0.5,
    }
    assert headers["host"] == receiver.url.split("/")[2]
    assert headers["inkling-delivery"] == ACTION.action_id
    expected = hmac.new(KEYS.of("p").encode(), b"1700000001." + body, hashlib.sha256).hexdigest()
    assert headers["inkling-signature"] == f"t=1700000001,v1={expected}"
    assert KEYS.of("p") != KEYS.of("q")


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (500, LaterError, "WEBHOOK_500"),
        (429, LaterError, "WEBHOOK_429"),
        (410, RefusedError, "WEBHOOK_410"),
        (302, RefusedError, "WEBHOOK_302"),
    ],
)
async def test_answers_say_whether_to_try_again(
    receiver: Receiver, status: int, error: type[Exception], reason: str
) -> None:
    receiver.statuses = [status]
    async with httpx.AsyncClient() as http:
        with pytest.raises(error, match=reason):
            await Webhooks(http, KEYS, allow_private=True).call(replace(ACTION, name=receiver.url))
    assert len(receiver.got) == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "0.0.0.0"])
async def test_private_addresses_are_not_called(host: str) -> None:
    async with httpx.AsyncClient() as http:
        with pytest.raises(RefusedError, match="WEBHOOK_PRIVATE_ADDRESS"):
            await Webhooks(http, KEYS).call(replace(ACTION, name=f"http://{host}/"))


async def test_nobody_there_is_tried_again(receiver: Receiver) -> None:
    async with httpx.AsyncClient() as http:
        webhooks = Webhooks(http, KEYS, allow_private=True)
        for url in ("http://127.0.0.1:1/", "http://nowhere.invalid/"):
            with pytest.raises(LaterError, match="WEBHOOK_UNREACHABLE"):
                await webhooks.call(replace(ACTION, name=url))


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    first = WebhookSecrets.open("", tmp_path / "data").of("p")
    assert WebhookSecrets.open("", tmp_path / "data").of("p") == first
    assert (tmp_path / "data" / "webhooks.key").stat().st_mode & 0o777 == 0o600


def test_names_that_are_no_property_get_one_that_is_and_stay_apart() -> None:
    assert property_id("trk_date_buy") == "trk_date_buy"
    odd = [property_id(name) for name in ("buy_C++", "buy_C--", "buy C--", "1", "é" * 300, "")]
    assert len(set(odd)) == len(odd)
    assert all(property_id(name) == name for name in odd)
