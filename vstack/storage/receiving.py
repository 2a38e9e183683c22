"""The body of a PUT, from the socket into the engine's buffer, with its limits checked on the way."""

import asyncio
from typing import Final

import aiohttp
from aiohttp import web

from vstack.errors import InvalidRequestError, TooLargeError
from vstack.units import MAX_CHUNK_BYTES

RECEIVE_TIMEOUT_S: Final = 30.0
"""A whole body must arrive in this time: a buffer is never held by a client that stopped sending."""


def refuse_early(request: web.Request) -> None:
    """Refuse by Content-Length, before a buffer is borrowed."""
    length = request.content_length
    if length is not None and length > MAX_CHUNK_BYTES:
        raise _too_large()
    if length == 0 or not request.body_exists:
        raise _empty()


async def receive(request: web.Request, into: memoryview) -> int:
    """Fill `into` with the body; its size in bytes.

    TooLargeError with the first byte above MAX_CHUNK_BYTES; InvalidRequestError for an empty body or one that stalls.
    What aiohttp raises for a body that breaks off passes through.
    """
    try:
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            size_bytes = await _fill(request.content, into)
    except TimeoutError as error:
        raise InvalidRequestError(f"the body did not arrive within {RECEIVE_TIMEOUT_S:.0f} s") from error
    if size_bytes == 0:
        raise _empty()
    return size_bytes


async def _fill(content: aiohttp.StreamReader, into: memoryview) -> int:
    received = 0
    while piece := await content.readany():
        end = received + len(piece)
        if end > MAX_CHUNK_BYTES:
            raise _too_large()
        into[received:end] = piece
        received = end
    return received


def _too_large() -> TooLargeError:
    return TooLargeError(f"a chunk has at most {MAX_CHUNK_BYTES} bytes")


def _empty() -> InvalidRequestError:
    return InvalidRequestError("a chunk has at least one byte")
