"""The insights of one project: what may be created, changed and deleted, and whether their queries are right."""

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from services.insights.definitions import Insight, is_id, parse_name
from services.insights.engine.plan import Plan, plan
from services.insights.language.check import check_query
from services.insights.language.diagnostics import Diagnostic, QueryError
from services.insights.language.tree import CheckedQuery, Dialect, selected_sources
from services.insights.sources import Catalogue, SourceReader
from services.insights.store import InsightStore, Request
from services.runtime.clocks import Clock
from services.runtime.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Violation

MAX_DESCRIPTION = 4_096
MAX_INSIGHTS = 10_000


@dataclass(frozen=True, slots=True)
class Checked:
    """An insight whose query is right, with how it is evaluated."""

    insight: Insight
    query: CheckedQuery
    plan: Plan


class Catalog:
    """A project's insights. Changes are made one after the other."""

    def __init__(
        self, project: str, store: InsightStore, sources: SourceReader, clock: Clock, *, unbounded_is_error: bool
    ) -> None:
        self.project = project
        self.catalogue = Catalogue({})
        """The sources as they were last read."""
        self._store = store
        self._sources = sources
        self._clock = clock
        self._unbounded_is_error = unbounded_is_error
        self._insights: dict[str, Insight] = {}
        self._known: dict[tuple[str, Dialect], CheckedQuery] = {}
        self._deleted: dict[str, None] = {}
        self.lock = asyncio.Lock()

    async def load(self) -> None:
        """Reads the project's insights and sources."""
        self._insights = {insight.insight_id: insight for insight in await self._store.all(self.project)}
        await self.read_sources()

    async def read_sources(self) -> Catalogue:
        """The sources as they are declared now. Raises Unavailable."""
        before, self.catalogue = self.catalogue, await self._sources.read(self.project)
        if before.schemas != self.catalogue.schemas:
            self._known.clear()
        return self.catalogue

    # Looking up.

    @property
    def all(self) -> list[Insight]:
        """All insights, by id."""
        return [self._insights[insight_id] for insight_id in sorted(self._insights)]

    def streams(self) -> list[str]:
        """The streams of the journal of all insights, those deleted since the start included: they were withdrawn."""
        return [*self._insights, *self._deleted]

    def get(self, name: str) -> Insight:
        """The insight of a name; raises InvalidArgument or NotFound."""
        insight_id = parse_name(name)
        if insight_id is None:
            message = "must be insights/{insight}"
            raise InvalidArgument(message, reason="BAD_NAME", violations=[Violation("name", message, "BAD_NAME")])
        insight = self._insights.get(insight_id)
        if insight is None:
            raise NotFound(f"there is no {name}", reason="NOT_FOUND", metadata={"name": name})
        return insight

    def active(self) -> Mapping[str, tuple[Insight, Plan]]:
        """The active insights with their plans, by id; one whose sources are not there any more is left out."""
        found = {}
        for insight in self.all:
            if insight.active:
                try:
                    found[insight.insight_id] = (insight, self.plan(self.check(insight.query, insight.dialect)))
                except QueryError:
                    continue
        return found

    def check(self, query: str, dialect: Dialect) -> CheckedQuery:
        """A query over the project's sources; of an insight it is known, as a rule. Raises QueryError."""
        found = self._known.get((query, dialect))
        if found is None:
            found = check_query(query, self.catalogue.schemas, dialect)
            self._remember(found, self.catalogue)
        return found

    async def check_apart(self, query: str, dialect: Dialect) -> CheckedQuery:
        """The same beside the event loop: a long query takes a while. Raises QueryError."""
        found = self._known.get((query, dialect))
        if found is None:
            found = await asyncio.to_thread(check_query, query, self.catalogue.schemas, dialect)
        return found

    async def prepare(self) -> None:
        """Has the queries of all active insights checked beside the event loop."""
        for insight in self.all:
            if insight.active and (insight.query, insight.dialect) not in self._known:
                catalogue = self.catalogue
                with contextlib.suppress(QueryError):
                    self._remember(await self.check_apart(insight.query, insight.dialect), catalogue)

    def _remember(self, query: CheckedQuery, catalogue: Catalogue) -> None:
        """Keeps a query that was checked over a catalogue, if that is still how the sources are."""
        if catalogue.schemas == self.catalogue.schemas:
            if len(self._known) >= 2 * MAX_INSIGHTS:
                self._known.clear()
            self._known[query.text, query.dialect] = query

    def known(self, insight: Insight) -> Checked:
        """An insight with its query, which is right."""
        query = self.check(insight.query, insight.dialect)
        return Checked(insight, query, self.plan(query))

    def key_of(self, query: CheckedQuery) -> str:
        """The attribute key of the customers that a query is about."""
        return self.catalogue.bindings[query.source].attribute_key

    def about(self, insight: Insight) -> str | None:
        """The attribute key of an insight; None when its sources are not there any more."""
        try:
            return self.key_of(self.check(insight.query, insight.dialect))
        except QueryError:
            return None

    def plan(self, query: CheckedQuery) -> Plan:
        """How a query is evaluated. Raises QueryError when it reads sources about different attribute keys."""
        return plan(query, self.catalogue.schemas)

    async def checked(self, query: str, dialect: Dialect, field: str) -> tuple[CheckedQuery, Plan]:
        """A query that may be made an insight, and how it is evaluated. Raises InvalidArgument with every mistake."""
        catalogue = await self.read_sources()
        check = partial(check_query, query, catalogue.schemas, dialect, unbounded_is_error=self._unbounded_is_error)
        try:
            found = await asyncio.to_thread(check)
        except QueryError as error:
            raise refused(error.errors, field) from None
        keys = {catalogue.bindings[name].attribute_key for name in selected_sources(found)}
        if len(keys) > 1:
            message = f"the sources are about different keys: {', '.join(sorted(keys))}; read sources of one"
            raise InvalidArgument(message, reason="BAD_QUERY", violations=[Violation(field, message, "E_DATASOURCE")])
        return found, plan(found, catalogue.schemas)

    # Changing: under `lock`.

    async def create(self, insight: Insight, request: Request | None, *, validate_only: bool) -> tuple[Checked, bool]:
        """Makes an insight; the same request again answers with it as it is. Says whether it is new."""
        repeated = await self._store.repeated(self.project, request)
        if repeated is not None and repeated in self._insights:
            return self.known(self._insights[repeated]), False
        insight_id = insight.insight_id or uuid.uuid4().hex
        if not is_id(insight_id):
            message = "must match [a-z0-9][a-z0-9_-]{0,63}"
            raise InvalidArgument(message, reason="BAD_NAME", violations=[Violation("insight_id", message, "BAD_NAME")])
        _check_description(insight)
        query, planned = await self.checked(insight.query, insight.dialect, "insight.query")
        if insight_id in self._insights:
            raise AlreadyExists("there is an insight of this id: update it", reason="ALREADY_EXISTS")
        if len(self._insights) >= MAX_INSIGHTS:
            raise InvalidArgument(f"a project has at most {MAX_INSIGHTS:,} insights", reason="TOO_MANY")
        now_us = self._clock.now_us()
        made = replace(insight, insight_id=insight_id, version=1, create_time_us=now_us, update_time_us=now_us)
        if not validate_only:
            self._remember(query, self.catalogue)
            await self._store.add(self.project, made, request)
            self._insights[insight_id] = made
            self._deleted.pop(insight_id, None)
        return Checked(made, query, planned), not validate_only

    async def update(self, changed: Insight, etag: str, *, validate_only: bool) -> Checked:
        """Changes an insight; another query or dialect makes a new version."""
        before = self.get(changed.name)
        if etag and etag != before.etag:
            raise Aborted("the insight was changed meanwhile: read it again, then change it", reason="ETAG_MISMATCH")
        _check_description(changed)
        query, planned = await self.checked(changed.query, changed.dialect, "insight.query")
        new_version = (changed.query, changed.dialect) != (before.query, before.dialect)
        if changed == before:
            return Checked(before, query, planned)
        # Two changes within a microsecond must not look like one.
        now_us = max(self._clock.now_us(), before.update_time_us + 1)
        after = replace(changed, version=before.version + new_version, update_time_us=now_us)
        if not validate_only:
            self._remember(query, self.catalogue)
            await self._store.replace(self.project, after, new_version=new_version)
            self._insights[after.insight_id] = after
        return Checked(after, query, planned)

    async def delete(self, insight_ids: list[str]) -> None:
        """Deletes insights with all their versions."""
        await self._store.delete(self.project, insight_ids)
        for insight_id in insight_ids:
            self._insights.pop(insight_id, None)
            self._deleted[insight_id] = None


def refused(errors: tuple[Diagnostic, ...], field: str) -> InvalidArgument:
    """The refusal of a query, with a violation for each mistake: its place, what is wrong, and a hint."""
    violations = [Violation(field, str(error), error.code.value) for error in errors[:25]]
    return InvalidArgument("the query is not right", reason="BAD_QUERY", violations=violations)


def fingerprint(*parts: object) -> str:
    """A hash of what a request asks for."""
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()


def _check_description(insight: Insight) -> None:
    if len(insight.description) > MAX_DESCRIPTION:
        message = f"has at most {MAX_DESCRIPTION:,} characters"
        violation = Violation("insight.description", message, "OUT_OF_RANGE")
        raise InvalidArgument(message, reason="OUT_OF_RANGE", violations=[violation])
