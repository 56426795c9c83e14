"""How long each method may take and whether it may be tried again: the one table, and the service config made of it.

`python -m services.runtime.call_rules` prints the service config that gRPC clients in any language can load.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CallRule:
    """`timeout_seconds` None: a stream without end. `idempotent`: retried when UNAVAILABLE, at most three tries."""

    timeout_seconds: float | None
    idempotent: bool = False


_READ = CallRule(5, idempotent=True)
_LIST = CallRule(10, idempotent=True)
_CHANGE = CallRule(10)
_ENDLESS = CallRule(None)

CALL_RULES: Mapping[str, Mapping[str, CallRule]] = {
    "inkling.ingest.v1.IngestService": {
        # The same event ids add nothing. It may wait for insights.
        "Ingest": CallRule(15, idempotent=True),
        "IngestStream": _ENDLESS,
        "ImportCsv": CallRule(3600),
        "Subscribe": _ENDLESS,
    },
    "inkling.ingest.v1.CollectionService": {
        "CreateCollection": _CHANGE,
        "GetCollection": _READ,
        "ListCollections": _LIST,
        "UpdateCollection": _CHANGE,
    },
    "inkling.ingest.v1.ArchiveService": {
        "ListArchiveFiles": CallRule(60, idempotent=True),  # may archive first
    },
    "inkling.ingest.v1.DeadLetterService": {
        "ListDeadLetters": _LIST,
        "GetDeadLetter": _READ,
        "ReplayDeadLetters": CallRule(60, idempotent=True),
        "PurgeDeadLetters": CallRule(60, idempotent=True),
    },
    "inkling.ingest.v1.SubjectService": {
        "EraseSubject": CallRule(30),
        "GetErasureReceipt": _READ,
    },
    "inkling.ingest.v1.ProjectService": {
        "GetProjectSettings": _READ,
        "UpdateProjectSettings": _CHANGE,
    },
    "inkling.features.v1.DefinitionService": {
        "CreateAttributeGroup": _CHANGE,
        "GetAttributeGroup": _READ,
        "ListAttributeGroups": _LIST,
        "UpdateAttributeGroup": _CHANGE,
        "DeleteAttributeGroup": _CHANGE,
        "PlanAttributeGroup": CallRule(60, idempotent=True),
        "PublishAttributeGroup": CallRule(30),
        "CreateFeatureService": _CHANGE,
        "GetFeatureService": _READ,
        "ListFeatureServices": _LIST,
        "UpdateFeatureService": _CHANGE,
        "DeleteFeatureService": _CHANGE,
        "ImportDefinition": CallRule(30),
        "ExportDefinition": _LIST,
    },
    "inkling.features.v1.SubjectService": {
        "EraseSubject": CallRule(30),
        "GetErasureReceipt": _READ,
    },
    "inkling.features.v1.SegmentService": {
        "CreateSegment": CallRule(30),
        "GetSegment": _READ,
        "ListSegments": _LIST,
        "UpdateSegment": CallRule(30),
        "DeleteSegment": _CHANGE,
        "PreviewSegment": CallRule(30, idempotent=True),
        "ListMembers": CallRule(30, idempotent=True),
        "CheckMembership": CallRule(65, idempotent=True),  # may wait for a position
        "WatchSegment": _ENDLESS,
    },
    "inkling.features.v1.ProfileService": {
        "GetProfile": _READ,
        "BatchGetProfiles": CallRule(15, idempotent=True),
        "WatchProfiles": _ENDLESS,
        "ListProfiles": _LIST,
        "GetProfileHistory": CallRule(120, idempotent=True),  # reads the archive
        "ExplainValue": CallRule(120, idempotent=True),
        "ExportProfiles": CallRule(30),
        "ReadExportFile": CallRule(3600),
        "ListExports": _LIST,
        "DeleteExport": _CHANGE,
    },
    "inkling.features.v1.PropertyService": {
        "CreateProperty": _CHANGE,
        "BatchCreateProperties": _CHANGE,
        "GetProperty": _READ,
        "ListProperties": _LIST,
        "UpdateProperty": _CHANGE,
        "DeleteProperty": _CHANGE,
        "SetProperties": CallRule(15),
        "BatchSetProperties": _ENDLESS,
    },
    "inkling.features.v1.RollupService": {
        "CreateRollup": _CHANGE,
        "GetRollup": _READ,
        "ListRollups": _LIST,
        "DeleteRollup": _CHANGE,
    },
    "inkling.features.v1.DatasetService": {
        "CreateDataset": CallRule(30),
        "GetDataset": _READ,
        "ListDatasets": _LIST,
        "DeleteDataset": CallRule(60, idempotent=True),
        "ReadDatasetFile": CallRule(3600),
        "UploadDatasetRows": CallRule(3600),
    },
    "inkling.insights.v1.RuleService": {
        "CreateRule": CallRule(60),  # fills from the log
        "GetRule": _READ,
        "ListRules": _LIST,
        "ListRuleVersions": _LIST,
        "UpdateRule": CallRule(60),
        "ActivateRule": CallRule(60),
        "DeleteRule": _CHANGE,
        "ImportRuleTable": CallRule(120),
        "ExportRuleTable": _LIST,
        "ListRuleResults": CallRule(15, idempotent=True),  # may wait for a position
        "GetRuleStatistics": _READ,
        "ListRuleActions": _LIST,
        "BackTestRule": CallRule(300),
        "GetWebhookSecret": _READ,
    },
    "inkling.insights.v1.InsightService": {
        "CreateInsight": CallRule(60),  # evaluates it for everyone
        "GetInsight": _READ,
        "ListInsights": _LIST,
        "UpdateInsight": CallRule(60),
        "ActivateInsight": CallRule(60),
        "DeactivateInsight": CallRule(60),
        "DeleteInsight": CallRule(60),
        "DeleteAllInsights": CallRule(60),
        "GetCustomerInsights": CallRule(65, idempotent=True),  # may wait for a position
        "EvaluateCustomer": CallRule(30, idempotent=True),
        "BatchEvaluateInsight": CallRule(125, idempotent=True),  # may wait for a position
        "ExplainInsight": CallRule(30, idempotent=True),
        "DryRunQuery": CallRule(300, idempotent=True),
        "WatchInsights": _ENDLESS,
    },
    "inkling.insights.v1.ChangeService": {
        "AwaitChanges": CallRule(15),  # may wait for a position; whoever asks does without
    },
    "inkling.insights.v1.SubjectService": {
        "ForgetSubject": CallRule(120, idempotent=True),  # may wait for a position; writes snapshots
    },
    "inkling.insights.v1.QueryService": {
        "ValidateQuery": _READ,
        "ExplainQuery": _READ,
        "CompleteQuery": _READ,
        "FormatQuery": _READ,
        "ListSources": _LIST,
        "ListTemplates": _LIST,
        "RenderTemplate": _READ,
    },
    "google.longrunning.Operations": {
        "ListOperations": _LIST,
        "GetOperation": _READ,
        "DeleteOperation": _CHANGE,
        "CancelOperation": CallRule(10, idempotent=True),
        "WaitOperation": CallRule(330, idempotent=True),
    },
    "grpc.health.v1.Health": {
        "Check": CallRule(3, idempotent=True),
        "List": CallRule(3, idempotent=True),
        "Watch": _ENDLESS,
    },
}


def timeout_seconds(full_method: str) -> float | None:
    """The timeout of `/inkling.ingest.v1.IngestService/Ingest`; None for streams without end and unknown methods."""
    service, _, method = full_method.lstrip("/").rpartition("/")
    rule = CALL_RULES.get(service, {}).get(method)
    return None if rule is None else rule.timeout_seconds


def service_config(health_service: str = "", *, timeouts: bool = True) -> str:
    """The gRPC service config: timeouts, retries, round robin over all addresses; JSON.

    With `health_service`, addresses that do not say SERVING for that name get no calls. Python's own channels leave
    the timeouts out and give each call its timeout: gRPC for C and Python ends calls up to a second before a timeout
    that comes from the config, and does not tell the server of it (grpc/grpc issues 34547 and 40633).
    """
    groups: dict[CallRule, list[dict[str, str]]] = {}
    for service, methods in CALL_RULES.items():
        for method, rule in methods.items():
            groups.setdefault(rule, []).append({"service": service, "method": method})
    config: dict[str, object] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, **_method_config(rule, timeouts)} for rule, names in groups.items()],
    }
    if health_service:
        config["healthCheckConfig"] = {"serviceName": health_service}
    return json.dumps(config, indent=2)


def _method_config(rule: CallRule, timeouts: bool) -> dict[str, object]:
    config: dict[str, object] = {}
    if timeouts and rule.timeout_seconds is not None:
        config["timeout"] = f"{rule.timeout_seconds:g}s"
    if rule.idempotent:
        config["retryPolicy"] = {
            "maxAttempts": 3,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return config


if __name__ == "__main__":
    print(service_config())
