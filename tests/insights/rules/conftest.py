"""Fixtures for the tests of rules."""

from pathlib import Path

import pytest

from .offline_runs import Offline


@pytest.fixture
def offline(tmp_path: Path) -> Offline:
    return Offline(tmp_path)
