"""The contract between the storage service and its engine.

`vstack.storage.engine` keeps it on a disk, the tests also in memory. The service above it knows no file, offset or
record; the engine below knows no HTTP and no message of Paxos. `closes` and `governing` are pure functions of
`vstack.core.paxos.acceptor`: the service serialises the messages of one instance, the engine keeps what may not go.

Promises of every engine
- `put`, `delete` and `journal` return only after what they did survives a power cut; all writes in flight share one
  fdatasync. If they raise, nothing they were asked to do is visible, now or after a restart, or all of it is.
- `get` hands out bytes only after their checksums were verified; otherwise CorruptionError.
- After EIO from a write or flush the disk is read-only for good: later writes raise DiskError, reads go on.
- Writes raise StorageFullError before they would touch the reserve that deletes and compaction need.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vstack.core.paxos.acceptor import AcceptorState


class DiskState(StrEnum):
    """Below 85 % healthy, to 95 % warning, above critical; read_only after an I/O error."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"
    READ_ONLY = "read_only"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this disk is. `incarnation` grows at every open and fences older processes at the metadata service."""

    node_id: str
    disk_uuid: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChunkInfo:
    """A stored chunk or fragment: `checksum` is the hex SHA-256 of its bytes; fragment_index -1 is a whole chunk."""

    chunk_id: str
    size_bytes: int
    checksum: str
    superblock_id: str
    epoch: int = 0
    fragment_index: int = -1


@dataclass(frozen=True, slots=True)
class Usage:
    """Sizes in bytes. `used_percent` is what decides the disk state."""

    state: DiskState
    capacity_bytes: int
    used_bytes: int
    live_bytes: int
    quarantined_bytes: int
    chunk_count: int

    @property
    def used_percent(self) -> float:
        return min(100.0, 100.0 * self.used_bytes / self.capacity_bytes) if self.capacity_bytes else 0.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What the engine did since it was opened, for metrics: `flushed_writes` is the records that `flushes` covered."""

    flushes: int = 0
    flushed_writes: int = 0
    flushed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PutOutcome:
    """`created` is False where the same bytes were there already."""

    created: bool
    info: ChunkInfo


class PutBuffer(Protocol):
    """A pooled, page-aligned buffer to receive one body into: `payload` has room for MAX_CHUNK_BYTES."""

    @property
    def payload(self) -> memoryview: ...


class Reading(Protocol):
    """Verified bytes of one chunk, valid until its context ends."""

    @property
    def info(self) -> ChunkInfo: ...

    @property
    def payload(self) -> memoryview: ...


class Engine(Protocol):
    """One data directory on one disk."""

    @property
    def identity(self) -> Identity: ...

    def buffer(self) -> AbstractAsyncContextManager[PutBuffer]:
        """Borrow a buffer for one PUT; waits while all are in use, which bounds memory."""
        ...

    async def put(
        self,
        chunk_id: str,
        buffer: PutBuffer,
        size_bytes: int,
        *,
        epoch: int = 0,
        fragment_index: int = -1,
        expected_checksum: str | None = None,
        acceptance: AcceptorState | None = None,
    ) -> PutOutcome:
        """Store `size_bytes` from `buffer`, and `acceptance` with it, under one flush.

        InvalidRequestError if the bytes do not have `expected_checksum` (hex); ConflictError if the id holds other
        bytes; StorageFullError; DiskError.
        """
        ...

    def get(self, chunk_id: str) -> AbstractAsyncContextManager[Reading]:
        """Read and verify a chunk. NotFoundError, CorruptionError, DiskError."""
        ...

    async def head(self, chunk_id: str) -> ChunkInfo | None:
        """What is stored under this id."""
        ...

    async def delete(self, chunk_id: str) -> bool:
        """Remove durably, with a tombstone; False where there was nothing."""
        ...

    async def journal(self, states: Sequence[AcceptorState]) -> None:
        """Make acceptor states durable together. Each drops the other states of its chunk that it `closes`."""
        ...

    async def acceptor(self, chunk_id: str, epoch: int) -> AcceptorState | None:
        """What answers for an instance: the `governing` one of the newest journalled states of its chunk.

        That may be a retirement, or the learned value of a later epoch: it stands in for the states it dropped.
        """
        ...

    async def chunks(
        self, after: str | None, limit: int, *, video_id: str | None = None
    ) -> tuple[list[ChunkInfo], str | None]:
        """A page of stored chunks in an order of the engine's own, and the cursor of the next (None: no more)."""
        ...

    async def acceptors(self, after: str | None, limit: int) -> tuple[list[AcceptorState], str | None]:
        """A page of the newest acceptor states, and the cursor of the next."""
        ...

    def usage(self) -> Usage:
        """Sizes and disk state from memory: cheap enough for every ping."""
        ...

    def counters(self) -> Counters: ...

    async def close(self) -> None:
        """Flush, write a snapshot, release the directory. Buffers and readings must have been given back."""
        ...
