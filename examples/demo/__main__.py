"""`make demo`: starts the services, loads CDNOW, publishes, reads, kills, recovers, measures, checks every value."""

import asyncio
import os
import sys
import tempfile
import time
from collections import deque
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from examples.demo import cdnow
from examples.demo.attributes import SERVICE, define
from examples.demo.cdnow import Purchase
from examples.demo.check import DifferenceError, compare, read_all, same
from examples.demo.figures import measure
from examples.demo.insights import LAPSED, SPREE
from examples.demo.living import LATER, Living
from examples.demo.screen import Screen
from inkling import AsyncClient, InklingError, RetryPolicy
from inkling.cli.suite import SERVICES, Suite, SuiteError
from inkling.client.operations import Progress as OperationProgress
from inkling.events import BatchResult
from services.runtime.auth import MIGRATIONS, KeyStore, Role
from services.runtime.database import Database

BATCH = 1_000


class Demo:
    """The steps, in order, over one suite and one client."""

    def __init__(self, screen: Screen, suite: Suite, client: AsyncClient, keys: dict[str, str]) -> None:
        self.screen = screen
        self.suite = suite
        self.client = client
        self.keys = keys
        self.purchases = cdnow.read(cdnow.find_file())
        self.customers = cdnow.by_customer(self.purchases)
        self.position = 0

    async def run(self) -> None:
        """All steps; DifferenceError when an answer is wrong."""
        await self.load()
        await self.read_live()
        await self.check()
        async with Living.opened(self.screen, self.client, self.customers) as living:
            await living.check()
            await living.explain(LAPSED)
            await living.explain(SPREE)
            await living.show()
            before, told = living.now, living.follower.told.copy()
            await self.let_time_pass()
            await living.let_time_pass(before, told)
            await living.buy_and_return()
            await living.survive(self.suite)
            self.position = max(self.position, living.position)
        await self.kill()
        await self.figures()

    async def load(self) -> None:
        """Half of the data, then the definitions while the other half streams."""
        screen = self.screen
        screen.step("Load real purchases in the order of time; publish attributes half-way")
        settings = await self.client.project.set(clock="log")
        screen.note(f"the project's clock is the [bold]{settings.clock}[/]: now is the time of the newest purchase")
        half = len(self.purchases) // 2
        with screen.progress() as bars:
            task = bars.add_task("streaming purchases", total=len(self.purchases), note="")

            async def stream(purchases: list[Purchase]) -> None:
                async for acknowledged in self.client.events.stream(
                    (each.to_event() for each in purchases), batch_size=BATCH
                ):
                    self.take(acknowledged)
                    bars.advance(task, acknowledged.result.accepted)

            await stream(self.purchases[:half])
            group, service = define()
            backfill = bars.add_task("backfilling 18 values", total=None, note="from the log")

            def show(progress: OperationProgress) -> None:
                bars.update(backfill, completed=progress.done, total=max(progress.total, 1), note=progress.stage)

            streaming = asyncio.create_task(stream(self.purchases[half:]))
            published = await self.client.definitions.apply(group, publish=True, wait=False)
            await self.client.definitions.apply(service)
            early = await self.client.profiles.get(self.purchases[0].customer, service=SERVICE)
            await self.client.definitions.wait(published, on_progress=show)
            bars.update(backfill, completed=half, total=half, note="done, while events kept coming")
            await streaming
        statuses = ", ".join(sorted({str(status) for status in early.statuses.values()}))
        screen.note(f"a read in the middle of it answered with status {statuses}")
        screen.good(f"{len(self.purchases):,} purchases of {len(self.customers):,} customers are in the log, durably")

    def take(self, acknowledged: BatchResult) -> None:
        """Remembers the position; no purchase may be refused."""
        if acknowledged.result.rejected:
            first = acknowledged.result.rejected[0]
            raise DifferenceError(f"{first.event_id} was refused: {first.message}")
        self.position = max(self.position, acknowledged.result.position)

    async def read_live(self) -> None:
        """Some profiles, with their statuses."""
        self.screen.step("Read profiles: each value says how it came about")
        by_size = sorted(self.customers, key=lambda customer: -len(self.customers[customer]))
        newest = self.purchases[-1].customer
        remarks = {
            by_size[0]: "who bought most often",
            newest: "who bought last: inside all windows",
            self.purchases[0].customer: "the first to buy: some windows are empty now",
            "nobody": "who never bought: nulls, never a silent 0",
        }
        for customer, remark in remarks.items():
            started = time.perf_counter()
            profile = await self.client.profiles.get(customer, service=SERVICE, min_position=self.position)
            taken = (time.perf_counter() - started) * 1_000
            assert profile.as_of_time is not None, "the log has events"
            self.screen.profile(profile, f"{remark} · as of {profile.as_of_time:%d %B %Y} · {taken:.1f} ms")

    async def check(self) -> None:
        """Every value of every customer against plain Python."""
        instant = cdnow.instant_after([each for bought in self.customers.values() for each in bought])
        self.screen.step(f"Check every value against plain Python, as of {instant:%d %B %Y}")
        profiles = await read_all(self.client, list(self.customers), self.position)
        compared = await compare(profiles, self.customers, instant)
        self.screen.good(f"{compared:,} values of {len(profiles):,} customers are equal, to the last bit")

    async def let_time_pass(self) -> None:
        """One more purchase, months later, moves the log's clock: everybody's windows move with it."""
        self.screen.step("Let time pass: one purchase in September moves the clock")
        purchase = Purchase(99_999, self.purchases[-1].customer, LATER, 1, 9.99)
        result = await self.client.events.ingest([purchase.to_event(), purchase.to_event()])
        self.position = max(self.position, result.position)
        self.customers[purchase.customer].append(purchase)
        self.screen.note("it was sent twice, as a client that retries would; it counts once")
        profile = await self.client.profiles.get(purchase.customer, service=SERVICE, min_position=self.position)
        self.screen.profile(profile, "the same customer, eleven weeks later: older purchases have left the windows")
        await self.check()

    async def kill(self) -> None:
        """SIGKILL, restart, the same answers."""
        self.screen.step("Kill features with SIGKILL, start it again, compare every answer")
        before = await read_all(self.client, list(self.customers), self.position)
        await self.suite.kill("features")
        self.screen.note("killed")
        started = time.monotonic()
        await self.suite.start_one("features")
        healthy = time.monotonic() - started
        after = await read_all(self.client, list(self.customers), self.position)
        self.screen.note(f"healthy again after {healthy:.1f} s, its state made again from what is on disk")
        self.screen.good(f"{same(before, after):,} readings, values, statuses and times, are the same")

    async def figures(self) -> None:
        """Figures beside floors; the events go to a project of their own."""
        self.screen.step("Measure, beside an echo server that gets the same bytes and does nothing")
        figures = await measure(
            self.suite.address("ingest"),
            self.suite.address("features"),
            self.keys["figures"],
            self.keys["default"],
            self.purchases,
            list(self.customers),
        )
        self.screen.figures(figures)


async def make_keys(data_dir: Path) -> dict[str, str]:
    """A key for each project, as `inkling keys create` makes them."""
    async with Database.open(f"sqlite:///{data_dir / 'auth.db'}", MIGRATIONS) as database:
        store = KeyStore(database)
        roles = [role for role in Role if role is not Role.SERVICE]
        return {project: (await store.create(project, roles))[1] for project in ("default", "figures")}


async def run(screen: Screen, data_dir: Path, lines: deque[str]) -> None:
    """Starts everything, runs the steps and stops everything; `lines` are the last of what the services print."""
    screen.step("Start the services as processes on this machine: SQLite and a folder, nothing else")
    screen.note("the first start on a machine compiles the kernel's loops: that may take half a minute")
    keys = await make_keys(data_dir)
    # Its own environment: whatever the caller has set for a suite of theirs is not meant for this one.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INKLING_")}
    ports = {spec.name: 0 for spec in SERVICES}
    async with Suite(
        data_dir, environ=environ, ports=ports, on_line=lambda name, line: lines.append(f"{name:<9} {line}")
    ) as suite:
        await suite.start()
        for name in suite.names:
            screen.note(f"{name:<9} {suite.address(name)}  pid {suite.pid(name)}")
        async with AsyncClient(
            api_key=keys["default"],
            ingest=suite.address("ingest"),
            features=suite.address("features"),
            insights=suite.address("insights"),
            retry=RetryPolicy(attempts=20),
            timeout=timedelta(seconds=60),
        ) as client:
            await Demo(screen, suite, client, keys).run()


def main() -> int:
    """Runs the demo: 0 when everything holds, 1 when not."""
    screen = Screen(Console(highlight=False))
    lines: deque[str] = deque(maxlen=40)
    screen.console.print("[bold]Inkling[/]: real purchases in, exact attributes out, through the running services")
    try:
        with tempfile.TemporaryDirectory(prefix="inkling-demo-") as folder:
            asyncio.run(run(screen, Path(folder), lines))
    except (DifferenceError, SuiteError, InklingError, FileNotFoundError, ValueError) as error:
        screen.console.print(f"\n[bold red]The demo failed:[/] {error}", markup=True)
        screen.console.print("\n".join(["What the services said last:", *lines]), markup=False)
        return 1
    screen.console.print(
        f"\n[bold green]All of it holds[/], after {screen.seconds:.0f} s. Next, type:\n\n"
        "  [bold]make up[/]                         the services, to stay; it prints a key\n"
        "  [bold]source .venv/bin/activate[/]       for the commands below\n"
        "  [bold]inkling ingest csv --help[/]       your own events\n"
        "  [bold]inkling definitions plan --help[/] your own attributes, before anything changes\n"
        "  [bold]inkling insights --help[/]         what you want to be told of your customers\n"
        "  [bold]less examples/demo/insights.py[/]  what you have just seen, as code\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
