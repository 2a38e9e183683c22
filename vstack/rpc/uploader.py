"""Typed client of the uploader: streams a file from disk, then follows what becomes of it.

The uploader may be restarted meanwhile, and its host lose power. Invariant: an upload carries one key however often it
is sent, so that an uploader that has accepted it says so instead of taking it for another video.
"""

import asyncio
import mimetypes
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final

import aiohttp
import msgspec

from vstack import errors
from vstack.rpc.http import JsonCaller, backoff_s, describe, error_of
from vstack.units import MIB
from vstack.wire.uploader import KEY_HEADER, UploadAccepted, UploadStatus

PIECE_BYTES: Final = 1 * MIB
POLL_INTERVAL_S: Final = 0.5
STALL_TIMEOUT_S: Final = 300.0
"""How long the uploader may take to answer once it has the whole file: it flushes it to its disk first."""

PATIENCE_S: Final = 150.0
"""How long an uploader may be away or refuse: longer than it drains and starts again."""
MAX_PAUSE_S: Final = 10.0
MAX_SENDS: Final = 3
"""How often an upload that breaks off on the way is sent."""

OnProgress = Callable[[int, int], None]
"""Called with (bytes sent, bytes of the file)."""
OnStatus = Callable[[UploadStatus], None]
OnWait = Callable[[errors.VStackError], None]
"""Called with the reason for every pause until the uploader is asked again."""


class UploaderClient:
    """Calls to one uploader. While it does not answer, or asks to come again, they wait for up to `patience_s`."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, *, patience_s: float = PATIENCE_S) -> None:
        self._session = session
        self._patience_s = patience_s
        self._url = base_url.rstrip("/")
        self._http = JsonCaller(session, [base_url])

    async def upload(
        self,
        file: Path,
        title: str,
        on_progress: OnProgress | None = None,
        on_wait: OnWait | None = None,
    ) -> UploadAccepted:
        """Send a file; returns when the uploader has it on its disk. Memory holds a few pieces, whatever its size.

        What breaks off is sent again from its beginning, MAX_SENDS times at most. InvalidRequestError, TooLargeError,
        StorageFullError as the uploader says; InvalidRequestError where the file cannot be read or changes meanwhile;
        UnavailableError (the queue is full) and RemoteError (no connection) where patience does not help.
        """
        try:
            source = await asyncio.to_thread(file.open, "rb")
        except OSError as error:
            raise errors.InvalidRequestError(f"cannot read {file}: {error.strerror}") from error
        with source:
            return await self._deliver(_Form(source, file, title, on_progress), on_wait)

    async def status(self, session_id: str) -> UploadStatus:
        return await self._http.call("GET", f"/upload/status/{session_id}", UploadStatus)

    async def wait(
        self, session_id: str, on_status: OnStatus | None = None, *, poll_interval_s: float = POLL_INTERVAL_S
    ) -> UploadStatus:
        """Poll until the upload is completed or failed; the last status."""
        patience = _Patience(self._patience_s)
        while True:
            try:
                status = await self.status(session_id)
            except (errors.RemoteError, errors.UnavailableError):
                if patience.is_over():
                    raise
            else:
                patience.renew()
                if on_status is not None:
                    on_status(status)
                if status.status in ("completed", "failed"):
                    return status
            await asyncio.sleep(poll_interval_s)

    async def _deliver(self, form: "_Form", on_wait: OnWait | None) -> UploadAccepted:
        """Send the form until the uploader has it, or says what is wrong with it."""
        key = str(uuid.uuid4())
        patience = _Patience(self._patience_s)
        sends = failures = 0
        while True:
            form.begun = False
            try:
                return await self._send(form, key)
            except (_NoAnswerError, errors.UnavailableError) as error:
                if form.begun:
                    sends += 1
                    patience.renew()
                if patience.is_over() or sends >= MAX_SENDS:
                    raise
                if on_wait is not None:
                    on_wait(error)
                await asyncio.sleep(_pause_s(error, failures))
                failures += 1

    async def _send(self, form: "_Form", key: str) -> UploadAccepted:
        url = f"{self._url}/upload"
        headers = {
            KEY_HEADER: key,
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
            if form.changed:
                raise errors.InvalidRequestError("the file changed while it was being sent") from error
            raise _NoAnswerError(f"POST {url}: {describe(error)}") from error
        except msgspec.DecodeError as error:
            raise errors.RemoteError(f"{url} gave an answer that is not of the expected form: {error}") from error


class _NoAnswerError(errors.RemoteError):
    """The connection failed: nobody has said what became of the request."""


class _Patience:
    """How long failures in a row are borne."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since_s: float | None = None

    def renew(self) -> None:
        """Something succeeded."""
        self._since_s = None

    def is_over(self) -> bool:
        """Note a failure; whether it came too long after the first one."""
        if self._since_s is None:
            self._since_s = time.monotonic()
        return time.monotonic() - self._since_s >= self._limit_s


def _pause_s(error: errors.VStackError, failures: int) -> float:
    """How long to wait before asking again."""
    asked_s = error.retry_after_s if isinstance(error, errors.UnavailableError) else backoff_s(failures)
    return min(MAX_PAUSE_S, asked_s)


class _Form:
    """The multipart body of one upload: the title first, so that a wrong one is refused before the file is sent.

    `begun` says that the uploader took some of it, when it was sent last; `changed` that the file is not as it was.
    """

    def __init__(self, source: BinaryIO, file: Path, title: str, on_progress: OnProgress | None) -> None:
        self._source = source
        self._on_progress = on_progress
        self._file_bytes = file.stat().st_size
        self.begun = False
        self.changed = False
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
        """The pieces of the body, from its beginning. A file that changes its size meanwhile ends the upload."""
        await asyncio.to_thread(self._source.seek, 0)
        yield self._head
        self.begun = True
        sent_bytes = 0
        while piece := await asyncio.to_thread(self._source.read, PIECE_BYTES):
            sent_bytes += len(piece)
            if sent_bytes > self._file_bytes:
                break
            yield piece
            if self._on_progress is not None:
                self._on_progress(sent_bytes, self._file_bytes)
        self.changed = sent_bytes != self._file_bytes
        if self.changed:
            raise OSError("the file changed while it was being sent")
        yield self._tail


# As browsers write file names into a form (HTML standard, "multipart form data").
_QUOTED: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
