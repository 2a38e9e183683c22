"""What each write does in its I/O thread before it takes a place in the log: hash, look at what is there, decide.

A plan is made on the event loop with the index entries that may matter pinned, and `parts` runs once in a thread. It
returns the records to append, none where there is nothing to write, or raises with nothing written.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from vstack.core.paxos.acceptor import AcceptorState, closes
from vstack.core.superblock.layout import PAGE_BYTES, pages_for, unpack
from vstack.core.superblock.record import AcceptorBody, ChunkBody, TombstoneBody, block_crcs
from vstack.errors import ConflictError, CorruptionError, InvalidRequestError, NotFoundError, StorageFullError
from vstack.storage.contract import ChunkInfo
from vstack.storage.directio import aligned_buffer
from vstack.storage.engine.buffers import RecordBuffer
from vstack.storage.engine.volume import Part, Source, read_chunk, read_header, record_info
from vstack.units import DATA_SHARDS, TOTAL_SHARDS

Known = dict[int, tuple[str, int] | None]
"""(chunk id, epoch) of the acceptor records that a plan has looked at, by location; None for a damaged one."""


class Plan(Protocol):
    """`known` is complete when `parts` has returned."""

    known: Known

    def parts(self) -> list[Part]: ...


class PutPlan:
    """Store a chunk. `existing` is set where its id is taken by the same bytes, intact on disk.

    A damaged record under the same hash is buried and replaced: the PUT is its repair. `scratch` is needed, to read
    them, where there are `sources`. `full` refuses what is not there already.
    """

    def __init__(
        self,
        chunk_id: str,
        buffer: RecordBuffer,
        size_bytes: int,
        *,
        epoch: int,
        fragment_index: int,
        expected_checksum: str | None,
        journal: "JournalPlan",
        sources: Sequence[Source],
        scratch: RecordBuffer | None,
        full: bool,
    ) -> None:
        self.existing: ChunkInfo | None = None
        self.body: ChunkBody | None = None
        self.known = journal.known
        self._chunk_id = chunk_id
        self._buffer = buffer
        self._size_bytes = size_bytes
        self._epoch = epoch
        self._fragment_index = fragment_index
        self._expected_checksum = expected_checksum
        self._journal = journal
        self._sources = sources
        self._scratch = scratch
        self._full = full

    def parts(self) -> list[Part]:
        """InvalidRequestError, ConflictError, StorageFullError, DiskError."""
        payload = self._buffer.payload[: self._size_bytes]
        sha256 = hashlib.sha256(payload).digest()
        if self._expected_checksum not in (None, sha256.hex()):
            raise InvalidRequestError(f"the bytes have the checksum {sha256.hex()}, not {self._expected_checksum}")
        acceptance = self._journal.parts()
        damaged = self._look(sha256)
        if self.existing is not None:
            return acceptance
        if self._full:
            raise StorageFullError("the disk is too full for another chunk")
        whole = self._fragment_index < 0
        self.body = ChunkBody(
            chunk_id=self._chunk_id,
            epoch=self._epoch,
            fragment_index=self._fragment_index,
            k=0 if whole else DATA_SHARDS,
            n=0 if whole else TOTAL_SHARDS,
            payload_bytes=self._size_bytes,
            sha256=sha256,
            block_crcs=block_crcs(payload),
        )
        length = pages_for(self._size_bytes) * PAGE_BYTES
        self._buffer.view[PAGE_BYTES + self._size_bytes : length] = bytes(length - PAGE_BYTES - self._size_bytes)
        chunk = Part(self.body, self._buffer.view[:length])
        return [*(_tombstone(self._chunk_id, source) for source in damaged), chunk, *acceptance]

    def _look(self, sha256: bytes) -> list[Source]:
        """Set `existing`, or return the damaged records that this PUT replaces."""
        damaged = []
        for source in self._sources:
            assert self._scratch is not None
            try:
                stored = read_chunk(source, self._chunk_id, self._scratch.view)
            except CorruptionError:
                stored = read_header(source)
                if stored is None or (isinstance(stored.body, ChunkBody) and stored.body.sha256 == sha256):
                    damaged.append(source)
                    continue
            if stored is None or stored.chunk_id != self._chunk_id:
                continue
            info = record_info(stored)
            if info.checksum != sha256.hex():
                raise ConflictError(f"{self._chunk_id} holds other bytes", chosen={"checksum": info.checksum})
            self.existing = info
        return damaged


class DeletePlan:
    """Bury the record of a chunk; a damaged one under its hash too, because nobody can read it any more."""

    def __init__(self, chunk_id: str, sources: Sequence[Source]) -> None:
        self.known: Known = {}
        self._chunk_id = chunk_id
        self._sources = sources

    def parts(self) -> list[Part]:
        """NotFoundError, DiskError."""
        doomed = []
        for source in self._sources:
            stored = read_header(source)
            if stored is None or stored.chunk_id == self._chunk_id:
                doomed.append(_tombstone(self._chunk_id, source))
        if not doomed:
            raise NotFoundError(f"no chunk {self._chunk_id}")
        return doomed


class JournalPlan:
    """Append acceptor states. `sources` holds what the index has under the hash of each state's chunk, in order.

    A closing state is never replaced by one that closes less, and what it closed is never reopened: ConflictError.
    """

    def __init__(self, states: Sequence[AcceptorState], sources: Sequence[Sequence[Source]]) -> None:
        self.known: Known = {}
        self._states = states
        self._sources = sources

    def parts(self) -> list[Part]:
        """ConflictError; CorruptionError where an earlier promise may be lost; DiskError."""
        kept: list[AcceptorState] = []
        for state, sources in zip(self._states, self._sources, strict=True):
            earlier = [*self._read(state, sources), *kept]
            _check_order(state, [known for known in earlier if known.instance.chunk_id == state.instance.chunk_id])
            kept.append(state)
        memory = aligned_buffer(PAGE_BYTES * len(self._states)) if self._states else memoryview(b"")
        return [
            Part(AcceptorBody(state), memory[PAGE_BYTES * index : PAGE_BYTES * (index + 1)])
            for index, state in enumerate(self._states)
        ]

    def _read(self, state: AcceptorState, sources: Sequence[Source]) -> Iterable[AcceptorState]:
        for source in sources:
            record = read_header(source)
            self.known[source.location] = (record.chunk_id, record.epoch) if record else None
            if record is None and not (state.learned or state.retired):
                raise CorruptionError(f"an acceptor record that may be of {state.instance.chunk_id} is damaged")
            if record is not None and isinstance(record.body, AcceptorBody):
                yield record.body.state


def _check_order(state: AcceptorState, earlier: Sequence[AcceptorState]) -> None:
    for known in earlier:
        same = known.instance.epoch == state.instance.epoch
        reopens = closes(known, state.instance.epoch) or (same and known.learned and not state.learned)
        if reopens and not state.retired:
            raise ConflictError(f"epoch {state.instance.epoch} of {state.instance.chunk_id} is closed")


def _tombstone(chunk_id: str, source: Source) -> Part:
    body = TombstoneBody(chunk_id, source.header.superblock_uuid, unpack(source.location).page)
    return Part(body, aligned_buffer(PAGE_BYTES))
