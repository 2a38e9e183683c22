"""The value of a ChunkPaxos instance: the decree that says where one chunk lives.

A decree names the *intended* placement by node id, never by URL; which copies exist right now is replica status in the
database. It also carries what a rebuild of the database needs to make the video whole again (title, order, duration),
so the storage nodes alone hold the truth.

Invariants: the encoding is canonical (one decree, one byte string, one digest); placements are ordered by (fragment
index, node id); an ABORT decree has no placements. Whether a decree makes sense is for its reader to judge: a chosen
value is a fact, however strange.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from vstack.core.paxos.messages import MAX_VALUE_BYTES
from vstack.errors import InvalidRequestError


class Mode(StrEnum):
    """How the bytes of a chunk are kept."""

    REPLICATION = "replication"
    ERASURE_CODING = "erasure_coding"
    ABORT = "abort"
    """The chunk was given up before it was committed: a late commit must fail."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One copy (fragment_index -1) or one fragment (0..n-1) on one node; `checksum` is the hex SHA-256 of its bytes."""

    node_id: str
    checksum: str
    fragment_index: int = -1


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What every chunk of a video repeats, so that any of them can name the video in a rebuild."""

    video_id: str
    title: str
    created_at_ms: int
    generation: int


@dataclass(frozen=True, slots=True)
class Decree:
    """Where a chunk lives and what it is.

    `checksum` and `size_bytes` describe the whole chunk; `next_generation` names the node set that decides the next
    epoch; `duration_ms`, `segment` and `last` place the chunk in its video (`last` marks the final one, so a rebuild
    knows whether a video is complete); `init_size_bytes` is the length of the MP4 init segment at the head of chunk 0.
    """

    mode: Mode
    video_id: str
    sequence_num: int
    checksum: str
    size_bytes: int
    placements: tuple[Placement, ...]
    next_generation: int
    title: str = ""
    created_at_ms: int = 0
    duration_ms: int = 0
    segment: int = 0
    init_size_bytes: int = 0
    last: bool = False

    def __post_init__(self) -> None:
        ordered = sorted(self.placements, key=lambda placement: (placement.fragment_index, placement.node_id))
        object.__setattr__(self, "placements", tuple(ordered))

    def encode(self) -> bytes:
        """The canonical bytes: JSON with fixed field order, at most MAX_VALUE_BYTES, else InvalidRequestError."""
        encoded = msgspec.json.encode(self)
        if len(encoded) > MAX_VALUE_BYTES:
            raise InvalidRequestError(f"the chunk's description is {len(encoded)} bytes, above {MAX_VALUE_BYTES}")
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> "Decree":
        """The decree of canonical bytes; InvalidRequestError where they are none."""
        try:
            return msgspec.json.decode(encoded, type=cls)
        except (msgspec.DecodeError, ValueError) as error:
            raise InvalidRequestError(f"not a decree: {error}") from error

    @classmethod
    def for_copies(  # the uploader proposes and the metadata service commits: both must make the same bytes
        cls,
        node_ids: Iterable[str],
        *,
        video: "VideoFacts",
        sequence_num: int,
        checksum: str,
        size_bytes: int,
        duration_ms: int,
        segment: int,
        init_size_bytes: int,
        last: bool,
    ) -> "Decree":
        """The decree of a replicated chunk in a video's first epoch; `checksum` is hex."""
        return cls(
            mode=Mode.REPLICATION,
            video_id=video.video_id,
            sequence_num=sequence_num,
            checksum=checksum,
            size_bytes=size_bytes,
            placements=tuple(Placement(node_id, checksum) for node_id in node_ids),
            next_generation=video.generation,
            title=video.title,
            created_at_ms=video.created_at_ms,
            duration_ms=duration_ms,
            segment=segment,
            init_size_bytes=init_size_bytes,
            last=last,
        )

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The nodes of the placements, in order."""
        return tuple(placement.node_id for placement in self.placements)


def digest(value: bytes) -> str:
    """Hex SHA-256 of an encoded value: how receipts and logs name it."""
    return hashlib.sha256(value).hexdigest()


def abort(video_id: str, sequence_num: int, next_generation: int) -> Decree:
    """The decree that gives a chunk up."""
    return Decree(
        mode=Mode.ABORT,
        video_id=video_id,
        sequence_num=sequence_num,
        checksum="",
        size_bytes=0,
        placements=(),
        next_generation=next_generation,
    )
