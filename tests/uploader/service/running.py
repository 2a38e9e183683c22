"""An uploader on a real socket, and what tests ask of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from vstack.dev import programs
from vstack.rpc.http import new_session
from vstack.rpc.uploader import UploaderClient
from vstack.service.runner import serving
from vstack.settings import UploaderSettings
from vstack.uploader.app import make_app

BOUNDARY = "the-boundary"


def settings_for(directory: Path, *metadata_urls: str, **changes: Any) -> UploaderSettings:
    media = programs.media()
    fields: dict[str, Any] = {
        "data_dir": str(directory / "uploader"),
        "ffmpeg": media.ffmpeg,
        "ffprobe": media.ffprobe,
        "metadata_urls": metadata_urls or ("http://127.0.0.1:9",),
    }
    return UploaderSettings(**{**fields, **changes})


def field(name: str, value: bytes | str, filename: str | None = None, headers: str = "") -> bytes:
    """One part of a form, exactly as given."""
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{headers}\r\n'
    return head.encode() + (value.encode() if isinstance(value, str) else value) + b"\r\n"


def form(*parts: bytes, end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> bytes:
    return b"".join(parts) + end


def good_form(data: bytes = b"not really a video", title: str = "A title", filename: str = "clip.mp4") -> bytes:
    return form(field("video", data, filename), field("title", title))


@dataclass
class Service:
    """A running uploader."""

    url: str
    port: int
    session: aiohttp.ClientSession
    data_dir: Path

    @property
    def client(self) -> UploaderClient:
        return UploaderClient(self.session, self.url)

    @property
    def received(self) -> list[str]:
        """Names of the files in the spool."""
        return sorted(path.name for path in (self.data_dir / "incoming").iterdir())

    @property
    def sessions(self) -> list[str]:
        """Names of the files of sessions, without those that are being written."""
        return sorted(path.name for path in (self.data_dir / "sessions").glob("*.json"))

    async def post(self, body: Any, *, content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> "Answer":
        headers = {"Content-Type": content_type}
        async with self.session.post(f"{self.url}/upload", data=body, headers=headers) as response:
            return Answer(response.status, await response.json(), dict(response.headers))

    async def get(self, path: str) -> "Answer":
        async with self.session.get(self.url + path) as response:
            text = response.content_type != "application/json"
            return Answer(
                response.status, await response.text() if text else await response.json(), dict(response.headers)
            )

    async def raw(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own, and read the first line that comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(10):
                return await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def leave(self, data: bytes) -> None:
        """Send bytes on a connection of their own, and go away."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name with these labels."""
        lines = (await self.get("/metrics")).body.splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.partition("{")[0].partition(" ")[0] == name and all(label in line for label in wanted)
        )


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]


@contextlib.asynccontextmanager
async def running_service(settings: UploaderSettings) -> AsyncIterator[Service]:
    async with serving(await make_app(settings), "127.0.0.1", 0) as runner, new_session() as session:
        port = runner.addresses[0][1]
        yield Service(f"http://127.0.0.1:{port}", port, session, Path(settings.data_dir))
