"""Typed client of the metadata service. Accepts several URLs and fails over between them."""

from collections.abc import Sequence

import aiohttp

from vstack.rpc.http import CALL_TIMEOUT_S, JsonCaller
from vstack.wire import metadata as wire


class MetadataClient:
    """One method per endpoint that other parts use. All of them are safe to repeat unless they say otherwise."""

    def __init__(self, session: aiohttp.ClientSession, base_urls: Sequence[str]) -> None:
        self._http = JsonCaller(session, base_urls)

    async def create_video(self, request: wire.VideoCreate) -> wire.VideoCreated:
        """Repeatable only with a `video_id` of the caller's: the service answers the same creation again."""
        return await self._http.call(
            "POST", "/video", wire.VideoCreated, body=request, retry=request.video_id is not None
        )

    async def set_status(self, video_id: str, change: wire.StatusChange) -> wire.Video:
        return await self._http.call("PATCH", f"/video/{video_id}/status", wire.Video, body=change)

    async def video(self, video_id: str) -> wire.Video:
        return await self._http.call("GET", f"/video/{video_id}", wire.Video)

    async def videos(self, *, limit: int = 100, offset: int = 0) -> tuple[wire.Video, ...]:
        params = {"limit": str(limit), "offset": str(offset)}
        return await self._http.call("GET", "/videos", tuple[wire.Video, ...], params=params)

    async def delete_video(self, video_id: str) -> None:
        await self._http.call("DELETE", f"/video/{video_id}", type(None))

    async def manifest(self, video_id: str, *, timeout_s: float = CALL_TIMEOUT_S) -> wire.Manifest:
        return await self._http.call("GET", f"/manifest/{video_id}", wire.Manifest, timeout_s=timeout_s)

    async def count_view(self, video_id: str) -> wire.Acknowledged:
        """Not repeated: a lost answer would count twice."""
        return await self._http.call("POST", f"/video/{video_id}/view", wire.Acknowledged, retry=False)

    async def commit_chunk(self, chunk_id: str, request: wire.CommitRequest) -> wire.CommitReply:
        return await self._http.call("POST", f"/chunk/{chunk_id}/commit", wire.CommitReply, body=request, timeout_s=30)

    async def healthy_nodes(self) -> tuple[wire.NodeSummary, ...]:
        return await self._http.call("GET", "/nodes/healthy", tuple[wire.NodeSummary, ...])

    async def all_nodes(self) -> wire.NodeList:
        return await self._http.call("GET", "/nodes/all", wire.NodeList)

    async def register_node(self, registration: wire.NodeRegistration) -> wire.NodeRegistered:
        return await self._http.call("POST", "/nodes/register", wire.NodeRegistered, body=registration)

    async def heartbeat(self, node_id: str, beat: wire.Heartbeat) -> wire.Acknowledged:
        return await self._http.call(
            "POST", f"/nodes/{node_id}/heartbeat", wire.Acknowledged, body=beat, retry=False, timeout_s=3
        )
