"""The uploader's endpoints: decode, call, encode."""

import uuid
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from vstack import ids
from vstack.errors import VStackError
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

    def check_head(self, request: web.Request) -> None:
        """Everything that can refuse an upload before its body is read."""
        receive.check_head(request, self.max_upload_bytes)
        self.queue.require_room()
        self.spool.require(request.content_length or 0)

    async def accept(self, request: web.Request) -> Session:
        """Receive one upload. Returns when its file and its session are durable and its job waits."""
        self.check_head(request)
        with self.queue.admitted():
            session_id = str(uuid.uuid4())
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


UPLOADS: Final = web.AppKey("uploads", Uploads)


async def upload(request: web.Request) -> UploadAccepted:
    """Receive a video file (multipart/form-data: video, title) and start to work on it."""
    uploads = request.app[UPLOADS]
    try:
        session = await uploads.accept(request)
    except VStackError:
        uploads.metrics.uploads.labels("refused").inc()
        raise
    return UploadAccepted(
        video_id=session.video_id,
        upload_session_id=session.session_id,
        title=session.title,
        status=session.status,
        message="Video upload received and processing started",
        status_url=f"/upload/status/{session.session_id}",
    )


async def before_upload(request: web.Request) -> web.StreamResponse | None:
    """Answer `Expect: 100-continue`: refuse what the head alone shows to be wrong before the file is sent."""
    try:
        request.app[UPLOADS].check_head(request)
    except VStackError as error:
        return error_response(error)
    return await expect(request)


async def status(request: web.Request, *, upload_session_id: Identifier) -> UploadStatus:
    """How far an upload is."""
    return request.app[UPLOADS].store.get(upload_session_id).public()


async def health(request: web.Request) -> Health | web.Response:
    """Whether uploads are taken: 503 while the disk has no room for any."""
    uploads = request.app[UPLOADS]
    room = uploads.spool.free_bytes() > 0
    answer = Health(
        status="healthy" if room else "unhealthy", service=SERVICE_NAME, active_uploads=uploads.queue.active
    )
    return answer if room else json_response(answer, status=503)
