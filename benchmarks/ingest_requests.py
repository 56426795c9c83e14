"""Requests as clients send them: events with 8 properties and 2 keys, about 320 bytes each."""

from random import Random

from inkling.ingest.v1.ingest_service_pb2 import IngestRequest

START_US = 1_760_000_000_000_000


def request(events: int, seed: int = 0) -> IngestRequest:
    """A batch of page views and purchases with ids of their own."""
    random = Random(seed)
    made = IngestRequest()
    for _ in range(events):
        event = made.events.add(event_id=f"{random.getrandbits(128):032x}")
        event.type.vendor, event.type.version = "com.example", "1-0-0"
        event.type.name = random.choice(["page_view", "purchase", "add_to_cart"])
        event.occurred_at.FromMicroseconds(START_US + random.randrange(10**12))
        event.keys["user_id"] = f"user-{random.randrange(10_000):06d}"
        event.keys["session_id"] = f"{random.getrandbits(64):016x}"
        properties = event.properties
        properties["page_url"].string_value = f"https://shop.example.com/p/{random.randrange(500)}"
        properties["referrer"].string_value = random.choice(["google", "bing", "direct", "mail"])
        properties["country"].string_value = random.choice(["DE", "FR", "US", "GB", "IT"])
        properties["device"].string_value = random.choice(["ios", "android", "web"])
        properties["amount"].double_value = random.random() * 100
        properties["score"].double_value = random.random()
        properties["quantity"].int_value = random.randrange(5)
        properties["new_customer"].bool_value = random.random() < 0.5
    return made
