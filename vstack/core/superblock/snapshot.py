"""The index snapshot: a cache that makes the next start quick. Losing it loses nothing.

It says, for each superblock by UUID, up to which offset the log is replayed into the index that follows. Whatever lies
beyond is walked again, and a superblock that it does not know is read whole, so a snapshot of any age leads to the same
state. Its format is not part of the superblock format; an unknown one is ignored.
"""

import struct
from dataclasses import dataclass
from typing import Final

import msgspec
from crc32c import crc32c

_MAGIC: Final = b"VSTACKI1"
_PREFIX: Final = struct.Struct("<8sQQ")
_WORD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Covered:
    """One superblock as far as the snapshot knows it.

    Every record below `offset` is replayed, and those at the pages `beyond`: they were flushed before others that lie
    below them. `entries` and `beyond` are empty for a sealed one.
    """

    slot: int
    uuid: bytes
    sealed: bool
    offset: int
    beyond: tuple[int, ...]
    live_records: int
    live_bytes: int
    quarantined_bytes: int
    needed: tuple[bytes, ...]
    entries: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`clean` where the engine was closed and nothing was written since, as long as `incarnation` is the last one.

    `chunks` and `acceptors` are dumps of a CompactIndex.
    """

    disk_uuid: str
    incarnation: int
    clean: bool
    last_sequence: int
    superblocks: tuple[Covered, ...]
    chunks: bytes | memoryview
    acceptors: bytes | memoryview


class _Meta(msgspec.Struct, frozen=True):
    disk_uuid: str
    incarnation: int
    clean: bool
    last_sequence: int
    superblocks: tuple[Covered, ...]
    chunks_bytes: int
    acceptors_bytes: int


def encode(snapshot: Snapshot) -> bytes:
    chunks, acceptors = snapshot.chunks, snapshot.acceptors
    meta = msgspec.msgpack.encode(
        _Meta(
            disk_uuid=snapshot.disk_uuid,
            incarnation=snapshot.incarnation,
            clean=snapshot.clean,
            last_sequence=snapshot.last_sequence,
            superblocks=snapshot.superblocks,
            chunks_bytes=len(chunks),
            acceptors_bytes=len(acceptors),
        )
    )
    padded = meta + bytes(-len(meta) % _WORD_BYTES)
    checksum = crc32c(acceptors, crc32c(chunks, crc32c(padded)))
    return b"".join([_PREFIX.pack(_MAGIC, len(meta), checksum), padded, chunks, acceptors])


def decode(data: bytes) -> Snapshot | None:
    """The snapshot, or None where the bytes are no whole one."""
    view = memoryview(data)
    if len(view) < _PREFIX.size:
        return None
    magic, meta_bytes, checksum = _PREFIX.unpack_from(view)
    if magic != _MAGIC or crc32c(view[_PREFIX.size :]) != checksum:
        return None
    try:
        meta = msgspec.msgpack.decode(view[_PREFIX.size : _PREFIX.size + meta_bytes], type=_Meta)
    except msgspec.DecodeError:
        return None
    start = _PREFIX.size + meta_bytes + -meta_bytes % _WORD_BYTES
    chunks = view[start : start + meta.chunks_bytes]
    acceptors = view[start + meta.chunks_bytes :]
    if len(acceptors) != meta.acceptors_bytes:
        return None
    return Snapshot(
        disk_uuid=meta.disk_uuid,
        incarnation=meta.incarnation,
        clean=meta.clean,
        last_sequence=meta.last_sequence,
        superblocks=meta.superblocks,
        chunks=chunks,
        acceptors=acceptors,
    )
