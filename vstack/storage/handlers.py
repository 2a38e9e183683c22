"""Handlers for chunks and for the state of the node: decode, call, encode."""

import time
from typing import Literal

from aiohttp import web

from vstack import checksums
from vstack.errors import CorruptionError, NotFoundError
from vstack.ids import Identifier
from vstack.service.endpoint import json_response
from vstack.storage import receiving, sending
from vstack.storage.contract import DiskState
from vstack.storage.node import NODE
from vstack.storage.writing import Target
from vstack.wire import consensus
from vstack.wire import storage as wire


async def put_chunk(request: web.Request, *, chunk_id: Identifier) -> web.Response:
    """Store a chunk durably; with X-Chunk-Proposal, vote for its placement under the same flush."""
    node = request.app[NODE]
    target = Target.of(chunk_id)
    given = request.headers.get(wire.CHECKSUM_HEADER)
    expected = checksums.parse(given) if given is not None else None
    proposed = request.headers.get(consensus.PROPOSAL_HEADER)
    proposal = (
        consensus.from_header(proposed, consensus.Proposal, consensus.PROPOSAL_HEADER) if proposed is not None else None
    )
    receiving.refuse_early(request)
    headers = {}
    async with node.engine.buffer() as buffer:
        size_bytes = await receiving.receive(request, buffer.payload)
        with node.metrics.put_duration.time():
            if proposal is None:
                outcome = await node.writer.put(target, buffer, size_bytes, expected)
            else:
                outcome, receipt = await node.writer.put_proposed(target, buffer, size_bytes, expected, proposal)
                headers[consensus.RECEIPT_HEADER] = receipt
    node.metrics.put_bytes.inc(size_bytes)
    headers["Location"] = f"/chunk/{chunk_id}"
    headers["ETag"] = sending.etag(outcome.info)
    headers[wire.SIZE_HEADER] = str(outcome.info.size_bytes)
    return web.Response(status=201 if outcome.created else 200, headers=headers)


async def get_chunk(request: web.Request, *, chunk_id: Identifier) -> web.StreamResponse:
    """The bytes of a chunk, or the one range asked for, verified before the first of them leaves."""
    node = request.app[NODE]
    if request.headers.get("If-None-Match") is not None:
        unchanged = await _unchanged(request, chunk_id)
        if unchanged is not None:
            return unchanged
    started = time.perf_counter()
    try:
        async with node.engine.get(chunk_id) as reading:
            elapsed_s = time.perf_counter() - started
            node.metrics.get_duration.observe(elapsed_s)
            node.slow_reads.note(chunk_id, elapsed_s)
            response = await sending.send(request, reading)
    except CorruptionError:
        node.metrics.corruption.inc()
        raise
    node.metrics.get_bytes.inc(response.content_length or 0)
    return response


async def head_chunk(request: web.Request, *, chunk_id: Identifier) -> web.Response:
    """The headers of GET, without reading the disk."""
    unchanged = await _unchanged(request, chunk_id)
    if unchanged is not None:
        return unchanged
    info = await request.app[NODE].engine.head(chunk_id)
    if info is None:
        raise NotFoundError(f"no chunk {chunk_id}")
    return web.Response(headers={**sending.chunk_headers(info), "Content-Length": str(info.size_bytes)})


async def delete_chunk(request: web.Request, *, chunk_id: Identifier) -> None:
    """Remove a chunk durably."""
    if not await request.app[NODE].engine.delete(chunk_id):
        raise NotFoundError(f"no chunk {chunk_id}")


async def list_chunks(request: web.Request, *, query: wire.InventoryQuery) -> wire.Inventory:
    """A page of the chunks that this node holds."""
    page, after = await request.app[NODE].engine.chunks(query.after, query.limit, video_id=query.video_id)
    rows = tuple(
        wire.StoredChunk(
            chunk_id=info.chunk_id,
            size_bytes=info.size_bytes,
            checksum=checksums.text(info.checksum),
            fragment_index=info.fragment_index,
            epoch=info.epoch,
        )
        for info in page
    )
    return wire.Inventory(chunks=rows, next=after)


async def ping(request: web.Request) -> web.Response:
    """Answers at once, for measuring latency."""
    started = time.perf_counter()
    engine = request.app[NODE].engine
    usage = engine.usage()
    headers = {
        wire.NODE_HEADER: engine.identity.node_id,
        wire.DISK_USAGE_HEADER: f"{usage.used_percent:.1f}",
        wire.CHUNK_COUNT_HEADER: str(usage.chunk_count),
        "Cache-Control": "no-cache",
    }
    headers[wire.RESPONSE_TIME_HEADER] = f"{(time.perf_counter() - started) * 1000:.3f}"
    return web.Response(headers=headers)


async def health(request: web.Request) -> wire.Health | web.Response:
    """Whether the node can take chunks: 503 where it cannot."""
    node = request.app[NODE]
    usage = node.engine.usage()
    statuses: dict[DiskState, Literal["healthy", "warning", "critical"]] = {
        DiskState.HEALTHY: "healthy",
        DiskState.WARNING: "warning",
    }
    answer = wire.Health(
        status=statuses.get(usage.state, "critical"),
        disk_usage=round(usage.used_percent, 1),
        chunk_count=usage.chunk_count,
        uptime=round(time.monotonic() - node.started, 1),
        node_id=node.engine.identity.node_id,
        read_only=usage.state is DiskState.READ_ONLY,
        capacity_bytes=usage.capacity_bytes,
        quarantined_bytes=usage.quarantined_bytes,
    )
    return json_response(answer, status=503) if answer.status == "critical" else answer


async def _unchanged(request: web.Request, chunk_id: str) -> web.Response | None:
    """304 where the client's copy, named in If-None-Match, is the stored one."""
    tags = request.if_none_match
    info = await request.app[NODE].engine.head(chunk_id) if tags else None
    if not tags or info is None or not any(tag.value in ("*", info.checksum) for tag in tags):
        return None
    return web.Response(status=304, headers={"ETag": sending.etag(info), wire.SIZE_HEADER: str(info.size_bytes)})
