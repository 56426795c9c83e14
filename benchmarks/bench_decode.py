"""What it costs to turn a request into what the log stores: `python -m benchmarks.bench_decode`.

Each step's CPU time, in microseconds an event, by events in a request. The floors, from the same run, do less: the
protobuf library only parses the messages; ptars only turns them into nested Arrow maps, which would still have to be
checked, pivoted into columns and encoded. `malformed` is a request with one event in a hundred that must be judged by
the protobuf library. Medians of interleaved rounds.
"""

import time
from collections.abc import Callable

import ptars

from benchmarks.ingest_requests import request
from benchmarks.tables import Table, median_of
from inkling.ingest.v1 import ingest_service_pb2
from inkling.ingest.v1.ingest_service_pb2 import IngestRequest
from services.ingest.admission import TimeRules, judge
from services.ingest.decode import Decoder, Part
from services.ingest.pivot import pivot
from services.ingest.schemas import Schemas

ANY_TIME = TimeRules(0, 2**62)
ROUNDS = 15


def steps(events: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    content = request(events)
    data = content.SerializeToString()
    spoiled = content.__class__.FromString(data)
    for event in spoiled.events[::100]:
        event.event_id = ""
    spoiled_data = spoiled.SerializeToString()
    decoder, schemas = Decoder(1), Schemas()
    scanned = decoder.scan([Part(data)])
    kept = judge(scanned, ANY_TIME).admitted
    (batch,) = pivot(scanned, kept, 1, schemas)
    handler = ptars.HandlerPool([ingest_service_pb2.DESCRIPTOR]).get_for_message(IngestRequest.DESCRIPTOR)

    def everything(payload: bytes) -> None:
        scanned = decoder.scan([Part(payload)])
        for batch in pivot(scanned, judge(scanned, ANY_TIME).admitted, 1, schemas):
            batch.to_ipc()

    def fresh() -> None:
        # The pivot writes codes into the tables: each round needs its own.
        pivot(decoder.scan([Part(data)]), kept, 1, schemas)

    return {
        "scan": lambda: decoder.scan([Part(data)]),
        "admit": lambda: judge(scanned, ANY_TIME),
        "scan and pivot": fresh,
        "ipc": batch.to_ipc,
        "all of it": lambda: everything(data),
        "1 % refused": lambda: everything(spoiled_data),
        "floor: protobuf": lambda: IngestRequest.FromString(data),
        "floor: ptars": lambda: handler.list_to_record_batch([data]),
    }


def measure(events: int, rounds: int) -> dict[str, float]:
    """Microseconds an event, by step."""
    work = steps(events)
    times = {name: list[float]() for name in work}
    calls = max(1, 10_000 // events)
    for _ in range(rounds):
        for name, call in work.items():
            started = time.process_time()
            for _ in range(calls):
                call()
            times[name].append((time.process_time() - started) / calls / events * 1e6)
    return {name: median_of(values) for name, values in times.items()}


def run() -> list[Table]:
    """Measures and tabulates."""
    sizes = (1, 50, 500, 2_000, 10_000)
    results = {size: measure(size, ROUNDS) for size in sizes}
    table = Table("From request bytes to stored columns, CPU µs an event", [f"{size:,} a request" for size in sizes])
    for name in results[500]:
        table.add(name, *(results[size][name] for size in sizes))
    return [table]


if __name__ == "__main__":
    for each in run():
        each.print()
