"""The packed chunk: what the packer yields and everything downstream stores."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """Chunk `number` of a video: `data` is at most MAX_CHUNK_BYTES.

    Chunks 0..N-1 concatenated are a playable MP4. `segment` numbers the run of chunks, each starting at a random-access
    point, that this one belongs to. `init_size_bytes` is the length of the init segment at the head of chunk 0, else 0.
    `last` marks the final chunk.
    """

    number: int
    data: bytes
    duration_ms: int
    segment: int
    init_size_bytes: int = 0
    last: bool = False
