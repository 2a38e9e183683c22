"""Records: what is appended to a superblock. A 4 KiB header, then the payload of a chunk, zero-padded to 4 KiB.

Invariants
- Every record of a disk has its own `sequence`; within one superblock it grows with the offset.
- The header's checksum is seeded with the superblock's salt and covers the whole page, the value included.
- Of a batch (records written together) either all count or none.
- `stable` says: every record of this `incarnation` up to that sequence was durable when this one was written. What lies
  above the highest `stable` may be torn by a power cut and was perhaps never acknowledged; what lies below was.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from crc32c import crc32c

from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import MAX_VALUE_BYTES, Instance
from vstack.core.superblock.layout import BLOCK_BYTES, MAX_BATCH_RECORDS, PAGE_BYTES, Bytes, blocks_for, pages_for
from vstack.units import MAX_CHUNK_BYTES

MAGIC: Final = b"VSTACKRC"

_FIXED: Final = struct.Struct("<8sIBBBB16sQQHHIIhBxIIQ32s64s")
_CRC_START: Final = 12
_CHECKSUMS_OFFSET: Final = 192
_MAX_BLOCKS: Final = MAX_CHUNK_BYTES // BLOCK_BYTES
_TARGET: Final = struct.Struct("<16sI")
_TARGET_OFFSET: Final = _CHECKSUMS_OFFSET + 4 * _MAX_BLOCKS
_ACCEPTOR: Final = struct.Struct("<qqQBB")
_ACCEPTOR_OFFSET: Final = _TARGET_OFFSET + 32
_NAMES_OFFSET: Final = _ACCEPTOR_OFFSET + 32
_VALUE_OFFSET: Final = PAGE_BYTES - MAX_VALUE_BYTES

_HAS_VALUE: Final = 0x1
_LEARNED: Final = 0x2
_RETIRED: Final = 0x4
_MAX_ID_BYTES: Final = 64

# Held GIL: 64 KiB take 3 us, less than giving the lock up and fighting the event loop for it again.
_HOLD_GIL: Final = 0


class RecordType(enum.IntEnum):
    """`learn` closes earlier epochs of its chunk, `retire` all; `accept` holds promises and acceptances."""

    CHUNK = 1
    TOMBSTONE = 2
    ACCEPT = 3
    LEARN = 4
    RETIRE = 5


ACCEPTOR_TYPES: Final = frozenset({RecordType.ACCEPT, RecordType.LEARN, RecordType.RETIRE})
CLOSING_TYPES: Final = frozenset({RecordType.LEARN, RecordType.RETIRE})


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the log adds to a record when it gives it a place."""

    superblock_uuid: UUID
    salt: int
    sequence: int
    stable: int
    incarnation: int
    batch_index: int = 0
    batch_count: int = 1
    written_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class ChunkBody:
    """A chunk or fragment. `k` of `n` shards rebuild the whole; both 0, with index -1, for a whole chunk."""

    chunk_id: str
    epoch: int
    fragment_index: int
    k: int
    n: int
    payload_bytes: int
    sha256: bytes
    block_crcs: tuple[int, ...]

    @property
    def pages(self) -> int:
        return pages_for(self.payload_bytes)


@dataclass(frozen=True, slots=True)
class TombstoneBody:
    """The chunk record at `target_page` of superblock `target_uuid` is deleted."""

    chunk_id: str
    target_uuid: UUID
    target_page: int

    @property
    def pages(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class AcceptorBody:
    """The whole state of an acceptor, superseding every earlier record of its instance."""

    state: AcceptorState

    @property
    def pages(self) -> int:
        return 1


Body = ChunkBody | TombstoneBody | AcceptorBody


@dataclass(frozen=True, slots=True)
class Record:
    """A decoded record header."""

    stamp: Stamp
    body: Body

    @property
    def type(self) -> RecordType:
        return type_of(self.body)

    @property
    def chunk_id(self) -> str:
        return self.body.state.instance.chunk_id if isinstance(self.body, AcceptorBody) else self.body.chunk_id

    @property
    def epoch(self) -> int:
        match self.body:
            case ChunkBody(epoch=epoch):
                return epoch
            case AcceptorBody(state=state):
                return state.instance.epoch
            case TombstoneBody():
                return 0

    @property
    def pages(self) -> int:
        return self.body.pages

    @property
    def batch_first(self) -> int:
        """The sequence of the first record of its batch."""
        return self.stamp.sequence - self.stamp.batch_index


def type_of(body: Body) -> RecordType:
    match body:
        case ChunkBody():
            return RecordType.CHUNK
        case TombstoneBody():
            return RecordType.TOMBSTONE
        case AcceptorBody(state=state):
            if state.retired:
                return RecordType.RETIRE
            return RecordType.LEARN if state.learned else RecordType.ACCEPT


def encode_into(page: memoryview, body: Body, stamp: Stamp) -> None:
    """Write the header of a record into `page` (4 KiB), overwriting all of it."""
    page[:] = bytes(PAGE_BYTES)
    chunk_id, epoch, index, k, n, payload_bytes, sha256, value_bytes = _common(body)
    _FIXED.pack_into(
        page,
        0,
        MAGIC,
        0,
        type_of(body),
        0,
        k,
        n,
        stamp.superblock_uuid.bytes,
        stamp.sequence,
        stamp.stable,
        stamp.batch_index,
        stamp.batch_count,
        stamp.incarnation,
        epoch,
        index,
        len(chunk_id),
        payload_bytes,
        value_bytes,
        stamp.written_at_ms,
        sha256,
        chunk_id,
    )
    match body:
        case ChunkBody(block_crcs=crcs):
            struct.pack_into(f"<{len(crcs)}I", page, _CHECKSUMS_OFFSET, *crcs)
        case TombstoneBody(target_uuid=uuid, target_page=target_page):
            _TARGET.pack_into(page, _TARGET_OFFSET, uuid.bytes, target_page)
        case AcceptorBody(state=state):
            _encode_acceptor(page, state)
    struct.pack_into("<I", page, len(MAGIC), crc32c(page[_CRC_START:], stamp.salt, gil_release_mode=_HOLD_GIL))


def decode(page: Bytes, superblock_uuid: UUID, salt: int) -> Record | None:
    """The record header in `page` if it is a valid one of this superblock, else None."""
    view = memoryview(page)[:PAGE_BYTES]
    if bytes(view[: len(MAGIC)]) != MAGIC:
        return None
    fields = _FIXED.unpack_from(view)
    _, checksum, kind, _, k, n, uuid, sequence, stable, batch_index, batch_count, incarnation = fields[:12]
    epoch, index, id_bytes, payload_bytes, value_bytes, written_at_ms, sha256, raw_id = fields[12:]
    if uuid != superblock_uuid.bytes or checksum != crc32c(view[_CRC_START:], salt, gil_release_mode=_HOLD_GIL):
        return None
    if (
        id_bytes > _MAX_ID_BYTES
        or payload_bytes > MAX_CHUNK_BYTES
        or not batch_index < batch_count <= MAX_BATCH_RECORDS
    ):
        return None
    stamp = Stamp(superblock_uuid, salt, sequence, stable, incarnation, batch_index, batch_count, written_at_ms)
    chunk_id = raw_id[:id_bytes].decode("ascii")
    body: Body
    match kind:
        case RecordType.CHUNK:
            crcs = struct.unpack_from(f"<{blocks_for(payload_bytes)}I", view, _CHECKSUMS_OFFSET)
            body = ChunkBody(chunk_id, epoch, index, k, n, payload_bytes, sha256, crcs)
        case RecordType.TOMBSTONE:
            target, target_page = _TARGET.unpack_from(view, _TARGET_OFFSET)
            body = TombstoneBody(chunk_id, UUID(bytes=target), target_page)
        case RecordType.ACCEPT | RecordType.LEARN | RecordType.RETIRE:
            body = AcceptorBody(_decode_acceptor(view, chunk_id, epoch, value_bytes))
        case _:
            return None
    return Record(stamp, body)


def block_crcs(payload: memoryview) -> tuple[int, ...]:
    """crc32c of every 64 KiB of a payload."""
    starts = range(0, len(payload), BLOCK_BYTES)
    return tuple([crc32c(payload[start : start + BLOCK_BYTES], 0, _HOLD_GIL) for start in starts])


def is_intact(body: ChunkBody, payload: memoryview) -> bool:
    """Whether these are the bytes that were stored."""
    return len(payload) == body.payload_bytes and block_crcs(payload) == body.block_crcs


def _common(body: Body) -> tuple[bytes, int, int, int, int, int, bytes, int]:
    match body:
        case ChunkBody():
            encoded = body.chunk_id.encode("ascii")
            return encoded, body.epoch, body.fragment_index, body.k, body.n, body.payload_bytes, body.sha256, 0
        case TombstoneBody():
            return body.chunk_id.encode("ascii"), 0, -1, 0, 0, 0, b"", 0
        case AcceptorBody(state=state):
            instance = state.instance
            return instance.chunk_id.encode("ascii"), instance.epoch, -1, 0, 0, 0, b"", len(state.accepted_value or b"")


def _encode_acceptor(page: memoryview, state: AcceptorState) -> None:
    value = state.accepted_value
    names = state.instance.config.acceptors
    flags = (_HAS_VALUE * (value is not None)) | (_LEARNED * state.learned) | (_RETIRED * state.retired)
    generation = state.instance.config.generation
    _ACCEPTOR.pack_into(page, _ACCEPTOR_OFFSET, state.promised, state.accepted_ballot, generation, flags, len(names))
    offset = _NAMES_OFFSET
    for name in names:
        encoded = name.encode("ascii")
        page[offset] = len(encoded)
        page[offset + 1 : offset + 1 + len(encoded)] = encoded
        offset += 1 + _MAX_ID_BYTES
    if value:
        page[_VALUE_OFFSET : _VALUE_OFFSET + len(value)] = value


def _decode_acceptor(view: memoryview, chunk_id: str, epoch: int, value_bytes: int) -> AcceptorState:
    promised, accepted, generation, flags, count = _ACCEPTOR.unpack_from(view, _ACCEPTOR_OFFSET)
    names = tuple(
        str(view[offset + 1 : offset + 1 + view[offset]], "ascii")
        for offset in range(_NAMES_OFFSET, _NAMES_OFFSET + count * (1 + _MAX_ID_BYTES), 1 + _MAX_ID_BYTES)
    )
    value = bytes(view[_VALUE_OFFSET : _VALUE_OFFSET + value_bytes]) if flags & _HAS_VALUE else None
    return AcceptorState(
        instance=Instance(chunk_id, epoch, Config(generation, names)),
        promised=promised,
        accepted_ballot=accepted,
        accepted_value=value,
        learned=bool(flags & _LEARNED),
        retired=bool(flags & _RETIRED),
    )
