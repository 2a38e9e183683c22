"""The redundancy policy and the figures that the API publishes about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstack.core.decree import Mode
from vstack.core.redundancy import PROFILES, fragment_bytes, recommend, savings_percent
from vstack.units import MAX_CHUNK_BYTES

REPLICATION, ERASURE_CODING = PROFILES[Mode.REPLICATION], PROFILES[Mode.ERASURE_CODING]


@pytest.mark.parametrize(
    ("view_count", "override", "mode"),
    [
        (0, None, Mode.ERASURE_CODING),
        (999, None, Mode.ERASURE_CODING),
        (1000, None, Mode.REPLICATION),
        (1_000_000, None, Mode.REPLICATION),
        (0, Mode.REPLICATION, Mode.REPLICATION),
        (1_000_000, Mode.ERASURE_CODING, Mode.ERASURE_CODING),
    ],
)
def test_popularity_decides_unless_somebody_did(view_count: int, override: Mode | None, mode: Mode) -> None:
    assert recommend(view_count, popularity_threshold=1000, override=override) is mode


def test_the_published_figures() -> None:
    assert REPLICATION.overhead_factor == 3.0
    assert round(ERASURE_CODING.overhead_factor, 2) == 1.67
    assert round(savings_percent(MAX_CHUNK_BYTES, 5 * MAX_CHUNK_BYTES // 3), 1) == 44.4
    assert (REPLICATION.chunk_mib, round(ERASURE_CODING.chunk_mib, 2)) == (6.0, 3.33)
    assert (REPLICATION.nodes_required, ERASURE_CODING.nodes_required) == (3, 5)
    assert (REPLICATION.failures_tolerated, ERASURE_CODING.failures_tolerated) == (2, 2)


@given(size_bytes=st.integers(1, MAX_CHUNK_BYTES))
def test_fragments_hold_the_chunk_and_hardly_more(size_bytes: int) -> None:
    assert 0 <= 3 * fragment_bytes(size_bytes) - size_bytes < 3


def test_savings_are_measured_against_full_replication() -> None:
    assert savings_percent(0, 0) == 0
    assert savings_percent(100, 300) == 0
    assert savings_percent(100, 150) == 50
    assert savings_percent(100, 600) == -100
