"""`vstack videos`, `vstack nodes`, `vstack delete ID`: what the metadata service knows."""

import argparse
from typing import Final

from vstack import ids
from vstack.cli import output
from vstack.cli.parser import metadata_urls
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.wire import metadata as wire

PAGE: Final = 1000


def videos(options: argparse.Namespace) -> int:
    """List all videos, newest as the service orders them."""
    found = output.run(_videos(options))
    if options.json:
        output.print_json(found)
    else:
        rows = (
            (
                video.video_id,
                video.title,
                output.duration(video.duration_sec),
                str(video.total_chunks),
                output.size(video.size_bytes),
                video.status,
                str(video.view_count),
                video.created_at,
            )
            for video in found
        )
        output.print_table(("ID", "TITLE", " LENGTH", " CHUNKS", " SIZE", "STATUS", " VIEWS", "CREATED"), rows)
    return 0


def nodes(options: argparse.Namespace) -> int:
    """List all storage nodes."""
    found = output.run(_nodes(options))
    if options.json:
        output.print_json(found)
    else:
        rows = (
            (
                node.node_id,
                node.node_url,
                node.status,
                node.host,
                f"{node.disk_usage_percent:.1f} %",
                str(node.chunk_count),
                node.last_heartbeat or "never",
            )
            for node in found.nodes
        )
        output.print_table(("ID", "URL", "STATUS", "HOST", " DISK", " CHUNKS", "LAST HEARTBEAT"), rows)
    return 0


def delete(options: argparse.Namespace) -> int:
    """Delete a video. NotFoundError where there is none."""
    video_id = ids.check(options.video_id, "a video id")
    output.run(_delete(options, video_id))
    if options.json:
        output.print_json({"deleted": video_id})
    return 0


async def _videos(options: argparse.Namespace) -> tuple[wire.Video, ...]:
    found: list[wire.Video] = []
    async with new_session() as session:
        client = MetadataClient(session, metadata_urls(options))
        while True:
            page = await client.videos(limit=PAGE, offset=len(found))
            found += page
            if len(page) < PAGE:
                return tuple(found)


async def _nodes(options: argparse.Namespace) -> wire.NodeList:
    async with new_session() as session:
        return await MetadataClient(session, metadata_urls(options)).all_nodes()


async def _delete(options: argparse.Namespace, video_id: str) -> None:
    async with new_session() as session:
        await MetadataClient(session, metadata_urls(options)).delete_video(video_id)
