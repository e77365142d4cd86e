"""How long generated input is tried, with no bound on time anywhere: a busy machine is no fault.

DOORWARD_PROPERTIES=long, or --hypothesis-profile=long, tries much harder; ``short`` asks whether it works at all.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow]

# The same examples every time, so that a run that passed passes again.
for name, examples in (("check", 200), ("short", 20)):
    settings.register_profile(
        name, derandomize=True, max_examples=examples, deadline=None, database=None, suppress_health_check=SLOW
    )
settings.register_profile("long", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("DOORWARD_PROPERTIES", "check"))
