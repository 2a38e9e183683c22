"""From the manifest that the metadata service gives to the plan that playback follows; nothing in it is taken on trust.

A manifest that does not hang together is a RemoteError: it is the service's fault, and another instance may do better.
"""

from vstack import checksums, units
from vstack.core.playback.plan import WHOLE, ChunkPlan, Plan, Source
from vstack.errors import InvalidRequestError, NotFoundError, RemoteError, UnavailableError
from vstack.wire.metadata import Manifest, ManifestChunk


def to_plan(manifest: Manifest) -> Plan:
    """The plan of an active video; UnavailableError while it is uploaded, NotFoundError where it cannot be played."""
    if manifest.status == "uploading":
        raise UnavailableError(f"video {manifest.video_id} is still being uploaded")
    if manifest.status != "active":
        raise NotFoundError(f"video {manifest.video_id} cannot be played: its status is {manifest.status}")
    chunks = sorted(manifest.chunks, key=lambda chunk: chunk.sequence_num)
    if not chunks or [chunk.sequence_num for chunk in chunks] != list(range(manifest.total_chunks)):
        raise RemoteError(f"the manifest of video {manifest.video_id} does not list its {manifest.total_chunks} chunks")
    # A manifest without durations of its own spreads the video's evenly.
    even_s = 0.0 if any(chunk.duration_sec > 0 for chunk in chunks) else manifest.duration_sec / len(chunks)
    try:
        return Plan(tuple(_chunk(chunk, even_s) for chunk in chunks))
    except InvalidRequestError as error:
        raise RemoteError(f"the manifest of video {manifest.video_id} is not valid: {error}") from error


def _chunk(chunk: ManifestChunk, even_s: float) -> ChunkPlan:
    _check_size(chunk.chunk_id, chunk.size_bytes)
    checksum = checksums.parse(chunk.checksum)
    if chunk.redundancy_mode == "erasure_coding":
        needed, sources = units.DATA_SHARDS, _fragments(chunk)
    else:
        needed, sources = (
            1,
            tuple(Source(node, chunk.chunk_id, chunk.size_bytes, checksum, WHOLE) for node in chunk.replicas),
        )
    return ChunkPlan(
        chunk.chunk_id, chunk.size_bytes, checksum, max(0.0, chunk.duration_sec or even_s), sources, needed
    )


def _fragments(chunk: ManifestChunk) -> tuple[Source, ...]:
    for fragment in chunk.fragments:
        _check_size(fragment.fragment_id, fragment.size_bytes)
    return tuple(
        Source(
            fragment.node_url,
            fragment.fragment_id,
            fragment.size_bytes,
            checksums.parse(fragment.checksum),
            fragment.fragment_index,
        )
        for fragment in chunk.fragments
        if fragment.status == "active" and 0 <= fragment.fragment_index < units.TOTAL_SHARDS
    )


def _check_size(name: str, size_bytes: int) -> None:
    if not 0 < size_bytes <= units.MAX_CHUNK_BYTES:
        raise InvalidRequestError(f"{name} has {size_bytes} bytes")
