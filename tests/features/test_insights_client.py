"""The client of insights that training sets are labelled by: it can be sent elsewhere, and says what went wrong."""

import pickle

import pytest

from services.features.datasets.goals import InsightQuestion
from services.features.insights_client import InsightsClient
from services.features.settings import FeaturesSettings
from services.runtime.errors import Unavailable
from tests.features.processes import SERVICE_KEY, free_port

QUESTION = InsightQuestion("shop", "insights/rich", "customer_id")


def test_it_goes_where_the_rows_are_computed_and_shows_no_key() -> None:
    client = InsightsClient("127.0.0.1:7003", SERVICE_KEY)
    assert pickle.loads(pickle.dumps(client)) == client
    assert SERVICE_KEY not in repr(client)


def test_without_a_target_there_is_none() -> None:
    assert InsightsClient.of(FeaturesSettings(insecure=True)) is None
    found = InsightsClient.of(FeaturesSettings(insecure=True, insights_target="127.0.0.1:1", service_key=SERVICE_KEY))
    assert found == InsightsClient("127.0.0.1:1", SERVICE_KEY)


def test_a_service_that_stays_away_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="insights service cannot be asked now"):
        InsightsClient(f"127.0.0.1:{free_port()}", "", pause_seconds=0.001).check(QUESTION)
