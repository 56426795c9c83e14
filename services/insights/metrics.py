"""What insights tells Prometheus, read from the projects when it is asked."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.insights.project import Project
from services.insights.projects import Projects


class InsightMetrics(Collector):
    """The state of each project."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    def collect(self) -> Iterable[Metric]:
        """All metrics, labelled by project."""
        gauges = {
            "position": "The position of the last record applied.",
            "lag_events": "Records in the log that are not applied yet.",
            "ready": "1 once what is active is kept true.",
            "active_insights": "Insights that are kept true.",
            "customers": "Customers that are known.",
            "rows": "Rows retained.",
            "bytes": "Memory held in arrays.",
        }
        families: dict[str, Metric] = {
            name: GaugeMetricFamily(f"inkling_insights_{name}", text, labels=["project"])
            for name, text in gauges.items()
        }
        families["failures"] = CounterMetricFamily(
            "inkling_insights_failures", "Times that a project had to start over.", labels=["project"]
        )
        families["recomputed"] = CounterMetricFamily(
            "inkling_insights_recomputed", "Verdicts computed from a customer's rows.", labels=["project"]
        )
        for project in self._projects.opened():
            for name, value in _values(project).items():
                families[name].add_metric([project.name], value)  # type: ignore[attr-defined]
        return families.values()


def _values(project: Project) -> dict[str, float]:
    insights = project.insights
    engines = [] if insights is None else list(insights.engines.values())
    return {
        "position": project.position,
        "lag_events": max(0, project.head_position - project.position),
        "ready": float(project.ready.is_set()),
        "active_insights": 0 if insights is None else len(insights.held),
        "customers": sum(len(engine.customers) for engine in engines),
        "rows": sum(len(rows) for engine in engines for rows in engine.sources.values()),
        "bytes": sum(sum(engine.nbytes.values()) for engine in engines),
        "failures": project.failures,
        "recomputed": sum(engine.recomputed for engine in engines),
    }
