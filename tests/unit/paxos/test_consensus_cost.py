"""What a commit costs, counted on the wire and at the disk with real storage nodes, is what the protocol promises."""

from pathlib import Path

import pytest

from scripts.bench_consensus import SCHEMES, Cost, Scheme, measure


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
async def test_the_cost_of_a_commit(tmp_path: Path, scheme: Scheme) -> None:
    assert await measure(tmp_path, scheme, commits=5) == scheme.published


def test_the_published_table() -> None:
    assert [scheme.published for scheme in SCHEMES] == [
        Cost(2, 12, 6),
        Cost(2, 20, 10),
        Cost(0, 0, 0),
        Cost(0, 0, 0),
        Cost(0, 4, 2),
    ]
