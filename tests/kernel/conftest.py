"""Hypothesis profiles of the kernel's properties: bounded and repeatable, or deep (INKLING_HYPOTHESIS_PROFILE=deep)."""

import os

from hypothesis import HealthCheck, settings

SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile("bounded", derandomize=True, deadline=None, database=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("deep", settings.get_profile("bounded"), derandomize=False, max_examples=2_000)
settings.load_profile(os.environ.get("INKLING_HYPOTHESIS_PROFILE", "bounded"))
