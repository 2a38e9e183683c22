"""Shared by all tests: hypothesis profiles (the seed of a failing run is printed by hypothesis itself), and logging."""

import pytest
from hypothesis import HealthCheck, settings

from vstack.service import logs

settings.register_profile(
    "vstack", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("vstack")


@pytest.fixture(autouse=True)
def _logging_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process configures its logs once; a command that a test runs inside this one must not do it for all tests."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)
