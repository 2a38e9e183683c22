"""Puts a chunk together from what was fetched, and checks the whole against the manifest."""

import asyncio
from collections.abc import Mapping, Sequence

from vstack import checksums
from vstack.core import erasure
from vstack.core.playback.plan import WHOLE, ChunkPlan, Source
from vstack.errors import CorruptionError


async def assemble(chunk: ChunkPlan, sources: Sequence[Source], parts: Mapping[str, bytes]) -> bytes:
    """The bytes of `chunk`; `parts` maps object ids to verified bytes. CorruptionError where they do not make it up."""
    if sources[0].fragment == WHOLE:  # the object is the chunk, and its download has verified it
        return parts[sources[0].object_id]
    fragments = {source.fragment: parts[source.object_id] for source in sources}
    return await asyncio.to_thread(_decode, chunk, fragments)


def _decode(chunk: ChunkPlan, fragments: Mapping[int, bytes]) -> bytes:
    try:
        data = erasure.decode(fragments, chunk.size_bytes)
    except ValueError as error:
        raise CorruptionError(f"the fragments of {chunk.chunk_id} do not fit together: {error}") from error
    if checksums.of(data) != chunk.checksum:
        raise CorruptionError(f"the fragments of {chunk.chunk_id} do not make up the chunk")
    return data
