"""The compact index against a plain model, with few hashes so that they collide and wrap."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vstack.core.superblock.index import CompactIndex

hashes = st.sampled_from([0, 1, 2, 5, 1 << 54, (1 << 54) + 4, (1 << 54) + 5, 2**64 - 1, 2**64 - 2])
locations = st.integers(1, 40)


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.index = CompactIndex()
        self.model: defaultdict[int, set[int]] = defaultdict(set)

    @rule(key_hash=hashes, location=locations)
    def add(self, key_hash: int, location: int) -> None:
        assert self.index.add(key_hash, location) == (location not in self.model[key_hash])
        self.model[key_hash].add(location)

    @rule(key_hash=hashes, location=locations)
    def remove(self, key_hash: int, location: int) -> None:
        assert self.index.remove(key_hash, location) == (location in self.model[key_hash])
        self.model[key_hash].discard(location)

    @rule(limit=locations)
    def keep(self, limit: int) -> None:
        self.index.keep(lambda location: location < limit)
        for found in self.model.values():
            found -= set(range(limit, 41))

    @rule()
    def dump_and_load(self) -> None:
        self.index = CompactIndex.load(self.index.dump())

    @invariant()
    def agrees(self) -> None:
        for key_hash, found in self.model.items():
            assert sorted(self.index.find(key_hash)) == sorted(found)
        assert len(self.index) == sum(map(len, self.model.values()))
        assert sorted(self.index.items()) == sorted((key, at) for key, found in self.model.items() for at in found)


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=300))
def test_spread_hashes(keys: set[int]) -> None:
    index = CompactIndex()
    for key in keys:
        index.add(key, key % 1000 + 1)
    assert all(index.find(key) == (key % 1000 + 1,) for key in keys)


def test_forty_bytes_an_entry_are_never_exceeded() -> None:
    index = CompactIndex()
    for number in range(60_000):
        index.add(number * 0x9E3779B97F4A7C15 % 2**64, number + 1)
    assert len(index.dump()) / len(index) < 40


@pytest.mark.parametrize("damage", [b"", b"\0" * 8])
def test_a_dump_of_the_wrong_length_is_refused(damage: bytes) -> None:
    index = CompactIndex()
    index.add(7, 8)
    with pytest.raises(ValueError, match="length"):
        CompactIndex.load(index.dump()[:-8] if not damage else index.dump() + damage)
