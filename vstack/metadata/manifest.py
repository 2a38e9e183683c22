"""The manifest of a video: which chunks, in which order, and where each can be read now."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from vstack import checksums, ids
from vstack.metadata import nodes, statements, videos
from vstack.metadata.database import Database
from vstack.metadata.nodes import StorageNode
from vstack.metadata.videos import VideoRow
from vstack.units import MAX_CHUNK_BYTES, MAX_CHUNK_DURATION_S
from vstack.wire import metadata as wire
from vstack.wire.common import timestamp

WHOLE: Final = -1

_SQL = statements.load("chunks")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A chunk with its copies and fragments as parallel lists, ordered by (fragment index, node id)."""

    chunk_id: str
    sequence_num: int
    mode: wire.ChunkMode
    size_bytes: int
    checksum: str
    duration_ms: int
    segment: int
    init_size_bytes: int
    node_ids: list[str]
    fragment_indexes: list[int]
    statuses: list[str]
    sizes: list[int]
    checksums: list[str]


async def manifest(db: Database, video_id: str) -> wire.Manifest:
    """NotFoundError for an unknown video, or one that is being deleted."""
    video = await videos.get(db, video_id)
    rows = await db.rows(_SQL["manifest"], ManifestRow, {"video_id": video_id})
    return build(video, rows, {node.node_id: node for node in await nodes.all_nodes(db)})


def build(video: VideoRow, rows: Sequence[ManifestRow], by_id: Mapping[str, StorageNode]) -> wire.Manifest:
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
        chunks=tuple(_chunk(row, by_id) for row in rows),
        init_size_bytes=max((row.init_size_bytes for row in rows), default=0),
        segments=tuple(_segments(rows)),
    )


def replica_urls(node_ids: Iterable[str], by_id: Mapping[str, StorageNode]) -> tuple[str, ...]:
    """Where copies can be read: from healthy nodes first, and from those that are down only where no other is left."""
    holders = [by_id[node_id] for node_id in node_ids if not by_id[node_id].superseded]
    up = [node for node in holders if node.status != "down"]
    up.sort(key=lambda node: nodes.STATUSES.index(node.status))
    return tuple(node.url for node in up or holders)


def fragments(
    chunk_id: str, pieces: Iterable[tuple[int, str, str, int, str]], by_id: Mapping[str, StorageNode]
) -> tuple[wire.Fragment, ...]:
    """The fragments among (fragment index, node id, status, size, hex checksum), in their order."""
    return tuple(
        wire.Fragment(
            fragment_id=ids.fragment_id(chunk_id, index),
            fragment_index=index,
            node_url=by_id[node_id].url,
            size_bytes=size_bytes,
            checksum=checksums.text(checksum),
            status=status,
        )
        for index, node_id, status, size_bytes, checksum in pieces
        if index != WHOLE
    )


def _chunk(row: ManifestRow, by_id: Mapping[str, StorageNode]) -> wire.ManifestChunk:
    pieces = list(zip(row.fragment_indexes, row.node_ids, row.statuses, row.sizes, row.checksums, strict=True))
    copies = [node_id for index, node_id, status, _, _ in pieces if index == WHOLE and status == "active"]
    return wire.ManifestChunk(
        chunk_id=row.chunk_id,
        sequence_num=row.sequence_num,
        size_bytes=row.size_bytes,
        checksum=checksums.text(row.checksum),
        redundancy_mode=row.mode,
        replicas=replica_urls(copies, by_id),
        fragments=fragments(row.chunk_id, pieces, by_id),
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
