"""The manifest of a video: which chunks, in which order, and where each can be read now."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from vstack import checksums, ids
from vstack.metadata.catalogue import nodes, videos
from vstack.metadata.catalogue.chunks import PlacedPiece
from vstack.metadata.catalogue.nodes import StorageNode
from vstack.metadata.catalogue.videos import VideoRow
from vstack.metadata.postgres import statements
from vstack.metadata.postgres.database import Database
from vstack.units import MAX_CHUNK_BYTES, MAX_CHUNK_DURATION_S
from vstack.wire import metadata as wire
from vstack.wire.common import timestamp

_SQL = statements.load("chunks")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A chunk with the keys of the nodes that hold whole copies, and its fragments as PlacedPiece's fields."""

    chunk_id: str
    sequence_num: int
    mode: wire.ChunkMode
    size_bytes: int
    checksum: bytes
    duration_ms: int
    segment: int
    init_size_bytes: int
    copies: list[int] | None
    fragments: list[tuple[int, int, Literal["active", "missing"], int, str]] | None


async def manifest(db: Database, video_id: str) -> wire.Manifest:
    """NotFoundError for an unknown video, or one that is being deleted."""
    video = await videos.get(db, video_id)
    rows = await db.rows(_SQL["manifest"], ManifestRow, {"video_id": video_id})
    return build(video, rows, {node.node_key: node for node in await nodes.all_nodes(db)})


def build(video: VideoRow, rows: Sequence[ManifestRow], by_key: Mapping[int, StorageNode]) -> wire.Manifest:
    """The manifest of a video from its chunks, ordered by number, and what the nodes are doing."""
    return wire.Manifest(
        video_id=video.video_id,
        title=video.title,
        duration_sec=video.duration_ms / 1000,
        total_chunks=video.total_chunks,
        chunk_duration_sec=MAX_CHUNK_DURATION_S,
        chunk_size_bytes=MAX_CHUNK_BYTES,
        created_at=timestamp(video.created_at),
        status=video.status,
        chunks=tuple(_chunk(row, by_key) for row in rows),
        init_size_bytes=max((row.init_size_bytes for row in rows), default=0),
        segments=tuple(_segments(rows)),
    )


def replica_urls(node_keys: Iterable[int], by_key: Mapping[int, StorageNode]) -> tuple[str, ...]:
    """Where copies can be read: from healthy nodes first, and from those that are down only where no other is left."""
    holders = [by_key[node_key] for node_key in node_keys if not by_key[node_key].superseded]
    up = [node for node in holders if node.status != "down"]
    up.sort(key=lambda node: (nodes.STATUSES.index(node.status), node.node_id))
    return tuple(node.url for node in up or holders)


def fragments(
    chunk_id: str, placed: Iterable[PlacedPiece], by_key: Mapping[int, StorageNode]
) -> tuple[wire.Fragment, ...]:
    """The fragments among what is placed of a chunk, in its order."""
    return tuple(
        wire.Fragment(
            fragment_id=ids.fragment_id(chunk_id, piece.fragment_index),
            fragment_index=piece.fragment_index,
            node_url=by_key[piece.node_key].url,
            size_bytes=piece.size_bytes,
            checksum=checksums.text(piece.checksum),
            status=piece.status,
        )
        for piece in placed
        if piece.fragment_index >= 0
    )


def _chunk(row: ManifestRow, by_key: Mapping[int, StorageNode]) -> wire.ManifestChunk:
    return wire.ManifestChunk(
        chunk_id=row.chunk_id,
        sequence_num=row.sequence_num,
        size_bytes=row.size_bytes,
        checksum=checksums.text(row.checksum.hex()),
        redundancy_mode=row.mode,
        replicas=replica_urls(row.copies or (), by_key),
        fragments=fragments(row.chunk_id, (PlacedPiece(*fields) for fields in row.fragments or ()), by_key),
        duration_sec=row.duration_ms / 1000,
        segment=row.segment,
    )


def _segments(rows: Sequence[ManifestRow]) -> Iterator[wire.ManifestSegment]:
    for _, members in groupby(rows, key=lambda row: row.segment):
        run = list(members)
        yield wire.ManifestSegment(
            first=run[0].sequence_num,
            count=len(run),
            duration_sec=sum(row.duration_ms for row in run) / 1000,
            bytes=sum(row.size_bytes for row in run),
        )
