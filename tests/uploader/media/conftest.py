"""Clips are made once per run; `Packed` is a clip that went through the uploader's media pipeline."""

import copy
import os
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clips import ClipStore
from vstack.core.fmp4 import PackedChunk
from vstack.dev import programs
from vstack.uploader.media import MediaInfo, Plan, chunk_stream, plan, probe
from vstack.uploader.media.chunking import DEFAULT_TIMEOUT_S
from vstack.uploader.media.probing import PROBE_TIMEOUT_S


@dataclass(frozen=True)
class Packed:
    source: Path
    plan: Plan
    chunks: list[PackedChunk]
    output: Path
    """All chunks, concatenated."""

    @property
    def segments(self) -> list[list[PackedChunk]]:
        count = self.chunks[-1].segment + 1
        return [[chunk for chunk in self.chunks if chunk.segment == number] for number in range(count)]

    @property
    def duration_s(self) -> float:
        return sum(chunk.duration_ms for chunk in self.chunks) / 1000

    def segment_file(self, number: int) -> Path:
        """The init segment and one segment, as a player that starts there would fetch them."""
        first = self.chunks[0]
        head = first.data[: first.init_size_bytes] if number else b""
        path = self.output.with_name(f"segment-{number}.mp4")
        path.write_bytes(head + b"".join(chunk.data for chunk in self.segments[number]))
        return path


class Studio:
    """Clips by name, and the programs under test: VSTACK_FFMPEG and VSTACK_FFPROBE may name others than the default."""

    def __init__(self, directory: Path) -> None:
        media = programs.media()
        self.directory = directory
        self.clips = ClipStore(directory, media.ffmpeg)
        self.ffmpeg = os.environ.get("VSTACK_FFMPEG", media.ffmpeg)
        self.ffprobe = os.environ.get("VSTACK_FFPROBE", media.ffprobe)
        self.media_socket = ""
        self._packed: dict[str, Packed] = {}

    def behind(self, media_socket: str) -> "Studio":
        """The same with programs that the unit behind a socket runs."""
        other = copy.copy(self)
        other.media_socket = media_socket
        return other

    def probe(self, path: Path, *, timeout_s: float = PROBE_TIMEOUT_S) -> Awaitable[MediaInfo]:
        return probe(path, ffprobe=self.ffprobe, media_socket=self.media_socket, timeout_s=timeout_s)

    def chunks(
        self, path: Path, plan: Plan, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> AsyncGenerator[PackedChunk, None]:
        return chunk_stream(path, plan, ffmpeg=self.ffmpeg, media_socket=self.media_socket, timeout_s=timeout_s)

    def clip(self, name: str) -> Path:
        """The clip, or a skip that names the missing encoder."""
        if missing := self.clips.missing_encoders(name):
            pytest.skip(f"this ffmpeg has no encoder {', '.join(sorted(missing))}")
        return self.clips.path(name)

    async def pack(self, name: str) -> Packed:
        """A clip and its chunks; packed at the first call."""
        if name not in self._packed:
            source = self.clip(name)
            decided = plan(await self.probe(source))
            chunks = [chunk async for chunk in self.chunks(source, decided)]
            output = self.directory / f"packed-{name}.mp4"
            output.write_bytes(b"".join(chunk.data for chunk in chunks))
            self._packed[name] = Packed(source, decided, chunks, output)
        return self._packed[name]


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("clips"))
