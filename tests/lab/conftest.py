"""A lab for one test module."""

import os
from collections.abc import Iterator

import pytest

from tests.lab.commands import Lab


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """An empty lab; removed afterwards with all that is in it."""
    made = Lab(f"t{os.getpid()}-{request.module.__name__.rpartition('.')[2].replace('_', '-')}")
    try:
        yield made
    finally:
        made("down")
