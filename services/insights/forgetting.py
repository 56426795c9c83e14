"""Insights' part of an erasure: what is kept beside the log forgets the subject too."""

from services.insights.project import Project
from services.insights.projects import Projects
from services.insights.rules.service import Rules
from services.runtime.database import Database
from services.runtime.erasures import Erased
from services.runtime.errors import Unavailable


class Forgetter:
    """Forgets subjects of all projects: insights and rules."""

    def __init__(self, projects: Projects, rules: Rules, database: Database) -> None:
        self._projects = projects
        self._rules = rules
        self._database = database

    async def hold(self, project_name: str, attribute_key: str, value: str) -> int:
        """Rules do nothing more for a subject until it is forgotten: what they fire would be written after the marker.

        Returns how many actions of rules are deleted.
        """
        await self._rules.outbox.hold(project_name, attribute_key, value)
        return await self._rules.outbox.forget(project_name, attribute_key, value)

    async def forget(
        self, project_name: str, attribute_key: str, value: str, position: int, seconds: float
    ) -> list[Erased]:
        """Leaves nothing of a subject whose erasure is in the log up to a position; returns what there was.

        Doing it again is no error. Raises DeadlineExceeded and Unavailable: then it is to be asked for again.
        """
        project = await self._projects.get(project_name)
        if project.follows:
            await project.current(position, seconds)
        changes = await self._forget_changes(project, attribute_key, value)
        snapshots = await project.renew_snapshots()
        actions, rule_snapshots = await self._rules.forget(project_name, attribute_key, value, position, seconds)
        await self._database.scrub()
        return [
            Erased("insight_changes", changes, "changes told"),
            Erased("insight_snapshots", snapshots, "snapshots of before, deleted"),
            Erased("rule_actions", actions, "actions of rules"),
            Erased("rule_snapshots", rule_snapshots, "snapshots of before, deleted"),
        ]

    async def _forget_changes(self, project: Project, attribute_key: str, value: str) -> int:
        async with project.changing():
            pass
        if project.follows and not project.told_all:
            raise Unavailable("changes wait to be told: try again", reason="NOT_READY")
        # Insights that are no more may have been about any key.
        others = {each.insight_id for each in project.catalog.all if project.catalog.about(each) != attribute_key}
        streams = set(await project.journal.streams_of(project.name, value)) - others
        return await project.journal.forget(project.name, value, streams) if streams else 0
