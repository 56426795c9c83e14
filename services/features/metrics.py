"""What features tells Prometheus, read from the projects when it is asked."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.features.projects import Projects
from services.runtime.clocks import Clock


class ProjectMetrics(Collector):
    """The state of each project that has a projection."""

    def __init__(self, projects: Projects, clock: Clock) -> None:
        self._projects = projects
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """All metrics, labelled by project."""
        counters = {
            "events_applied": ("Records of the log that took effect.", "events"),
            "apply_seconds": ("Time spent applying records.", "apply_seconds"),
            "duplicates": ("Records without effect because their event id was known.", "duplicates"),
            "conflicting_duplicates": ("Duplicates whose content was another than the first one's.", "conflicts"),
            "skipped_values": ("Values skipped because they were of the wrong type.", "skipped"),
            "projection_failures": ("Times that a projection had to start over.", "failures"),
        }
        gauges = {
            "lag_events": ("Records in the log that are not applied yet.", "lag"),
            "position": ("The position of the last record applied.", "position"),
            "snapshot_age_seconds": ("How long ago the newest snapshot was written or recovered.", "snapshot_age"),
            "keys": ("Key values that are known.", "keys"),
            "rows": ("Events held.", "rows"),
            "ready": ("1 once what was published is served.", "ready"),
        }
        families: dict[str, Metric] = {}
        for name, (text, field) in counters.items():
            families[field] = CounterMetricFamily(f"inkling_features_{name}", text, labels=["project"])
        for name, (text, field) in gauges.items():
            families[field] = GaugeMetricFamily(f"inkling_features_{name}", text, labels=["project"])
        for project, values in self._values():
            for field, value in values.items():
                families[field].add_sample(families[field].name + _suffix(families[field]), {"project": project}, value)
        return families.values()

    def _values(self) -> Iterable[tuple[str, dict[str, float]]]:
        for project in self._projects.opened():
            projection = project.projection
            if projection is None:
                continue
            fold = projection.fold
            engines = list(fold.engines)
            age_us = self._clock.now_us() - project.snapshot_time_us if project.snapshot_time_us else 0
            yield (
                project.name,
                {
                    "events": fold.events,
                    "apply_seconds": projection.apply_seconds,
                    "duplicates": fold.deduplicator.duplicates,
                    "conflicts": fold.deduplicator.conflicts,
                    "skipped": sum(engine.skipped_terms for engine in engines),
                    "failures": project.failures,
                    "lag": projection.lag,
                    "position": projection.position,
                    "snapshot_age": age_us / 1e6,
                    "keys": sum(len(engine.key_codes) for engine in engines),
                    "rows": sum(engine.rows for engine in engines),
                    "ready": float(project.ready.is_set()),
                },
            )


def _suffix(family: Metric) -> str:
    return "_total" if family.type == "counter" else ""
