"""The uploader's endpoints: decode, call, encode."""

import contextlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from vstack import ids
from vstack.errors import NotFoundError, UnavailableError, VStackError
from vstack.ids import Identifier
from vstack.service.endpoint import json_response
from vstack.service.middleware import error_response, expect
from vstack.uploader import receive
from vstack.uploader.metrics import Metrics
from vstack.uploader.queue import JobQueue
from vstack.uploader.sessions import Session, SessionStore
from vstack.uploader.spool import Spool
from vstack.wire.common import timestamp
from vstack.wire.uploader import Health, UploadAccepted, UploadStatus

SERVICE_NAME: Final = "uploader-service"
RECEIVED_AFTER_S: Final = 2.0


class Uploads:
    """What the handlers need of the service."""

    def __init__(
        self, *, queue: JobQueue, store: SessionStore, spool: Spool, metrics: Metrics, max_upload_bytes: int
    ) -> None:
        self.queue = queue
        self.store = store
        self.spool = spool
        self.metrics = metrics
        self.max_upload_bytes = max_upload_bytes
        self._receiving: set[str] = set()

    def earlier(self, request: web.Request) -> Session | None:
        """What became of this very upload when it was sent before, if it was accepted then."""
        session_id = receive.key_of(request)
        try:
            return None if session_id is None else self.store.get(session_id)
        except NotFoundError:
            return None

    def check_head(self, request: web.Request) -> None:
        """Everything that can refuse an upload before its body is read."""
        receive.check_head(request, self.max_upload_bytes)
        if receive.key_of(request) in self._receiving:
            raise UnavailableError("this upload is being received already", retry_after_s=RECEIVED_AFTER_S)
        self.queue.require_room()
        self.spool.require(request.content_length or 0)

    async def accept(self, request: web.Request) -> Session:
        """Receive one upload. Returns when its file and its session are durable and its job waits."""
        self.check_head(request)
        session_id = receive.key_of(request) or str(uuid.uuid4())
        with self.queue.admitted(), self._alone(session_id):
            async with self.spool.receiving(session_id) as incoming:
                form = await receive.receive(request, incoming, self.max_upload_bytes)
                await incoming.finish()
                session = Session(
                    session_id=session_id,
                    video_id=ids.new_video_id(),
                    title=form.title,
                    filename=form.filename,
                    size_bytes=incoming.size_bytes,
                    started_at=timestamp(datetime.now(UTC)),
                )
                await self.store.save(session)
            self.metrics.received_bytes.inc(session.size_bytes)
            self.queue.put(session_id)
        return session

    @contextlib.contextmanager
    def _alone(self, session_id: str) -> Iterator[None]:
        self._receiving.add(session_id)
        try:
            yield
        finally:
            self._receiving.discard(session_id)


UPLOADS: Final = web.AppKey("uploads", Uploads)


async def upload(request: web.Request) -> UploadAccepted:
    """Receive a video file (multipart/form-data: video, title) and start to work on it.

    A client that cannot know whether its upload arrived may send it again: with the header `Idempotency-Key`, a UUID of
    its own that becomes the session's id, an upload that was accepted is not received twice but answered as before.
    """
    uploads = request.app[UPLOADS]
    try:
        return _accepted(uploads.earlier(request) or await uploads.accept(request))
    except VStackError:
        uploads.metrics.uploads.labels("refused").inc()
        raise


def _accepted(session: Session) -> UploadAccepted:
    return UploadAccepted(
        video_id=session.video_id,
        upload_session_id=session.session_id,
        title=session.title,
        status=session.status,
        message="Video upload received and processing started",
        status_url=f"/upload/status/{session.session_id}",
    )


async def before_upload(request: web.Request) -> web.StreamResponse | None:
    """Answer `Expect: 100-continue`: what the head alone shows to be wrong, or accepted before, is not to be sent."""
    uploads = request.app[UPLOADS]
    try:
        if (session := uploads.earlier(request)) is not None:
            return json_response(_accepted(session))
        uploads.check_head(request)
    except VStackError as error:
        return error_response(error)
    return await expect(request)


async def status(request: web.Request, *, upload_session_id: Identifier) -> UploadStatus:
    """How far an upload is."""
    return request.app[UPLOADS].store.get(upload_session_id).public()


async def health(request: web.Request) -> Health | web.Response:
    """Whether uploads are taken: 503 while the disk has no room for any, or the service is stopping."""
    uploads = request.app[UPLOADS]
    open_ = uploads.spool.free_bytes() > 0 and not uploads.queue.draining
    answer = Health(
        status="healthy" if open_ else "unhealthy", service=SERVICE_NAME, active_uploads=uploads.queue.active
    )
    return answer if open_ else json_response(answer, status=503)
