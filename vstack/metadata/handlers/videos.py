"""HTTP of videos: decode, call, encode."""

from aiohttp import web

from vstack.ids import Identifier
from vstack.metadata.catalogue import manifest, videos
from vstack.metadata.state import METADATA
from vstack.wire import metadata as wire
from vstack.wire.common import timestamp


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
