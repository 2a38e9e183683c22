"""The storage node's messages. Chunk bodies are raw bytes; what describes them travels in headers."""

from typing import Annotated, Final, Literal

import msgspec

from vstack.ids import Identifier
from vstack.wire.common import Message

CHECKSUM_HEADER: Final = "X-Chunk-Checksum"
SIZE_HEADER: Final = "X-Chunk-Size"
SUPERBLOCK_HEADER: Final = "X-Superblock-ID"
NODE_HEADER: Final = "X-Node-ID"
DISK_USAGE_HEADER: Final = "X-Disk-Usage-Percent"
CHUNK_COUNT_HEADER: Final = "X-Chunk-Count"
RESPONSE_TIME_HEADER: Final = "X-Response-Time"


class Health(Message, frozen=True, kw_only=True):
    """`status` critical comes with 503. `disk_usage` is a percentage, `uptime` seconds."""

    status: Literal["healthy", "warning", "critical"]
    disk_usage: float
    chunk_count: int
    uptime: float
    node_id: str
    read_only: bool = False
    capacity_bytes: int = 0
    quarantined_bytes: int = 0


class StoredChunk(Message, frozen=True, kw_only=True):
    """One stored chunk or fragment, as an inventory row."""

    chunk_id: str
    size_bytes: int
    checksum: str
    fragment_index: int
    epoch: int


class InventoryQuery(Message, frozen=True, kw_only=True):
    """`video_id` keeps only that video's chunks; `after` is the cursor of the previous page."""

    video_id: Identifier | None = None
    after: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 1000


class Inventory(Message, frozen=True, kw_only=True):
    chunks: tuple[StoredChunk, ...]
    next: str | None


class AcceptorsQuery(Message, frozen=True, kw_only=True):
    after: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 1000
