"""What rules tell Prometheus, read when it is asked."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.insights.actions.counting import CountedOutbox
from services.insights.rules.live import RuleProject
from services.insights.rules.service import Rules

_GAUGES = {
    "position": "The position of the last record that rules have applied.",
    "lag_events": "Records in the log that rules have not applied yet.",
    "ready": "1 once rules have caught up with the log.",
    "active": "Rules at work.",
    "users": "Users that rules hold, once for each rule.",
}
_COUNTERS = {
    "evaluations": "Events counted, once for each rule.",
    "failures": "Times that a project's rules had to start over.",
}


class RuleMetrics(Collector):
    """The state of each project with rules, and of the outbox."""

    def __init__(self, rules: Rules, outbox: CountedOutbox) -> None:
        self._rules = rules
        self._outbox = outbox

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        gauges = {name: _gauge(name, text) for name, text in _GAUGES.items()}
        counters = {name: _counter(name, text, "project") for name, text in _COUNTERS.items()}
        for project in self._rules.opened():
            for name, value in _states(project).items():
                gauges[name].add_metric([project.name], value)
            counters["evaluations"].add_metric([project.name], project.evaluated)
            counters["failures"].add_metric([project.name], project.failures)
        pending = _gauge("actions_pending", "Actions in the outbox that wait to be done.")
        for name, count in dict(self._outbox.waiting).items():
            pending.add_metric([name], count)
        asked = _counter("actions_asked", "Actions that went into the outbox.", "project")
        for name, count in dict(self._outbox.asked).items():
            asked.add_metric([name], count)
        text = "Actions done, given up (dead) or not to be done (suppressed), with the reason."
        settled = _counter("actions_settled", text, "state", "reason")
        for labels, count in dict(self._outbox.settled).items():
            settled.add_metric(labels, count)
        return (*gauges.values(), *counters.values(), pending, asked, settled)


def _states(project: RuleProject) -> dict[str, float]:
    states = list(project.standing.engine.states())
    return {
        "position": project.position,
        "lag_events": max(0, project.head_position - project.position),
        "ready": float(project.ready.is_set()),
        "active": len(states),
        "users": sum(len(state.tracks) for state in states),
    }


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"inkling_insights_rule_{name}", text, labels=["project"])


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"inkling_insights_rule_{name}", text, labels=labels)
