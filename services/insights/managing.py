"""Creates, changes and deletes insights, in the store and where they are kept true."""

from dataclasses import replace

from services.insights.catalog import Checked
from services.insights.definitions import Insight
from services.insights.project import Project
from services.insights.projects import Projects
from services.insights.store import Request
from services.runtime.errors import Aborted


class Manager:
    """Changes the insights of all projects."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def create(
        self, project_name: str, insight: Insight, request: Request | None, *, validate_only: bool
    ) -> Checked:
        """Makes an insight; an active one is evaluated for everyone before this returns, if the log is caught up with.

        Raises InvalidArgument, AlreadyExists.
        """
        project = await self._projects.get(project_name)
        async with project.catalog.lock:
            checked, new = await project.catalog.create(insight, request, validate_only=validate_only)
            if new and checked.insight.active:
                await self._keep(project, checked)
        return checked

    async def update(self, project_name: str, changed: Insight, etag: str, *, validate_only: bool) -> Checked:
        """Changes an insight. Raises InvalidArgument, NotFound, Aborted."""
        project = await self._projects.get(project_name)
        async with project.catalog.lock:
            checked = await project.catalog.update(changed, etag, validate_only=validate_only)
            if not validate_only:
                await self._apply(project, checked)
        return checked

    async def set_active(self, project_name: str, name: str, active: bool) -> Checked:
        """Has an insight evaluated, or no more. Raises InvalidArgument, NotFound."""
        project = await self._projects.get(project_name)
        async with project.catalog.lock:
            changed = replace(project.catalog.get(name), active=active)
            checked = await project.catalog.update(changed, "", validate_only=False)
            await self._apply(project, checked)
        return checked

    async def delete(self, project_name: str, name: str, etag: str) -> None:
        """Deletes an insight. Raises InvalidArgument, NotFound, Aborted."""
        project = await self._projects.get(project_name)
        async with project.catalog.lock:
            insight = project.catalog.get(name)
            if etag and etag != insight.etag:
                raise Aborted("the insight was changed meanwhile: read it again", reason="ETAG_MISMATCH")
            await self._delete(project, [insight.insight_id])

    async def delete_all(self, project_name: str) -> int:
        """Deletes all insights of a project; returns how many there were."""
        project = await self._projects.get(project_name)
        async with project.catalog.lock:
            insight_ids = [insight.insight_id for insight in project.catalog.all]
            await self._delete(project, insight_ids)
        return len(insight_ids)

    async def _delete(self, project: Project, insight_ids: list[str]) -> None:
        await project.catalog.delete(insight_ids)
        async with project.changing() as insights:
            for insight_id in insight_ids:
                if insights is not None:
                    insights.remove(insight_id, project.position)

    async def _apply(self, project: Project, checked: Checked) -> None:
        insights = project.insights
        held = None if insights is None else insights.held.get(checked.insight.insight_id)
        if checked.insight.active:
            if held is None or held.insight != checked.insight:
                await self._keep(project, checked)
        elif held is not None:
            async with project.changing() as current:
                if current is not None:
                    current.remove(checked.insight.insight_id, project.position)

    async def _keep(self, project: Project, checked: Checked) -> None:
        """Keeps an active insight true from now on."""
        project.start()
        if not project.retains(checked.plan.sources) or not project.holds(checked.plan):
            # Its rows were passed over so far, or let go; the log has them.
            await project.restart()
            return
        async with project.changing() as insights:
            if insights is not None:
                insights.put(checked.insight, checked.plan)
