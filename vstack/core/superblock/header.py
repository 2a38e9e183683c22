"""The superblock header: who a superblock file is and what state it is in. Two copies, at 0 and 4 KiB.

Invariants
- Copies are rewritten one after the other with a flush between, so one valid copy always survives; of two valid copies
  the one with the higher sequence counts.
- `free` holds no records. `open` is written durably before the first record goes in. `sealed` takes no more records.
- A superblock gets a new UUID and salt whenever it becomes free or open: bytes of an earlier life never pass.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from crc32c import crc32c

from vstack.core.superblock.layout import FORMAT_VERSION, MAX_SUPERBLOCK_BYTES, MIN_SUPERBLOCK_BYTES, PAGE_BYTES, Bytes
from vstack.errors import SettingsError

MAGIC: Final = b"VSTACKSB"
COMPAT_FILLED: Final = 0x1
"""The data area was written once, so later writes need not convert unwritten extents."""

_FIXED: Final = struct.Struct("<8sIHBxIII16s16s16sQQIB64s")
_CRC_START: Final = 12

NO_CLUSTER: Final = UUID(int=0)


class State(enum.IntEnum):
    """`free` may be taken, `open` is written to, `sealed` is full and has a footer where it fits."""

    FREE = 1
    OPEN = 2
    SEALED = 3


@dataclass(frozen=True, slots=True)
class SuperblockHeader:
    """`salt` seeds the checksum of every record header, so that no client can smuggle a record in as a payload.

    `compat` features may be ignored by a reader, `ro_compat` ones forbid writing to a reader that does not know them,
    `incompat` ones forbid reading. `cluster_uuid` stays NO_CLUSTER until a disk is bound to a cluster.
    """

    superblock_uuid: UUID
    disk_uuid: UUID
    node_id: str
    state: State
    sequence: int
    superblock_bytes: int
    salt: int
    compat: int = 0
    ro_compat: int = 0
    incompat: int = 0
    version: int = FORMAT_VERSION
    cluster_uuid: UUID = NO_CLUSTER

    @property
    def filled(self) -> bool:
        return bool(self.compat & COMPAT_FILLED)

    def encode(self) -> bytes:
        """One page."""
        node = self.node_id.encode("ascii")
        page = bytearray(PAGE_BYTES)
        _FIXED.pack_into(
            page,
            0,
            MAGIC,
            0,
            self.version,
            self.state,
            self.compat,
            self.ro_compat,
            self.incompat,
            self.cluster_uuid.bytes,
            self.disk_uuid.bytes,
            self.superblock_uuid.bytes,
            self.sequence,
            self.superblock_bytes,
            self.salt,
            len(node),
            node,
        )
        struct.pack_into("<I", page, len(MAGIC), crc32c(memoryview(page)[_CRC_START:]))
        return bytes(page)


def decode(page: Bytes) -> SuperblockHeader | None:
    """The header in one page, None where there is no valid one. SettingsError where it needs a newer V-Stack."""
    (
        magic,
        checksum,
        version,
        state,
        compat,
        ro_compat,
        incompat,
        cluster,
        disk,
        superblock,
        sequence,
        superblock_bytes,
        salt,
        node_length,
        node,
    ) = _FIXED.unpack_from(page)
    if magic != MAGIC or checksum != crc32c(memoryview(page)[_CRC_START:PAGE_BYTES]):
        return None
    if incompat:
        raise SettingsError(
            f"superblock {UUID(bytes=superblock)} uses unknown incompatible features {incompat:#x}: "
            f"a V-Stack that reads format version {version} is needed (this one reads version {FORMAT_VERSION})"
        )
    if state not in State.__members__.values() or not MIN_SUPERBLOCK_BYTES <= superblock_bytes <= MAX_SUPERBLOCK_BYTES:
        return None
    return SuperblockHeader(
        superblock_uuid=UUID(bytes=superblock),
        disk_uuid=UUID(bytes=disk),
        node_id=node[:node_length].decode("ascii"),
        state=State(state),
        sequence=sequence,
        superblock_bytes=superblock_bytes,
        salt=salt,
        compat=compat,
        ro_compat=ro_compat,
        incompat=incompat,
        version=version,
        cluster_uuid=UUID(bytes=cluster),
    )


def newest(copies: list[SuperblockHeader | None]) -> SuperblockHeader | None:
    """The valid copy with the highest sequence."""
    valid = [copy for copy in copies if copy is not None]
    return max(valid, key=lambda copy: copy.sequence, default=None)
