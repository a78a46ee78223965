"""Settings of all tests."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# A shell that runs the tests in the background lets them ignore Ctrl-C, and all that they start;
# some send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Numba compiles inside the first example and machines are shared: no example has a deadline.
settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("deep", parent=settings.get_profile("default"), max_examples=5000)
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
settings.load_profile(_PROFILE)

thorough = settings(
    settings.get_profile(_PROFILE), max_examples=20_000 if _PROFILE == "deep" else 1000
)
"""For the properties that the product stands on."""
