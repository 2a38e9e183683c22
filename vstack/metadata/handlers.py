"""HTTP of the service itself, of videos and of chunks: decode, call, encode."""

from typing import Final

import msgspec
from aiohttp import web

from vstack import __version__
from vstack.errors import UnavailableError
from vstack.ids import Identifier
from vstack.metadata import chunks, inspection, manifest, nodes, stats, videos
from vstack.metadata.state import METADATA
from vstack.service.endpoint import json_response
from vstack.wire import metadata as wire
from vstack.wire.common import timestamp

SERVICE: Final = "metadata-service"


async def health(request: web.Request) -> wire.Health | web.Response:
    """Whether the service can work: 200 while the database answers, else 503."""
    try:
        counts = nodes.counts(await nodes.all_nodes(request.app[METADATA].db))
    except UnavailableError as error:
        unhealthy = wire.Health(
            status="unhealthy", service=SERVICE, healthy_nodes=0, total_nodes=0, database_status="unhealthy"
        )
        body = {**msgspec.to_builtins(unhealthy), "detail": str(error), "code": error.code}
        return json_response(body, status=503, headers={"Retry-After": str(round(error.retry_after_s))})
    return wire.Health(
        status="healthy",
        service=SERVICE,
        healthy_nodes=counts["healthy"],
        total_nodes=sum(counts.values()),
        database_status="healthy",
    )


async def root(_request: web.Request) -> wire.Root:
    """What this is."""
    return wire.Root(message="V-Stack Metadata Service", version=__version__)


async def service_stats(request: web.Request) -> wire.Stats:
    """How much the cluster holds."""
    db = request.app[METADATA].db
    totals = await stats.totals(db)
    counts = nodes.counts(await nodes.all_nodes(db))
    return wire.Stats(
        total_videos=totals.videos,
        total_chunks=totals.chunks,
        total_replicas=totals.replicas,
        total_fragments=totals.fragments,
        healthy_nodes=counts["healthy"],
        service_version=__version__,
    )


async def create_video(request: web.Request, *, body: wire.VideoCreate) -> wire.VideoCreated:
    """Create a video and pin the set of nodes that decides its placements."""
    metadata = request.app[METADATA]
    video, generation = await videos.create(metadata.db, metadata.generations, body)
    members = tuple(
        wire.GenerationNode(node_id=node.node_id, host=node.host, weight=node.weight, zone=node.zone)
        for node in generation.nodes
    )
    return wire.VideoCreated(
        video_id=video.video_id,
        upload_url=f"/upload/{video.video_id}",
        generation=wire.GenerationBody(number=generation.number, nodes=members),
        created_at=timestamp(video.created_at),
    )


async def list_videos(request: web.Request, *, query: wire.PageQuery) -> tuple[wire.Video, ...]:
    """Videos, the newest first."""
    rows = await videos.page(request.app[METADATA].db, query.limit, query.offset)
    return tuple(row.to_wire() for row in rows)


async def get_video(request: web.Request, *, video_id: Identifier) -> wire.Video:
    """One video."""
    return (await videos.get(request.app[METADATA].db, video_id)).to_wire()


async def set_video_status(request: web.Request, *, video_id: Identifier, body: wire.StatusChange) -> wire.Video:
    """Complete a video (active: every chunk is committed and the last one marked) or give it up (failed)."""
    db = request.app[METADATA].db
    await videos.set_status(db, video_id, body)
    return (await videos.get(db, video_id)).to_wire()


async def delete_video(request: web.Request, *, video_id: Identifier) -> None:
    """Delete a video: invisible at once, its data are removed in the background."""
    await videos.delete(request.app[METADATA].db, video_id)


async def get_manifest(request: web.Request, *, video_id: Identifier) -> wire.Manifest:
    """The chunks of a video in order, and where each can be read."""
    return await manifest.manifest(request.app[METADATA].db, video_id)


async def get_popularity(request: web.Request, *, video_id: Identifier) -> wire.Popularity:
    """How often a video was viewed."""
    popularity = await videos.popularity(request.app[METADATA].db, video_id)
    return wire.Popularity(video_id=video_id, view_count=popularity.view_count)


async def count_view(request: web.Request, *, video_id: Identifier) -> wire.Acknowledged:
    """Count one view."""
    await videos.count_view(request.app[METADATA].db, video_id)
    return wire.Acknowledged(status="ok", message=f"View count incremented for {video_id}")


async def commit_chunk(request: web.Request, *, chunk_id: Identifier, body: wire.CommitRequest) -> wire.CommitReply:
    """Commit where a chunk lives, by consensus of its acceptors."""
    return await request.app[METADATA].committer.commit(chunk_id, body)


async def get_fragments(request: web.Request, *, chunk_id: Identifier) -> wire.ChunkFragments:
    """The fragments of an erasure-coded chunk; none for a replicated one."""
    db = request.app[METADATA].db
    placed = await chunks.placed(db, chunk_id)
    by_key = {node.node_key: node for node in await nodes.all_nodes(db)}
    return wire.ChunkFragments(chunk_id=chunk_id, fragments=manifest.fragments(chunk_id, placed, by_key))


async def get_consensus(request: web.Request, *, chunk_id: Identifier) -> wire.ConsensusState:
    """What the acceptors of a chunk say about it now."""
    metadata = request.app[METADATA]
    return await inspection.inspect(metadata.db, metadata.generations, metadata.consensus, chunk_id)
