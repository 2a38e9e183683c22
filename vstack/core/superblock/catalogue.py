"""What a disk holds, replayed from its records: two indexes and the accounts of each superblock.

Rules of replay, by ascending sequence; each is idempotent
- A chunk record is live until a tombstone names exactly its place. A new record of the same id is written only after
  the tombstone of the one before, so live chunks have distinct ids.
- An acceptor record supersedes the earlier ones of its (chunk id, epoch). A learned one also drops all lower epochs of
  its chunk, a retired one all others (`vstack.core.paxos.acceptor.closes`).
- A tombstone is needed until the superblock that it points into is gone; only then may its own superblock go.

So a sealed superblock without a live record and without a needed tombstone may be recycled: nothing that it says can
be missed, because the record that superseded each of its own is itself kept as long as it is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from uuid import UUID

from vstack.core.superblock.entries import Entry, EntryLog
from vstack.core.superblock.header import State, SuperblockHeader
from vstack.core.superblock.index import CompactIndex
from vstack.core.superblock.layout import PAGE_BYTES, pack, slot_of
from vstack.core.superblock.record import ACCEPTOR_TYPES, CLOSING_TYPES, RecordType

Identify = Callable[[int], "tuple[str, int] | None"]
"""(chunk id, epoch) of the acceptor record at a packed location, None where it cannot be read."""


@dataclass(slots=True)
class Superblock:
    """The account of one superblock file.

    `entries` holds all that counts of an open superblock, for its footer; a sealed one keeps them on disk.
    `needed` names the superblocks that its tombstones point into.
    """

    slot: int
    header: SuperblockHeader
    append_offset: int
    entries: EntryLog = field(default_factory=EntryLog)
    live_records: int = 0
    live_bytes: int = 0
    quarantined_bytes: int = 0
    needed: set[UUID] = field(default_factory=set)

    @property
    def uuid(self) -> UUID:
        return self.header.superblock_uuid

    @property
    def is_sealed(self) -> bool:
        return self.header.state is State.SEALED


class Catalogue:
    """Owned by one thread. `hash_key` keys the hashes, so that nobody can make ids that collide."""

    def __init__(self, hash_key: bytes) -> None:
        self.chunks = CompactIndex()
        self.acceptors = CompactIndex()
        self.superblocks: dict[int, Superblock] = {}
        self._hash_key = hash_key
        self._slots: dict[UUID, int] = {}

    def hash(self, chunk_id: str) -> int:
        """The 64-bit keyed hash under which a chunk and its acceptor states are indexed."""
        return int.from_bytes(blake2b(chunk_id.encode("ascii"), digest_size=8, key=self._hash_key).digest(), "little")

    def attach(self, superblock: Superblock) -> None:
        """Make a superblock known, before its entries are applied."""
        self.superblocks[superblock.slot] = superblock
        self._slots[superblock.uuid] = superblock.slot

    def detach(self, slot: int) -> Superblock:
        """Forget a recycled superblock; tombstones that pointed into it are needed no longer."""
        gone = self.superblocks.pop(slot)
        del self._slots[gone.uuid]
        for superblock in self.superblocks.values():
            superblock.needed.discard(gone.uuid)
        return gone

    def apply(self, slot: int, entry: Entry, identify: Identify) -> None:
        """Replay one record of superblock `slot`."""
        superblock = self.superblocks[slot]
        if not superblock.is_sealed:
            superblock.entries.append(entry)
        key_hash = self.hash(entry.chunk_id)
        location = entry.location(slot)
        if entry.type is RecordType.CHUNK:
            self._add(self.chunks, key_hash, location)
        elif entry.type is RecordType.TOMBSTONE:
            self._bury(superblock, entry, key_hash)
        else:
            self._supersede(entry, key_hash, identify)
            self._add(self.acceptors, key_hash, location)

    def is_live(self, slot: int, entry: Entry) -> bool:
        """Whether this record is what its id stands for now."""
        index = self.acceptors if entry.type in ACCEPTOR_TYPES else self.chunks
        return entry.location(slot) in index.find(self.hash(entry.chunk_id))

    def recyclable(self) -> list[Superblock]:
        """Sealed superblocks that nothing needs any more."""
        return [
            superblock
            for superblock in self.superblocks.values()
            if superblock.is_sealed and not superblock.live_records and superblock.needed <= {superblock.uuid}
        ]

    def forget_missing(self) -> None:
        """Drop entries of superblocks that are not attached (a snapshot may be older than their recycling)."""
        for index in (self.chunks, self.acceptors):
            index.keep(lambda location: slot_of(location) in self.superblocks)
        for superblock in self.superblocks.values():
            superblock.needed &= self._slots.keys()

    def _add(self, index: CompactIndex, key_hash: int, location: int) -> None:
        if index.add(key_hash, location):
            self._account(location, +1)

    def _drop(self, index: CompactIndex, key_hash: int, location: int) -> None:
        if index.remove(key_hash, location):
            self._account(location, -1)

    def _account(self, location: int, sign: int) -> None:
        superblock = self.superblocks[slot_of(location)]
        superblock.live_records += sign
        superblock.live_bytes += sign * PAGE_BYTES * (location & 0x3FF)

    def _bury(self, superblock: Superblock, entry: Entry, key_hash: int) -> None:
        assert entry.target_uuid is not None
        target = self._slots.get(entry.target_uuid)
        if target is None:
            return
        superblock.needed.add(entry.target_uuid)
        for location in self.chunks.find(key_hash):
            if location >> 10 == pack(target, entry.target_page, 0) >> 10:
                self._drop(self.chunks, key_hash, location)

    def _supersede(self, entry: Entry, key_hash: int, identify: Identify) -> None:
        for location in self.acceptors.find(key_hash):
            known = identify(location)
            if known is None:  # unreadable, so its promise is lost; only a decided instance can do without it
                superseded = entry.type in CLOSING_TYPES
            else:
                superseded = known[0] == entry.chunk_id and _closes(entry, known[1])
            if superseded:
                self._drop(self.acceptors, key_hash, location)


def _closes(entry: Entry, epoch: int) -> bool:
    """Whether this acceptor record makes the earlier ones of that epoch of its chunk obsolete."""
    return (
        entry.epoch == epoch
        or entry.type is RecordType.RETIRE
        or (entry.type is RecordType.LEARN and epoch < entry.epoch)
    )
