"""The synchronous face: the same sections for scripts, run on one loop in a background thread.

Nothing is written twice: a face lists the coroutines that it makes blocking, and their signatures carry over.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, overload

from inkling.client.asynchronous import HOST, AsyncClient
from inkling.client.batching import BatchOptions
from inkling.client.collections import AsyncCollections
from inkling.client.datasets import AsyncDatasets
from inkling.client.dead_letters import AsyncDeadLetters
from inkling.client.definitions import AsyncDefinitions
from inkling.client.events import AsyncEvents
from inkling.client.exports import AsyncExports
from inkling.client.history import AsyncHistory
from inkling.client.insights import AsyncInsights
from inkling.client.profiles import AsyncProfiles
from inkling.client.project import AsyncProject
from inkling.client.properties import AsyncProperties
from inkling.client.rules import AsyncRules
from inkling.client.segments import AsyncSegments
from inkling.client.subjects import AsyncSubjects
from inkling.client.transport import RetryPolicy, TlsFiles
from inkling.errors import ClientClosed

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


class LoopThread:
    """One event loop in a daemon thread, and ways to wait for what runs on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inkling-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Runs a coroutine to its end; an interrupt (Ctrl-C) cancels it."""
        if not self._thread.is_alive():
            work.close()
            raise ClientClosed("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[R]) -> Iterator[R]:
        """Yields what an asynchronous iterator yields; leaving the loop early closes it."""
        try:
            while True:
                try:
                    following = self.run(self._next(source))
                except StopAsyncIteration:
                    return
                yield following
        finally:
            aclose = getattr(source, "aclose", None)
            if aclose is not None:
                with contextlib.suppress(ClientClosed):
                    self.run(aclose())

    def stop(self) -> None:
        """Ends the thread; what still ran is cancelled."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @staticmethod
    async def _next(source: AsyncIterator[R]) -> R:
        return await anext(source)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Face(Generic[S]):
    """The synchronous side of one section."""

    def __init__(self, section: S, thread: LoopThread) -> None:
        self.section = section
        self.thread = thread


class blocking(Generic[S, P, R]):  # noqa: N801  (used like `property`)
    """A coroutine method as a blocking one, with the same arguments."""

    def __init__(self, method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, face: None, owner: type) -> Self: ...
    @overload
    def __get__(self, face: Face[Any], owner: type) -> Callable[P, R]: ...
    def __get__(self, face: Face[Any] | None, owner: type) -> Self | Callable[P, R]:
        if face is None:
            return self

        @functools.wraps(self.method)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return face.thread.run(self.method(face.section, *args, **kwargs))

        return call


class iterating(Generic[S, P, R]):  # noqa: N801
    """A method that gives an asynchronous iterator as one that gives an iterator, with the same arguments."""

    def __init__(self, method: Callable[Concatenate[S, P], AsyncIterator[R]]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, face: None, owner: type) -> Self: ...
    @overload
    def __get__(self, face: Face[Any], owner: type) -> Callable[P, Iterator[R]]: ...
    def __get__(self, face: Face[Any] | None, owner: type) -> Self | Callable[P, Iterator[R]]:
        if face is None:
            return self

        @functools.wraps(self.method)
        def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
            return face.thread.iterate(self.method(face.section, *args, **kwargs))

        return call


class Events(Face[AsyncEvents]):
    """Writes to the project's log."""

    send = blocking(AsyncEvents.send)
    flush = blocking(AsyncEvents.flush)
    ingest = blocking(AsyncEvents.ingest)
    stream = iterating(AsyncEvents.stream)
    import_csv = blocking(AsyncEvents.import_csv)


class Collections(Face[AsyncCollections]):
    """Declares what events look like."""

    create = blocking(AsyncCollections.create)
    get = blocking(AsyncCollections.get)
    list = blocking(AsyncCollections.list)
    update = blocking(AsyncCollections.update)


class DeadLetters(Face[AsyncDeadLetters]):
    """Looks after refused events."""

    list = iterating(AsyncDeadLetters.list)
    get = blocking(AsyncDeadLetters.get)
    replay = blocking(AsyncDeadLetters.replay)
    purge = blocking(AsyncDeadLetters.purge)


class Project(Face[AsyncProject]):
    """Reads and changes the project's settings."""

    get = blocking(AsyncProject.get)
    set = blocking(AsyncProject.set)


class Definitions(Face[AsyncDefinitions]):
    """The project's attribute groups and feature services."""

    plan = blocking(AsyncDefinitions.plan)
    apply = blocking(AsyncDefinitions.apply)
    wait = blocking(AsyncDefinitions.wait)
    publish = blocking(AsyncDefinitions.publish)
    export = blocking(AsyncDefinitions.export)
    get_group = blocking(AsyncDefinitions.get_group)
    list_groups = blocking(AsyncDefinitions.list_groups)
    delete_group = blocking(AsyncDefinitions.delete_group)
    get_service = blocking(AsyncDefinitions.get_service)
    list_services = blocking(AsyncDefinitions.list_services)
    delete_service = blocking(AsyncDefinitions.delete_service)


class Profiles(Face[AsyncProfiles]):
    """What is known of a key, now."""

    get = blocking(AsyncProfiles.get)
    batch_get = blocking(AsyncProfiles.batch_get)
    watch = iterating(AsyncProfiles.watch)


class History(Face[AsyncHistory]):
    """What was known of a key, and why."""

    list = iterating(AsyncHistory.list)
    at = blocking(AsyncHistory.at)
    range = blocking(AsyncHistory.range)
    explain = blocking(AsyncHistory.explain)


class Exports(Face[AsyncExports]):
    """Files of profiles."""

    create = blocking(AsyncExports.create)
    list = iterating(AsyncExports.list)
    delete = blocking(AsyncExports.delete)
    download = blocking(AsyncExports.download)


class Properties(Face[AsyncProperties]):
    """The project's properties and roll-ups."""

    declare = blocking(AsyncProperties.declare)
    declare_many = blocking(AsyncProperties.declare_many)
    get = blocking(AsyncProperties.get)
    list = blocking(AsyncProperties.list)
    update = blocking(AsyncProperties.update)
    delete = blocking(AsyncProperties.delete)
    set = blocking(AsyncProperties.set)
    stream = iterating(AsyncProperties.stream)
    set_many = blocking(AsyncProperties.set_many)
    declare_rollup = blocking(AsyncProperties.declare_rollup)
    list_rollups = blocking(AsyncProperties.list_rollups)
    delete_rollup = blocking(AsyncProperties.delete_rollup)


class Datasets(Face[AsyncDatasets]):
    """The project's training sets."""

    create = blocking(AsyncDatasets.create)
    check = blocking(AsyncDatasets.check)
    get = blocking(AsyncDatasets.get)
    list = iterating(AsyncDatasets.list)
    delete = blocking(AsyncDatasets.delete)
    cancel = blocking(AsyncDatasets.cancel)
    upload_rows = blocking(AsyncDatasets.upload_rows)
    download = blocking(AsyncDatasets.download)


class Segments(Face[AsyncSegments]):
    """The project's segments."""

    create = blocking(AsyncSegments.create)
    get = blocking(AsyncSegments.get)
    list = iterating(AsyncSegments.list)
    update = blocking(AsyncSegments.update)
    delete = blocking(AsyncSegments.delete)
    preview = blocking(AsyncSegments.preview)
    members = iterating(AsyncSegments.members)
    check = blocking(AsyncSegments.check)
    watch = iterating(AsyncSegments.watch)


class Insights(Face[AsyncInsights]):
    """The project's insights."""

    create = blocking(AsyncInsights.create)
    validate = blocking(AsyncInsights.validate)
    get = blocking(AsyncInsights.get)
    list = iterating(AsyncInsights.list)
    update = blocking(AsyncInsights.update)
    activate = blocking(AsyncInsights.activate)
    deactivate = blocking(AsyncInsights.deactivate)
    delete = blocking(AsyncInsights.delete)
    delete_all = blocking(AsyncInsights.delete_all)
    of = blocking(AsyncInsights.of)
    evaluate = blocking(AsyncInsights.evaluate)
    explain = blocking(AsyncInsights.explain)
    plan = blocking(AsyncInsights.plan)
    dry_run = blocking(AsyncInsights.dry_run)
    templates = blocking(AsyncInsights.templates)
    render = blocking(AsyncInsights.render)
    watch = iterating(AsyncInsights.watch)


class Rules(Face[AsyncRules]):
    """The project's rules."""

    create = blocking(AsyncRules.create)
    get = blocking(AsyncRules.get)
    list = iterating(AsyncRules.list)
    versions = iterating(AsyncRules.versions)
    update = blocking(AsyncRules.update)
    activate = blocking(AsyncRules.activate)
    delete = blocking(AsyncRules.delete)
    import_table = blocking(AsyncRules.import_table)
    export_table = blocking(AsyncRules.export_table)
    results = blocking(AsyncRules.results)
    statistics = blocking(AsyncRules.statistics)
    actions = iterating(AsyncRules.actions)
    back_test = blocking(AsyncRules.back_test)
    webhook_secret = blocking(AsyncRules.webhook_secret)


class Subjects(Face[AsyncSubjects]):
    """Erases what the suite holds of subjects."""

    erase = blocking(AsyncSubjects.erase)
    receipt = blocking(AsyncSubjects.receipt)


class Client(Face[AsyncClient]):
    """The client for scripts: the same as `AsyncClient`, without `await`. Safe to use from several threads.

    with Client("127.0.0.1", api_key=...) as client:
        print(client.profiles.get("4711", service="shop").values)
    """

    def __init__(
        self,
        host: str = HOST,
        *,
        api_key: str = "",
        ingest: str = "",
        features: str = "",
        insights: str = "",
        timeout: timedelta = timedelta(seconds=30),
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        compression: Literal["gzip"] | None = None,
        tls: TlsFiles | None = None,
        batching: BatchOptions = BatchOptions(),  # noqa: B008  (frozen)
    ) -> None:
        client = AsyncClient(
            host,
            api_key=api_key,
            ingest=ingest,
            features=features,
            insights=insights,
            timeout=timeout,
            retry=retry,
            compression=compression,
            tls=tls,
            batching=batching,
        )
        super().__init__(client, LoopThread())
        self.events = Events(client.events, self.thread)
        self.collections = Collections(client.collections, self.thread)
        self.dead_letters = DeadLetters(client.dead_letters, self.thread)
        self.project = Project(client.project, self.thread)
        self.definitions = Definitions(client.definitions, self.thread)
        self.profiles = Profiles(client.profiles, self.thread)
        self.history = History(client.history, self.thread)
        self.exports = Exports(client.exports, self.thread)
        self.properties = Properties(client.properties, self.thread)
        self.segments = Segments(client.segments, self.thread)
        self.subjects = Subjects(client.subjects, self.thread)
        self.datasets = Datasets(client.datasets, self.thread)
        self.insights = Insights(client.insights, self.thread)
        self.rules = Rules(client.rules, self.thread)

    publish = blocking(AsyncClient.publish)
    test = blocking(AsyncClient.test)
    get_service_attributes = blocking(AsyncClient.get_service_attributes)
    get_group_attributes = blocking(AsyncClient.get_group_attributes)

    def close(self) -> None:
        """Delivers what waits in the buffer, closes the channels and ends the thread."""
        try:
            with contextlib.suppress(ClientClosed):
                self.thread.run(self.section.close())
        finally:
            self.thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Signals(Client):
    """The client under the name and with the arguments of the Signals SDK (004), reads and definitions only.

    `api_url` is the address of the features service; the project comes with the key, so that the id of the key and
    the organisation are taken and not needed.
    """

    def __init__(self, *, api_url: str, api_key: str, api_key_id: str = "", org_id: str = "") -> None:
        super().__init__(api_key=api_key, features=api_url.removeprefix("http://"))
