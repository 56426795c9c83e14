"""What features tells Prometheus, read from the projects when it is asked."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.features.parity import ParitySampler
from services.features.projects import Projects
from services.features.segments.service import Segments
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


class ParityMetrics(Collector):
    """What became of the profiles that were recomputed to prove them."""

    def __init__(self, sampler: ParitySampler) -> None:
        self._sampler = sampler

    def collect(self) -> Iterable[Metric]:
        """All metrics, labelled by project."""
        texts = {
            "checked": "Values served that were recomputed from the archive and compared.",
            "mismatches": "Values among them that differed: a fault of the service.",
            "skipped": "Values that could not be compared: not served yet, or older than the log.",
            "dropped": "Sampled profiles that were not compared: too many waited, or definitions changed.",
        }
        for name, text in texts.items():
            family = CounterMetricFamily(f"inkling_features_parity_{name}", text, labels=["project"])
            for project, counts in self._sampler.counts.items():
                family.add_metric([project], getattr(counts, name))
            yield family


class SegmentMetrics(Collector):
    """The segments of each project."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments

    def collect(self) -> Iterable[Metric]:
        """All metrics, labelled by project and segment."""
        labels = ["project", "segment"]
        prefix = "inkling_features_segment"
        members = GaugeMetricFamily(f"{prefix}_members", "Profiles that are in it, as published.", labels=labels)
        changes = CounterMetricFamily(f"{prefix}_changes", "Changes of members in the journal.", labels=labels)
        evaluations = CounterMetricFamily(f"{prefix}_evaluations", "Profiles looked at.", labels=labels)
        seconds = CounterMetricFamily(f"{prefix}_seconds", "Time spent looking at profiles.", labels=labels)
        for each in self._segments.opened():
            for live in each.all():
                names = [each.project.name, live.definition.segment_id]
                members.add_metric(names, live.members.count)
                changes.add_metric(names, live.counts.changes)
                evaluations.add_metric(names, live.counts.evaluations)
                seconds.add_metric(names, live.counts.seconds)
        return members, changes, evaluations, seconds


def _suffix(family: Metric) -> str:
    return "_total" if family.type == "counter" else ""
