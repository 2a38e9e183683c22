"""Opening a disk: identity, superblock headers, the snapshot, and the walk over whatever came after it.

The verdicts are made in vstack.core.superblock; here is the reading. Everything blocks and runs in the upkeep thread.

Invariants: nothing but the identity and damaged header copies is written; superblocks that make no sense are left
alone, reported and counted as quarantined; a missing superblock file is refused, because an acceptor that forgot must
not vote.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from vstack.core.superblock import header as headers
from vstack.core.superblock import record as records
from vstack.core.superblock.allocator import Allocator
from vstack.core.superblock.catalogue import Catalogue, Superblock
from vstack.core.superblock.entries import Entry, EntryLog
from vstack.core.superblock.header import State, SuperblockHeader
from vstack.core.superblock.index import CompactIndex
from vstack.core.superblock.layout import DATA_OFFSET, PAGE_BYTES, unpack
from vstack.core.superblock.record import ACCEPTOR_TYPES, ChunkBody
from vstack.core.superblock.settle import Settled, settle
from vstack.core.superblock.snapshot import Covered, Snapshot
from vstack.core.superblock.snapshot import decode as decode_snapshot
from vstack.core.superblock.walk import Found, Walk, walk
from vstack.errors import SettingsError
from vstack.storage.directio import NEW_SUFFIX, aligned_buffer
from vstack.storage.disk import Disk, File
from vstack.storage.engine import superblocks
from vstack.storage.engine.identity import DiskIdentity
from vstack.storage.engine.volume import READ_ONLY_NAME, Volume, reader

SNAPSHOT_NAME: Final = "index.snapshot"

log = structlog.get_logger()


@dataclass(slots=True)
class _Recovery:
    """What is known so far."""

    disk: Disk
    identity: DiskIdentity
    catalogue: Catalogue
    files: dict[int, File] = field(default_factory=dict)
    headers: dict[int, SuperblockHeader] = field(default_factory=dict)
    covered: dict[int, Covered] = field(default_factory=dict)
    is_clean: bool = False
    damaged_bytes: int = 0
    last_sequence: int = 0
    read_only: str | None = None


def recover(disk: Disk, identity: DiskIdentity, clock_ms: Callable[[], int]) -> Volume:
    """The volume with everything that was ever acknowledged. SettingsError, OSError."""
    recovery = _Recovery(disk, identity, Catalogue(bytes.fromhex(identity.hash_key)), read_only=_earlier_failure(disk))
    try:
        _open_files(recovery)
        _load_snapshot(recovery)
        _replay(recovery)
    except BaseException:
        for file in recovery.files.values():
            file.close()
        raise
    return Volume(
        disk,
        identity,
        catalogue=recovery.catalogue,
        allocator=_allocator(recovery),
        files=recovery.files,
        clock_ms=clock_ms,
        failure=recovery.read_only,
        damaged_bytes=recovery.damaged_bytes,
    )


def _earlier_failure(disk: Disk) -> str | None:
    note = disk.read(READ_ONLY_NAME)
    if note is None:
        return None
    return f"{note.decode(errors='replace').strip()} (remove the file {READ_ONLY_NAME} to write again)"


def _open_files(recovery: _Recovery) -> None:
    names = recovery.disk.names()
    for name in names:
        if name.endswith(NEW_SUFFIX):
            recovery.disk.remove(name)
    slots = sorted(slot for name in names if (slot := superblocks.slot_of(name)) is not None)
    expected = max(recovery.identity.superblocks, len(slots))
    if slots != list(range(expected)):
        missing = sorted(set(range(max(expected, slots[-1] + 1 if slots else 0))) - set(slots))
        raise SettingsError(f"the superblock file {superblocks.name_of(missing[0])} is missing from the data directory")
    for slot in slots:
        file = recovery.files[slot] = recovery.disk.open(superblocks.name_of(slot))
        _read_header(recovery, slot, file)


def _read_header(recovery: _Recovery, slot: int, file: File) -> None:
    copies = superblocks.read_headers(file)
    newest = headers.newest(copies)
    if newest is None:
        log.error("a superblock has no valid header", slot=slot)
        recovery.damaged_bytes += file.size_bytes
        return
    if newest.disk_uuid != UUID(recovery.identity.disk_uuid):
        raise SettingsError(f"{superblocks.name_of(slot)} belongs to disk {newest.disk_uuid}, not to this one")
    if newest.ro_compat:
        recovery.read_only = (
            f"{superblocks.name_of(slot)} has features {newest.ro_compat:#x} that only V-Stack for format version "
            f"{newest.version} may write"
        )
    elif copies[0] != copies[1] and recovery.read_only is None:
        superblocks.write_headers(file, newest)
    recovery.headers[slot] = newest
    recovery.last_sequence = max(recovery.last_sequence, newest.sequence)


def _load_snapshot(recovery: _Recovery) -> None:
    """Attach what the snapshot knows and what is still there; drop the rest of it."""
    data = recovery.disk.read(SNAPSHOT_NAME)
    snapshot = decode_snapshot(data) if data is not None else None
    if snapshot is None or snapshot.disk_uuid != recovery.identity.disk_uuid:
        return
    catalogue = recovery.catalogue
    try:
        catalogue.chunks = CompactIndex.load(snapshot.chunks)
        catalogue.acceptors = CompactIndex.load(snapshot.acceptors)
    except ValueError:
        catalogue.chunks, catalogue.acceptors = CompactIndex(), CompactIndex()
        return
    complete = True
    for covered in snapshot.superblocks:
        header = recovery.headers.get(covered.slot)
        if header is None or header.superblock_uuid.bytes != covered.uuid:
            complete = False
            continue
        recovery.covered[covered.slot] = covered
        catalogue.attach(_superblock(header, covered))
    if not complete:
        catalogue.forget_missing()
    recovery.last_sequence = max(recovery.last_sequence, snapshot.last_sequence)
    recovery.is_clean = snapshot.clean and _is_last(snapshot, recovery.identity)


def _is_last(snapshot: Snapshot, identity: DiskIdentity) -> bool:
    """Whether nobody has opened the disk between the snapshot and now."""
    return snapshot.incarnation == identity.incarnation - 1


def _superblock(header: SuperblockHeader, covered: Covered) -> Superblock:
    return Superblock(
        slot=covered.slot,
        header=header,
        append_offset=covered.offset,
        entries=EntryLog.load(covered.entries),
        live_records=covered.live_records,
        live_bytes=covered.live_bytes,
        quarantined_bytes=covered.quarantined_bytes,
        needed={UUID(bytes=uuid) for uuid in covered.needed},
    )


def _replay(recovery: _Recovery) -> None:
    """Read what the snapshot does not cover, and apply it in the order of sequences."""
    catalogue = recovery.catalogue
    sources: list[Iterable[tuple[Entry, int]]] = []
    open_slots, walks = [], []
    for slot, header in recovery.headers.items():
        covered = recovery.covered.get(slot)
        if header.state is State.FREE or (covered is not None and covered.sealed):
            continue
        if covered is None:
            catalogue.attach(Superblock(slot, header, DATA_OFFSET))
        if header.state is State.SEALED:
            sources.append(_sealed(recovery, slot, covered))
        else:
            open_slots.append(slot)
            start = covered.offset if covered is not None else DATA_OFFSET
            walks.append(walk(reader(recovery.files[slot]), header, start, look_ahead=not recovery.is_clean))
    verdicts = settle(walks, lambda index, found: _payload_is_intact(recovery.files[open_slots[index]], found))
    for slot, walked, verdict in zip(open_slots, walks, verdicts, strict=True):
        sources.append(_opened(recovery, slot, walked, verdict))
    identify = _Identify(recovery)
    for entry, slot in heapq.merge(*sources, key=lambda pair: pair[0].sequence):
        recovery.last_sequence = max(recovery.last_sequence, entry.sequence)
        catalogue.apply(slot, entry, identify)
        if entry.type in ACCEPTOR_TYPES:
            identify.remember(entry.location(slot), entry)


def _sealed(recovery: _Recovery, slot: int, covered: Covered | None) -> Iterator[tuple[Entry, int]]:
    """The entries of a sealed superblock: from its footer, or from a walk where that is gone or never was."""
    superblock = recovery.catalogue.superblocks[slot]
    footer = superblocks.read_footer(recovery.files[slot], superblock.header)
    if footer is not None:
        entries: Iterable[Entry] = footer.entries
        superblock.append_offset, superblock.quarantined_bytes = footer.append_offset, footer.quarantined_bytes
    else:
        walked = walk(reader(recovery.files[slot]), superblock.header)
        entries = [Entry.of(found.record, found.offset // PAGE_BYTES) for found in walked.records]
        superblock.append_offset = walked.append_offset
        superblock.quarantined_bytes = sum(gap.length_bytes for gap in walked.gaps)
        for gap in walked.gaps:
            log.warning("quarantined bytes", slot=slot, offset=gap.offset, length_bytes=gap.length_bytes)
    superblock.entries = EntryLog()
    return ((entry, slot) for entry in entries if not _is_covered(entry, covered))


def _opened(recovery: _Recovery, slot: int, walked: Walk, verdict: Settled) -> Iterator[tuple[Entry, int]]:
    """The entries that count of a superblock that was still open."""
    superblock = recovery.catalogue.superblocks[slot]
    covered = recovery.covered.get(slot)
    superblock.append_offset = verdict.append_offset
    for gap in verdict.quarantined:
        log.warning("quarantined bytes", slot=slot, offset=gap.offset, length_bytes=gap.length_bytes)
        superblock.quarantined_bytes += gap.length_bytes
    if walked.records:
        recovery.last_sequence = max(recovery.last_sequence, walked.records[-1].record.stamp.sequence)
    entries = (Entry.of(found.record, found.offset // PAGE_BYTES) for found in verdict.records)
    return ((entry, slot) for entry in entries if not _is_covered(entry, covered))


def _is_covered(entry: Entry, covered: Covered | None) -> bool:
    return covered is not None and (entry.page * PAGE_BYTES < covered.offset or entry.page in covered.beyond)


class _Identify:
    """Whose acceptor record lies at a location: remembered from this replay where possible, else read."""

    def __init__(self, recovery: _Recovery) -> None:
        self._recovery = recovery
        self._seen: dict[int, tuple[str, int]] = {}

    def remember(self, location: int, entry: Entry) -> None:
        self._seen[location] = (entry.chunk_id, entry.epoch)

    def __call__(self, location: int) -> tuple[str, int] | None:
        return self._seen.get(location) or self._read(location)

    def _read(self, location: int) -> tuple[str, int] | None:
        slot, page, _ = unpack(location)
        header = self._recovery.headers[slot]
        memory = aligned_buffer(PAGE_BYTES)
        try:
            self._recovery.files[slot].preadv([memory], page * PAGE_BYTES)
        except OSError:
            return None
        record = records.decode(memory, header.superblock_uuid, header.salt)
        return (record.chunk_id, record.epoch) if record is not None else None


def _payload_is_intact(file: File, found: Found) -> bool:
    body = found.record.body
    assert isinstance(body, ChunkBody)
    memory = aligned_buffer((found.record.pages - 1) * PAGE_BYTES)
    try:
        file.preadv([memory], found.offset + PAGE_BYTES)
    except OSError:
        return False
    return records.is_intact(body, memory[: body.payload_bytes])


def _allocator(recovery: _Recovery) -> Allocator:
    """Appending goes on in the superblock that was written last; another one that was left open will be sealed."""
    allocator = Allocator(recovery.last_sequence + 1)
    for slot, header in recovery.headers.items():
        if header.state is State.FREE:
            allocator.free[slot] = Superblock(slot, header, DATA_OFFSET)
    started = []
    for superblock in recovery.catalogue.superblocks.values():
        if superblock.header.state is State.OPEN:
            if superblock.append_offset == DATA_OFFSET:
                allocator.ready.append(superblock)
            else:
                started.append(superblock)
    allocator.current = max(started, key=lambda superblock: superblock.header.sequence, default=None)
    return allocator
