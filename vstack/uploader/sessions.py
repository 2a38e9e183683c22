"""Upload sessions: what became of every file that was accepted, across restarts.

One JSON file per session, replaced atomically and flushed. Invariants: a change is durable before anyone can see it, so
what a client was told never goes backwards, not even over a crash; the store keeps at most KEEP_FINISHED finished
sessions, none longer than KEEP_FINISHED_S.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
import structlog

from vstack.errors import DiskError, NotFoundError
from vstack.uploader import progress
from vstack.wire.common import Message
from vstack.wire.uploader import UploadPhase, UploadStatus

KEEP_FINISHED: Final = 1000
KEEP_FINISHED_S: Final = 7 * 24 * 3600.0

log = structlog.get_logger()


class Session(Message, frozen=True, kw_only=True):
    """One upload, as it is stored.

    `attempts` counts the runs of its job that began and did not end in order since it last got further: a file that
    brings the process down is known by them. `registered` says that the metadata service may know the video, so giving
    up means telling it so.
    """

    session_id: str
    video_id: str
    title: str
    filename: str
    size_bytes: int
    started_at: str
    status: UploadPhase = "processing"
    progress: int = progress.RANGES["processing"][0]
    total_chunks: int | None = None
    chunks_committed: int = 0
    error: str | None = None
    attempts: int = 0
    registered: bool = False
    finished_at_s: float | None = None

    @property
    def finished(self) -> bool:
        return self.status in ("completed", "failed")

    def moved(self, phase: UploadPhase, fraction: float = 0.0) -> "Session":
        """The session with `fraction` of `phase` done.

        A job that runs again passes through phases that are over, and shows none of them.
        """
        if progress.is_past(phase, self.status):
            return self
        return msgspec.structs.replace(self, status=phase, progress=progress.advance(self.progress, phase, fraction))

    def public(self) -> UploadStatus:
        return UploadStatus(
            video_id=self.video_id,
            title=self.title,
            filename=self.filename,
            status=self.status,
            progress=self.progress,
            started_at=self.started_at,
            total_chunks=self.total_chunks,
            error=self.error,
            chunks_committed=self.chunks_committed,
            size_bytes=self.size_bytes,
        )


class SessionStore:
    """All sessions in memory, each with its file in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sessions: dict[str, Session] = {}
        self._disk = ThreadPoolExecutor(1, "sessions")  # one thread: writes of a session cannot overtake each other

    def load(self) -> None:
        """Read what an earlier process left. Called once, before the service listens."""
        self._directory.mkdir(parents=True, exist_ok=True)
        sync_directory(self._directory.parent)
        for leftover in self._directory.glob("*.tmp"):
            leftover.unlink()
        for path in self._directory.glob("*.json"):
            try:
                session = msgspec.json.decode(path.read_bytes(), type=Session)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("session_unreadable", file=path.name, error=str(error))
                continue
            self._sessions[session.session_id] = session

    def get(self, session_id: str) -> Session:
        """The session, or NotFoundError."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise NotFoundError(f"there is no upload session {session_id}") from None

    def all(self) -> list[Session]:
        return list(self._sessions.values())

    async def save(self, session: Session) -> None:
        """Make a session durable, then visible. DiskError where that fails; nothing is visible then."""
        await self._on_disk(lambda: self._write(session))
        self._sessions[session.session_id] = session
        if session.finished:
            await self._forget_old()

    def show(self, session: Session) -> None:
        """Make a change visible that need not survive a crash."""
        self._sessions[session.session_id] = session

    def close(self) -> None:
        self._disk.shutdown()

    async def _forget_old(self) -> None:
        finished = sorted(
            (session for session in self._sessions.values() if session.finished_at_s is not None),
            key=lambda session: session.finished_at_s or 0,
            reverse=True,
        )
        oldest_s = time.time() - KEEP_FINISHED_S
        for place, session in enumerate(finished):
            # A failed upload that the metadata service has not been told of yet is not over.
            expired = place >= KEEP_FINISHED or (session.finished_at_s or 0) < oldest_s
            if expired and not session.registered:
                del self._sessions[session.session_id]
                await self._on_disk(self._path(session).unlink)

    async def _on_disk(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, work)
        except OSError as error:
            raise DiskError(f"cannot record the upload: {error.strerror}") from error

    def _write(self, session: Session) -> None:
        path = self._path(session)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(session))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(self._directory)

    def _path(self, session: Session) -> Path:
        return self._directory / f"{session.session_id}.json"


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
