"""The work on one received file: probe, cut, register, distribute, activate; or give up and leave nothing behind.

A job that the end of the process interrupts, orderly or not, runs again from the received file. Every step may be
repeated: the video keeps its id, and the same program cuts the same file into the same chunks, so those that are
committed are recognised and not written again.

Invariants: the session says `registered` before the metadata service can know the video, so whoever gives up later
tells that service to remove it; it says `finalizing` once all chunks are committed, and only then the file goes; a
finished session has no file; `completed` is said only after the video is active.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from vstack import checksums
from vstack.core.fmp4.chunk import PackedChunk
from vstack.errors import ConflictError, NotFoundError, RemoteError, UnavailableError, VStackError
from vstack.rpc.http import backoff_s
from vstack.uploader import media
from vstack.uploader.chunkwrite import PATIENCE_S, Cluster, Target
from vstack.uploader.distribute import Distributor
from vstack.uploader.sessions import Session, SessionStore
from vstack.uploader.spool import Spool
from vstack.wire.metadata import StatusChange, VideoCreate, VideoCreated
from vstack.wire.uploader import UploadPhase

CLEANUP_TIMEOUT_S: Final = 4.0
REAP_EVERY_S: Final = 5.0
MANIFEST_TIMEOUT_S: Final = 60.0
MAX_ATTEMPTS: Final = 3
"""A file is given up when the process has crashed so often while it worked on it, or what it needs was away so often,
with nothing gained."""
AGAIN_AFTER_S: Final = 5.0
CRASHED: Final = "the uploader crashed several times while it worked on this file"
LOST: Final = "the uploader has lost the received file; please upload it again"
GIVEN_UP: Final = (
    "the video was deleted, or given up because the uploader was away for too long; please upload it again"
)

log = structlog.get_logger()
T = TypeVar("T")


class Tracker:
    """One session while it is worked on. Every visible step is durable first."""

    def __init__(self, store: SessionStore, session: Session) -> None:
        self._store = store
        self._alone = asyncio.Lock()
        self.session = session

    async def move(self, phase: UploadPhase, fraction: float = 0.0, **changes: object) -> None:
        """Show `fraction` of `phase` as done, with other changes of fields."""
        async with self._alone:
            before = self.session
            after = msgspec.structs.replace(before.moved(phase, fraction), **changes)
            only_counted = changes.keys() <= {"chunks_committed"}
            if only_counted and (after.status, after.progress) == (before.status, before.progress):
                self._store.show(after)
            else:
                await self._store.save(after)
            self.session = after


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all jobs share."""

    store: SessionStore
    spool: Spool
    cluster: Cluster
    ffmpeg: str
    ffprobe: str
    media_socket: str
    job_timeout_s: float

    async def run(self, session_id: str) -> None:
        """Work on a received file until its session is finished. Cancelled, it leaves everything for the next run."""
        tracker = Tracker(self.store, self.store.get(session_id))
        structlog.contextvars.bind_contextvars(upload_session_id=session_id, video_id=tracker.session.video_id)
        try:
            if tracker.session.attempts >= MAX_ATTEMPTS:
                await self._give_up(tracker, CRASHED)
                return
            async with asyncio.timeout(self.job_timeout_s):
                await self._persist(tracker)
        except asyncio.CancelledError:
            await self._interrupted(tracker)
            raise
        except VStackError as error:
            await self._give_up(tracker, str(error))
        except TimeoutError:
            await self._give_up(tracker, f"not done after {self.job_timeout_s:.0f} s")
        except Exception:
            log.exception("upload_crashed")
            await self._give_up(tracker, "internal error")

    async def _persist(self, tracker: Tracker) -> None:
        """Run the job, and again where it fails through no fault of the file."""
        while True:
            try:
                return await self._process(tracker)
            except (UnavailableError, RemoteError) as error:
                if tracker.session.attempts >= MAX_ATTEMPTS:
                    raise
                log.warning("upload_postponed", error=str(error), attempts=tracker.session.attempts)
                self.cluster.metrics.retries.labels("job").inc()
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _process(self, tracker: Tracker) -> None:
        before = tracker.session
        await tracker.move("processing", attempts=before.attempts + 1)
        async with contextlib.AsyncExitStack() as late_copies:
            if before.status != "finalizing":
                total_chunks = await self._distribute(tracker, late_copies)
                await tracker.move("finalizing", total_chunks=total_chunks)
            await self.spool.remove(before.session_id)
            await self._activate(tracker.session)
            await tracker.move("completed", registered=False, finished_at_s=time.time())
            self.cluster.metrics.uploads.labels("completed").inc()
            log.info("upload_completed", total_chunks=tracker.session.total_chunks)

    async def _distribute(self, tracker: Tracker, late_copies: contextlib.AsyncExitStack) -> int:
        """Cut the file and commit all its chunks that are not committed yet; how many there are in all.

        The video is registered once ffprobe has accepted the file and ffmpeg has made its first chunk.
        """
        session = tracker.session
        path = self.spool.path(session.session_id)
        plan = media.plan(await media.probe(path, ffprobe=self.ffprobe, media_socket=self.media_socket))
        await tracker.move("chunking")
        async with self._cutting(path, plan) as chunks:
            first = await anext(chunks)
            await tracker.move("registering", registered=True)
            target = Target.of(await self._register(session, plan.duration_s), session.title)
            committed = await self._committed(session)
            await tracker.move("uploading_chunks")
            share = _Share(tracker, plan.duration_s, len(committed))
            distributor = await late_copies.enter_async_context(
                Distributor(target, self.cluster, share.committed, committed)
            )
            async with contextlib.aclosing(_chain(first, chunks)) as all_chunks:
                return await distributor.write_all(all_chunks)

    @contextlib.asynccontextmanager
    async def _cutting(self, path: Path, plan: media.Plan) -> AsyncIterator[AsyncIterator[PackedChunk]]:
        """The chunks of the file; ffmpeg is gone when the block is left."""
        started_s = time.monotonic()
        chunks = media.chunk_stream(
            path, plan, ffmpeg=self.ffmpeg, media_socket=self.media_socket, timeout_s=self.job_timeout_s
        )
        try:
            async with contextlib.aclosing(chunks):
                yield chunks
        finally:
            self.cluster.metrics.ffmpeg_seconds.inc(time.monotonic() - started_s)

    async def _register(self, session: Session, duration_s: float) -> VideoCreated:
        request = VideoCreate(title=session.title, duration_sec=duration_s, video_id=session.video_id)

        async def register() -> VideoCreated:
            await self.cluster.nodes.refresh()
            self.cluster.nodes.require_any()
            created = await self.cluster.metadata.create_video(request)
            if not created.generation.nodes:
                raise UnavailableError("no storage node is up")
            return created

        try:
            return await self._patiently(register)
        except ConflictError as error:
            if session.registered:
                raise ConflictError(GIVEN_UP) from error
            raise

    async def _committed(self, session: Session) -> Mapping[int, str]:
        """Hex checksums of the chunks that earlier runs of the job have committed, by number."""
        if not session.registered:
            return {}
        metadata = self.cluster.metadata
        manifest = await self._patiently(lambda: metadata.manifest(session.video_id, timeout_s=MANIFEST_TIMEOUT_S))
        return {chunk.sequence_num: checksums.parse(chunk.checksum) for chunk in manifest.chunks}

    async def _activate(self, session: Session) -> None:
        """Make the video visible; its duration is that of its chunks, which the metadata service knows."""
        change = StatusChange(status="active", total_chunks=session.total_chunks)
        await self._patiently(lambda: self.cluster.metadata.set_status(session.video_id, change))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of a call to the metadata service, which may be away for PATIENCE_S."""
        give_up_at_s = time.monotonic() + PATIENCE_S
        attempt = 0
        while True:
            try:
                return await call()
            except (UnavailableError, RemoteError):
                if time.monotonic() > give_up_at_s:
                    raise
            self.cluster.metrics.retries.labels("metadata").inc()
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    async def _interrupted(self, tracker: Tracker) -> None:
        """Note that this run ended in order; where that fails it counts as a crash, which costs an attempt."""
        session = tracker.session
        if session.finished:  # and waiting for a late copy only
            return
        log.info("upload_interrupted", status=session.status, chunks_committed=session.chunks_committed)
        try:
            await self.store.save(msgspec.structs.replace(session, attempts=max(0, session.attempts - 1)))
        except VStackError:
            log.exception("interruption_not_recorded")

    async def _give_up(self, tracker: Tracker, reason: str) -> None:
        """Fail the session, and remove the file and the video. What cannot be removed now, `reap` removes."""
        if tracker.session.finished:
            return
        log.warning("upload_failed", error=reason)
        self.cluster.metrics.uploads.labels("failed").inc()
        removed = not tracker.session.registered or await self._remove_video(tracker.session.video_id)
        failed = msgspec.structs.replace(
            tracker.session.moved("failed"), error=reason, registered=not removed, finished_at_s=time.time()
        )
        try:
            await self.spool.remove(failed.session_id)
            await self.store.save(failed)
        except VStackError:  # the disk: what it still says is put right at the next start
            log.exception("upload_cleanup_failed")
            self.store.show(failed)

    async def reap(self) -> None:
        """Remove the videos of failed sessions whose removal did not succeed at once."""
        for session in self.store.all():
            if session.status == "failed" and session.registered and await self._remove_video(session.video_id):
                await self.store.save(msgspec.structs.replace(session, registered=False))

    async def recover(self) -> list[str]:
        """The sessions that an earlier process left unfinished, the oldest first: their jobs run again.

        Files of no such session are removed, so is what it received in part. A session without its file fails; `reap`
        removes its video.
        """
        left: list[str] = []
        for session in sorted(self.store.all(), key=lambda session: session.started_at):
            if session.finished:
                continue
            if session.status == "finalizing" or self.spool.path(session.session_id).is_file():
                left.append(session.session_id)
                continue
            self.cluster.metrics.uploads.labels("failed").inc()
            await Tracker(self.store, session).move("failed", error=LOST, finished_at_s=time.time())
        self.cluster.metrics.resumed_uploads.inc(len(left))
        self.spool.keep_only(left)
        return left

    async def _remove_video(self, video_id: str) -> bool:
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                await self.cluster.metadata.delete_video(video_id)
        except NotFoundError:
            return True
        except (VStackError, TimeoutError) as error:
            log.warning("video_not_removed", video_id=video_id, error=str(error))
            return False
        return True


class _Share:
    """How much of a video is committed. By media time; by bytes where the file does not say how long it is.

    `before` chunks were committed by earlier runs of the job. With the first one more the job got further.
    """

    def __init__(self, tracker: Tracker, duration_s: float, before: int) -> None:
        self._tracker = tracker
        self._total_ms = duration_s * 1000
        self._before = before
        self._duration_ms = 0
        self._bytes = 0
        self._chunks = 0

    async def committed(self, chunk: PackedChunk) -> None:
        self._duration_ms += chunk.duration_ms
        self._bytes += len(chunk.data)
        self._chunks += 1
        session = self._tracker.session
        fraction = self._duration_ms / self._total_ms if self._total_ms else self._bytes / session.size_bytes
        changes = {"chunks_committed": max(self._chunks, session.chunks_committed)}
        if self._chunks > self._before and session.attempts > 1:
            changes["attempts"] = 1
        await self._tracker.move("uploading_chunks", fraction, **changes)


async def _chain(first: PackedChunk, rest: AsyncIterator[PackedChunk]) -> AsyncGenerator[PackedChunk, None]:
    yield first
    async for chunk in rest:
        yield chunk
