"""Run ffmpeg on a received file and pack what it writes into chunks, as it writes it.

Memory is one fragment and one chunk, whatever the length of the video; nothing touches the disk.
"""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from vstack.core.fmp4 import Limits, Mp4Chunker, PackedChunk
from vstack.core.fmp4.packer import DEFAULT_LIMITS
from vstack.errors import InvalidMediaError
from vstack.units import KIB, MIB
from vstack.uploader.media.model import Plan
from vstack.uploader.sandbox import running

DEFAULT_TIMEOUT_S: Final = 6 * 3600.0
_READ_BYTES: Final = 256 * KIB
_MAX_EXPANSION: Final = 8
_FREE_EXPANSION_BYTES: Final = 256 * MIB
_MISSING_TAIL_S: Final = 1.0


async def chunk_stream(
    path: Path,
    plan: Plan,
    *,
    ffmpeg: str,
    media_socket: str = "",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncGenerator[PackedChunk, None]:
    """The chunks of the file at `path`, in order; the last one only once ffmpeg has ended well.

    InvalidMediaError where ffmpeg fails, writes no MP4, writes far more than it read, or keeps us waiting for more than
    `timeout_s` in all; UnavailableError where somebody else ends it. Closing the iterator (`contextlib.aclosing`) or
    cancelling its task kills ffmpeg. The unit behind `media_socket` runs it, or where that is empty a child process.
    """
    input_bytes = (await asyncio.to_thread(path.stat)).st_size
    budget = input_bytes * _MAX_EXPANSION + _FREE_EXPANSION_BYTES
    chunker = Mp4Chunker(limits)
    packed_ms = 0
    tool = running.Tool("ffmpeg", ffmpeg, media_socket)
    async with running.run(tool, plan.output_args, source=path, timeout_s=timeout_s) as child:
        while data := await child.read(_READ_BYTES):
            budget -= len(data)
            if budget < 0:
                raise InvalidMediaError("the file unpacks to far more than its size")
            for chunk in chunker.push(data):
                packed_ms += chunk.duration_ms
                yield chunk
        if (status := await child.exit_status()) != 0:
            raise running.verdict("the video cannot be read", child, status)
    final = list(chunker.finish())
    packed_s = (packed_ms + sum(chunk.duration_ms for chunk in final)) / 1000
    if child.errors and packed_s < plan.duration_s - _MISSING_TAIL_S:
        where = f"{packed_s:.1f} of {plan.duration_s:.1f} s"
        raise running.failure(f"the video breaks off after {where}", child)
    for chunk in final:
        yield chunk
