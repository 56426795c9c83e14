"""A process to be killed: appends to a log from several callers at once and says what was acknowledged.

`python -m tests.ingest.log.appender URL NAME` prints a line `PROJECT FIRST LAST SEED` for each acknowledged batch. The
batch of a seed is always the same bytes (`payload`).
"""

import asyncio
import hashlib
import itertools
import os
import sys

from services.ingest.log import EventLog, open_log

PROJECTS = ("shop", "bank", "game")


def payload(seed: str) -> tuple[bytes, int]:
    """The bytes and the number of events of a batch: from a few bytes to some hundred thousand."""
    digest = hashlib.sha256(seed.encode()).digest()
    return digest * (1 + digest[0] ** 2 // 8), 1 + digest[1]


async def caller(log: EventLog, name: str) -> None:
    """Appends without end."""
    for number in itertools.count():
        seed = f"{name}-{number}"
        data, count = payload(seed)
        project = PROJECTS[data[2] % len(PROJECTS)]
        first, last = await log.append(project, data, count, min_occurred_us=1, max_occurred_us=2, received_us=3)
        os.write(sys.stdout.fileno(), f"{project} {first} {last} {seed}\n".encode())


async def main(url: str, name: str) -> None:
    """Runs four callers."""
    async with open_log(url) as log:
        await asyncio.gather(*(caller(log, f"{name}-{i}") for i in range(4)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
