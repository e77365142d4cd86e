"""How long the properties are tried: DOORWARD_PROPERTIES=long, or --hypothesis-profile=long, tries much harder."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow]

# The same examples every time, so that a run that passed passes again.
settings.register_profile(
    "check", derandomize=True, max_examples=200, deadline=None, database=None, suppress_health_check=SLOW
)
settings.register_profile("long", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("DOORWARD_PROPERTIES", "check"))
