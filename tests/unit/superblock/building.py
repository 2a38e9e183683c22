"""Makes the image of a superblock in memory, record by record, for tests of what reads it."""

import errno
from dataclasses import dataclass, field
from uuid import UUID

from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Instance
from vstack.core.superblock import record
from vstack.core.superblock.header import State, SuperblockHeader
from vstack.core.superblock.layout import DATA_OFFSET, PAGE_BYTES
from vstack.core.superblock.record import AcceptorBody, Body, ChunkBody, Stamp, block_crcs
from vstack.units import KIB

SUPERBLOCK_BYTES = 512 * KIB
HEADER = SuperblockHeader(
    superblock_uuid=UUID(int=0xA),
    disk_uuid=UUID(int=0xD),
    node_id="n",
    state=State.OPEN,
    sequence=1,
    superblock_bytes=SUPERBLOCK_BYTES,
    salt=77,
)


def chunk(chunk_id: str, payload: bytes = b"payload") -> ChunkBody:
    return ChunkBody(chunk_id, 0, -1, 0, 0, len(payload), bytes(32), block_crcs(memoryview(payload)))


def acceptance(chunk_id: str, epoch: int = 0, *, learned: bool = False, retired: bool = False) -> AcceptorBody:
    instance = Instance(chunk_id, epoch, Config(1, ("n",)))
    return AcceptorBody(AcceptorState(instance, 0, 0, b"{}", learned, retired))


@dataclass
class LogBuilder:
    header: SuperblockHeader = HEADER
    image: bytearray = field(default_factory=lambda: bytearray(SUPERBLOCK_BYTES))
    offset: int = DATA_OFFSET
    sequence: int = 10
    unreadable: set[int] = field(default_factory=set)
    reads: int = 0

    def add(
        self,
        body: Body,
        payload: bytes = b"payload",
        *,
        stable: int = 0,
        incarnation: int = 1,
        batch: tuple[int, int] = (0, 1),
        sequence: int | None = None,
    ) -> int:
        """Append a record; its offset."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        stamp = Stamp(
            self.header.superblock_uuid, self.header.salt, self.sequence, stable, incarnation, batch[0], batch[1]
        )
        at = self.offset
        record.encode_into(memoryview(self.image)[at : at + PAGE_BYTES], body, stamp)
        if isinstance(body, ChunkBody):
            self.image[at + PAGE_BYTES : at + PAGE_BYTES + len(payload)] = payload
        self.offset = at + body.pages * PAGE_BYTES
        return at

    def skip(self, pages: int) -> None:
        self.offset += pages * PAGE_BYTES

    def damage(self, offset: int) -> None:
        self.image[offset + 100] ^= 1

    def read(self, offset: int, length: int) -> memoryview:
        self.reads += 1
        if any(offset <= bad < offset + length for bad in self.unreadable):
            raise OSError(errno.EIO, "bad sector")
        return memoryview(bytes(self.image[offset : offset + length]))
