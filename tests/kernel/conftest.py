"""Hypothesis profiles of the kernel's properties: bounded and repeatable, or deep (INKLING_HYPOTHESIS_PROFILE=deep)."""

import os

from hypothesis import HealthCheck, Phase, settings

SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large)

BOUNDED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=SLOW_IS_FINE,
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
settings.register_profile("bounded", BOUNDED)
settings.register_profile("deep", BOUNDED, derandomize=False, max_examples=1_000)
settings.load_profile(os.environ.get("INKLING_HYPOTHESIS_PROFILE", "bounded"))
