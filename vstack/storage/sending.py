"""The answer to a GET: verified bytes, from the engine's buffer to the socket without a copy.

Invariant: when `send` returns or raises, neither the transport nor the kernel's queue refers to the buffer any more, so
the engine may fill it with another chunk.
"""

import asyncio
from typing import Final

from aiohttp import web

from vstack.storage import ranges
from vstack.storage.contract import ChunkInfo, Reading
from vstack.wire import storage as wire

SEND_TIMEOUT_S: Final = 60.0
"""A client that does not take its chunk in this time loses the connection, and the buffer comes back."""


def chunk_headers(info: ChunkInfo) -> dict[str, str]:
    """The headers that GET and HEAD of a chunk share."""
    return {
        "Content-Type": "application/octet-stream",
        "ETag": etag(info),
        "Accept-Ranges": "bytes",
        wire.SIZE_HEADER: str(info.size_bytes),
        wire.SUPERBLOCK_HEADER: info.superblock_id,
    }


def etag(info: ChunkInfo) -> str:
    return f'"{info.checksum}"'


async def send(request: web.Request, reading: Reading) -> web.StreamResponse:
    """Answer with the chunk or the range asked for. ConnectionResetError where the client has gone."""
    info, payload = reading.info, reading.payload
    headers = chunk_headers(info)
    part = ranges.requested(request.headers, info.size_bytes, headers["ETag"])
    if part is not None:
        payload = payload[part]
        headers["Content-Range"] = ranges.content_range(part, info.size_bytes)
    headers["Content-Length"] = str(len(payload))
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    await _write(request, response, payload)
    return response


async def _write(request: web.Request, response: web.StreamResponse, payload: memoryview) -> None:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    deadline = asyncio.get_running_loop().call_later(SEND_TIMEOUT_S, transport.abort)
    try:
        transport.set_write_buffer_limits(high=0)  # so that draining means that everything has left the queue
        await response.prepare(request)
        await response.write(payload)
        await request.writer.drain()  # `write` itself waits only for what is larger than 64 KiB
    except BaseException:
        transport.abort()
        while request.transport is not None:  # noqa: ASYNC110 - until then the transport may read from the buffer
            await asyncio.sleep(0)
        raise
    finally:
        deadline.cancel()
