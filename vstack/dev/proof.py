"""Proves that a playback gave back what was stored, byte for byte, and what was in the source, packet for packet."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vstack import checksums
from vstack.dev.programs import Media
from vstack.errors import CorruptionError, SettingsError
from vstack.uploader import media
from vstack.wire.metadata import ManifestChunk

HASH_TIMEOUT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class StreamProof:
    """How many streams were copied and found identical, and how many had to be converted to be stored.

    `decoded` says that frames were compared instead of packets.
    """

    copied: int
    converted: int
    decoded: bool


async def check_chunks(chunks: Sequence[ManifestChunk], played: Path) -> None:
    """CorruptionError unless the file is exactly the chunks of the manifest, one after the other."""
    await asyncio.to_thread(_check_chunks, chunks, played)


async def check_streams(programs: Media, source: Path, played: Path) -> StreamProof:
    """Compare the packets of every stream that was copied; CorruptionError where one differs.

    Some containers frame packets in another way than MP4 does. There the decoded pictures and samples are compared.
    """
    plan = media.plan(await media.probe(source, ffprobe=programs.ffprobe))
    kept = [(item.stream.index, number) for number, item in enumerate(plan.streams) if item.target is None]
    for decoded, options in ((False, ("-c", "copy")), (True, ())):
        before = await _stream_hashes(programs.ffmpeg, source, [before for before, _ in kept], options)
        after = await _stream_hashes(programs.ffmpeg, played, [after for _, after in kept], options)
        if before == after:
            return StreamProof(copied=len(kept), converted=len(plan.streams) - len(kept), decoded=decoded)
    raise CorruptionError(f"the streams of the playback differ from those of {source}")


def _check_chunks(chunks: Sequence[ManifestChunk], played: Path) -> None:
    with played.open("rb") as file:
        for chunk in chunks:
            digest = hashlib.sha256(file.read(chunk.size_bytes)).hexdigest()
            if digest != checksums.parse(chunk.checksum):
                raise CorruptionError(f"the playback differs from the stored chunk {chunk.chunk_id}")
        if file.read(1):
            raise CorruptionError("the playback has more bytes than the stored chunks")


async def _stream_hashes(ffmpeg: str, file: Path, streams: Sequence[int], options: Sequence[str]) -> list[str]:
    """One line per stream, in the order given."""
    if not streams:
        return []
    maps = [word for stream in streams for word in ("-map", f"0:{stream}")]
    command = [ffmpeg, "-nostdin", "-v", "error", "-i", f"file:{file}", *maps, *options]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("-f", "streamhash", "-hash", "md5", "-"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(HASH_TIMEOUT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise SettingsError(f"ffmpeg cannot read {file}")
    return output.decode().split()
