"""Where played bytes go: hashed and written in order, off the event loop."""

import asyncio
import hashlib
from pathlib import Path
from typing import BinaryIO

from vstack.errors import OutputError


class Output:
    """The byte stream of one playback. `target` None only hashes; a path is created or truncated, and closed again.

    `write` is called for one chunk at a time. OutputError where the target cannot take the bytes.
    """

    def __init__(self, target: BinaryIO | Path | None) -> None:
        self._path = target if isinstance(target, Path) else None
        self._stream = None if isinstance(target, Path) else target
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of everything that was written."""
        return self._digest.hexdigest()

    async def open(self) -> None:
        if self._path is not None:
            try:
                self._stream = await asyncio.to_thread(self._path.open, "wb")
            except OSError as error:
                raise OutputError(f"cannot write {self._path}: {error.strerror}") from error

    async def write(self, data: bytes) -> None:
        """Take all of `data`."""
        await asyncio.to_thread(self._write, data)
        self.size_bytes += len(data)

    async def close(self) -> None:
        if self._path is not None and self._stream is not None:
            stream, self._stream = self._stream, None
            try:
                await asyncio.to_thread(stream.close)
            except OSError as error:
                raise OutputError(f"cannot write {self._path}: {error.strerror}") from error

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        if self._stream is None:
            return
        rest = memoryview(data)
        try:
            while rest:  # an unbuffered stream may take less than it is given
                rest = rest[self._stream.write(rest) :]
        except (OSError, ValueError) as error:
            raise OutputError(f"the output takes no more bytes: {error}") from error
