"""Typed client of the uploader: streams a file from disk, then follows what becomes of it."""

import asyncio
import mimetypes
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final

import aiohttp
import msgspec

from vstack import errors
from vstack.rpc.http import JsonCaller, describe, error_of
from vstack.units import MIB
from vstack.wire.uploader import UploadAccepted, UploadStatus

PIECE_BYTES: Final = 1 * MIB
POLL_INTERVAL_S: Final = 0.5
STALL_TIMEOUT_S: Final = 300.0
"""How long the uploader may take to answer once it has the whole file: it flushes it to its disk first."""

OnProgress = Callable[[int, int], None]
"""Called with (bytes sent, bytes of the file)."""
OnStatus = Callable[[UploadStatus], None]


class UploaderClient:
    """Calls to one uploader. An upload is never repeated by itself: each would become a video of its own."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._url = base_url.rstrip("/")
        self._http = JsonCaller(session, [base_url])

    async def upload(self, file: Path, title: str, on_progress: OnProgress | None = None) -> UploadAccepted:
        """Send a file; returns when the uploader has it on its disk. Memory holds a few pieces, whatever its size.

        InvalidRequestError, TooLargeError, UnavailableError (the queue is full), StorageFullError as the uploader
        says; InvalidRequestError where the file cannot be read; RemoteError where the connection fails.
        """
        try:
            source = await asyncio.to_thread(file.open, "rb")
        except OSError as error:
            raise errors.InvalidRequestError(f"cannot read {file}: {error.strerror}") from error
        with source:
            return await self._send(_Form(source, file, title, on_progress))

    async def status(self, session_id: str) -> UploadStatus:
        return await self._http.call("GET", f"/upload/status/{session_id}", UploadStatus)

    async def wait(
        self, session_id: str, on_status: OnStatus | None = None, *, poll_interval_s: float = POLL_INTERVAL_S
    ) -> UploadStatus:
        """Poll until the upload is completed or failed; the last status."""
        while True:
            status = await self.status(session_id)
            if on_status is not None:
                on_status(status)
            if status.status in ("completed", "failed"):
                return status
            await asyncio.sleep(poll_interval_s)

    async def _send(self, form: "_Form") -> UploadAccepted:
        url = f"{self._url}/upload"
        headers = {
            "Content-Type": f"multipart/form-data; boundary={form.boundary}",
            "Content-Length": str(form.content_length),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=STALL_TIMEOUT_S)
        try:
            # 100-continue: a full queue or a wrong form is answered before the file is sent.
            async with self._session.post(
                url, data=form.body(), headers=headers, timeout=timeout, expect100=True
            ) as response:
                content = await response.read()
                if response.status >= 400:
                    raise error_of(response.status, content, url, response.headers)
                return msgspec.json.decode(content, type=UploadAccepted)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.RemoteError(f"POST {url}: {describe(error)}") from error
        except msgspec.DecodeError as error:
            raise errors.RemoteError(f"{url} gave an answer that is not of the expected form: {error}") from error


class _Form:
    """The multipart body of one upload: the title first, so that a wrong one is refused before the file is sent."""

    def __init__(self, source: BinaryIO, file: Path, title: str, on_progress: OnProgress | None) -> None:
        self._source = source
        self._on_progress = on_progress
        self._file_bytes = file.stat().st_size
        self.boundary = f"vstack-{secrets.token_hex(16)}"
        name = file.name.encode(errors="replace").decode().translate(_QUOTED)
        media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._head = (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="title"\r\n\r\n{title}\r\n'
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="video"; filename="{name}"\r\n'
            f"Content-Type: {media_type}\r\n\r\n"
        ).encode(errors="replace")
        self._tail = f"\r\n--{self.boundary}--\r\n".encode()
        self.content_length = len(self._head) + self._file_bytes + len(self._tail)

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of the body. A file that changes its size meanwhile ends the upload."""
        yield self._head
        sent_bytes = 0
        while piece := await asyncio.to_thread(self._source.read, PIECE_BYTES):
            sent_bytes += len(piece)
            if sent_bytes > self._file_bytes:
                break
            yield piece
            if self._on_progress is not None:
                self._on_progress(sent_bytes, self._file_bytes)
        if sent_bytes != self._file_bytes:
            raise OSError("the file changed while it was being sent")
        yield self._tail


# As browsers write file names into a form (HTML standard, "multipart form data").
_QUOTED: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
