"""Shared by all tests: hypothesis profiles (the seed of a failing run is printed by hypothesis itself)."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "vstack", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("vstack")
