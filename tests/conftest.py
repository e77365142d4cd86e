"""What holds for every suite.

Generated input is tried with no bound on time anywhere: a busy machine is no fault. DOORWARD_PROPERTIES=long, or
--hypothesis-profile=long, tries much harder; ``short`` asks whether it works at all.

The programs that tests start heed the signals of a terminal, also where nohup(1), or a shell that put the run into the
background, made all that it starts ignore them.
"""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow]

# The same examples every time, so that a run that passed passes again.
for name, examples in (("check", 200), ("short", 20)):
    settings.register_profile(
        name, derandomize=True, max_examples=examples, deadline=None, database=None, suppress_health_check=SLOW
    )
settings.register_profile("long", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("DOORWARD_PROPERTIES", "check"))

signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
