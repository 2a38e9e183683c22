"""The open superblock files: placing records, writing them, reading them back.

Owns what several threads share. `append` and the reads run in I/O threads; the catalogue and the pins belong to the
event loop's thread; the allocator is only touched under `lock`.

Invariants
- After the first failed write or flush (`failure` is set) nothing is written any more, whatever the caller.
- What is read is checked to be the record that was asked for: superblock UUID, header checksum and id.
- A pinned superblock is not recycled.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.superblock import record as records
from vstack.core.superblock.allocator import Allocator, Reservation
from vstack.core.superblock.catalogue import Catalogue
from vstack.core.superblock.entries import Entry
from vstack.core.superblock.header import SuperblockHeader
from vstack.core.superblock.layout import PAGE_BYTES, unpack
from vstack.core.superblock.record import AcceptorBody, Body, ChunkBody, Record, Stamp
from vstack.errors import CorruptionError, DiskError
from vstack.storage.contract import ChunkInfo
from vstack.storage.directio import aligned_buffer
from vstack.storage.disk import Disk, File
from vstack.storage.engine.identity import DiskIdentity

READ_ONLY_NAME: Final = "read-only"
"""Says why the disk takes no writes; whoever has replaced or checked the disk removes it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A record to append: whole pages, the first of which is room for its header."""

    body: Body
    memory: memoryview


@dataclass(frozen=True, slots=True)
class Placed:
    """Records that were written and await their flush."""

    reservation: Reservation
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a record can be read, and as what it must prove itself."""

    location: int
    file: File
    header: SuperblockHeader


class Volume:
    """One disk, opened and recovered. `damaged_bytes` belong to superblocks without a valid header."""

    def __init__(
        self,
        disk: Disk,
        identity: DiskIdentity,
        *,
        catalogue: Catalogue,
        allocator: Allocator,
        files: dict[int, File],
        clock_ms: Callable[[], int],
        failure: str | None = None,
        damaged_bytes: int = 0,
    ) -> None:
        self.disk = disk
        self.identity = identity
        self.catalogue = catalogue
        self.allocator = allocator
        self.files = files
        self.lock = threading.Lock()
        self.failure = failure
        self.damaged_bytes = damaged_bytes
        self.pins: Counter[int] = Counter()
        self._clock_ms = clock_ms

    def fail(self, reason: str) -> None:
        """Turn the disk read-only for good. The note is for the next start and may itself fail to be written."""
        with self.lock:
            if self.failure is not None:
                return
            self.failure = reason
        try:
            self.disk.replace(READ_ONLY_NAME, f"{reason}\n".encode())
        except OSError:
            return

    def check_writable(self) -> None:
        """DiskError where the disk is read-only."""
        if self.failure is not None:
            raise DiskError(f"the disk is read-only: {self.failure}")

    def append(self, parts: Sequence[Part], *, use_reserve: bool) -> Placed | None:
        """Write records next to each other in one call, as one batch; None where a superblock must be opened first.

        Nothing is durable or visible yet. DiskError where the disk is or becomes read-only.
        """
        pages = sum(part.body.pages for part in parts)
        with self.lock:
            self.check_writable()
            reservation = self.allocator.reserve(pages, len(parts), use_reserve=use_reserve)
        if reservation is None:
            return None
        entries = self._encode(parts, reservation)
        try:
            self.files[reservation.superblock.slot].pwritev([part.memory for part in parts], reservation.offset)
        except OSError as error:
            self.fail(f"a write to superblock {reservation.superblock.slot} failed: {error}")
            self.check_writable()
        return Placed(reservation, entries)

    def flush(self, slots: Sequence[int]) -> None:
        """Fdatasync these superblocks. DiskError, once and for all, where one fails."""
        self.check_writable()
        try:
            for slot in slots:
                self.files[slot].fdatasync()
        except OSError as error:
            self.fail(f"a flush failed: {error}")
        self.check_writable()

    def close(self) -> None:
        """Release files and directory."""
        for file in self.files.values():
            file.close()
        self.disk.close()

    @contextmanager
    def pinned(self, locations: Sequence[int]) -> Iterator[list[Source]]:
        """The sources of index entries, kept from being recycled inside the block."""
        slots = [unpack(location).slot for location in locations]
        self.pins.update(slots)
        try:
            superblocks = self.catalogue.superblocks
            yield [
                Source(location, self.files[slot], superblocks[slot].header)
                for location, slot in zip(locations, slots, strict=True)
            ]
        finally:
            self.pins.subtract(slots)

    def _encode(self, parts: Sequence[Part], reservation: Reservation) -> tuple[Entry, ...]:
        header = reservation.superblock.header
        stamp = Stamp(
            superblock_uuid=header.superblock_uuid,
            salt=header.salt,
            sequence=reservation.first_sequence,
            stable=reservation.stable,
            incarnation=self.identity.incarnation,
            batch_count=len(parts),
            written_at_ms=self._clock_ms(),
        )
        page = reservation.offset // PAGE_BYTES
        entries = []
        for index, part in enumerate(parts):
            placed = replace(stamp, sequence=stamp.sequence + index, batch_index=index)
            records.encode_into(part.memory[:PAGE_BYTES], part.body, placed)
            entries.append(Entry.of(Record(placed, part.body), page))
            page += part.body.pages
        return tuple(entries)


def reader(file: File) -> Callable[[int, int], memoryview]:
    """read(offset, length) over a file, for a walk."""

    def read(offset: int, length: int) -> memoryview:
        memory = aligned_buffer(length)
        file.preadv([memory], offset)
        return memory

    return read


def read_header(source: Source) -> Record | None:
    """The header of a record, None where it is damaged. DiskError."""
    page = aligned_buffer(PAGE_BYTES)
    _read(source, page)
    return records.decode(page, source.header.superblock_uuid, source.header.salt)


def read_chunk(source: Source, chunk_id: str, into: memoryview) -> Record | None:
    """Read header and payload to the start of `into` and verify both; None where the record is another id's.

    CorruptionError, DiskError.
    """
    length = unpack(source.location).length_bytes
    _read(source, into[:length])
    record = records.decode(into, source.header.superblock_uuid, source.header.salt)
    if record is None:
        raise CorruptionError(f"the record header of {chunk_id} is damaged")
    if not isinstance(record.body, ChunkBody) or record.chunk_id != chunk_id:
        return None
    if not records.is_intact(record.body, into[PAGE_BYTES : PAGE_BYTES + record.body.payload_bytes]):
        raise CorruptionError(f"the bytes of {chunk_id} fail their checksum")
    return record


def read_states(sources: Sequence[Source], chunk_id: str) -> list[AcceptorState]:
    """The acceptor states of exactly this chunk. CorruptionError where one may be lost; DiskError."""
    states = []
    for source in sources:
        record = read_header(source)
        if record is None:
            raise CorruptionError(f"an acceptor record that may be of {chunk_id} is damaged")
        if isinstance(record.body, AcceptorBody) and record.chunk_id == chunk_id:
            states.append(record.body.state)
    return states


def chunk_info(body: ChunkBody, superblock_uuid: UUID) -> ChunkInfo:
    return ChunkInfo(
        chunk_id=body.chunk_id,
        size_bytes=body.payload_bytes,
        checksum=body.sha256.hex(),
        superblock_id=str(superblock_uuid),
        epoch=body.epoch,
        fragment_index=body.fragment_index,
    )


def record_info(record: Record) -> ChunkInfo:
    """What the record of a chunk says of it."""
    assert isinstance(record.body, ChunkBody)
    return chunk_info(record.body, record.stamp.superblock_uuid)


def _read(source: Source, into: memoryview) -> None:
    try:
        source.file.preadv([into], unpack(source.location).offset)
    except OSError as error:
        raise DiskError(f"superblock {source.header.superblock_uuid} cannot be read: {error}") from error
