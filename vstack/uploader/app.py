"""Wires the uploader service together."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from vstack.errors import SettingsError, VStackError
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.rpc.storage import StorageClient
from vstack.service import app as service_app
from vstack.service import logs, runner
from vstack.service import metrics as service_metrics
from vstack.service.endpoint import Endpoint
from vstack.settings import UploaderSettings
from vstack.uploader import handlers
from vstack.uploader.chunkwrite import Cluster
from vstack.uploader.handlers import UPLOADS, Uploads
from vstack.uploader.job import REAP_EVERY_S, Workshop
from vstack.uploader.metrics import Metrics
from vstack.uploader.nodes import REFRESH_S, NodeDirectory
from vstack.uploader.queue import JobQueue
from vstack.uploader.sessions import SessionStore
from vstack.uploader.spool import Spool

_FORM: Final[dict[str, object]] = {
    "type": "object",
    "required": ["video", "title"],
    "properties": {
        "video": {"type": "string", "format": "binary"},
        "title": {"type": "string", "minLength": 1, "maxLength": 200},
    },
}

ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/upload",
        handlers.upload,
        errors=(413, 503, 507),
        request_media="multipart/form-data",
        request_schema=_FORM,
        expect=handlers.before_upload,
    ),
    Endpoint("GET", "/upload/status/{upload_session_id}", handlers.status, errors=(404,)),
    Endpoint("GET", "/health", handlers.health, answers={503: "application/json"}),
)

log = structlog.get_logger()


async def make_app(settings: UploaderSettings) -> web.Application:
    """The service; SettingsError where its directory or its programs cannot be used."""
    for program in () if settings.media_socket else (settings.ffmpeg, settings.ffprobe):
        if shutil.which(program) is None:
            raise SettingsError(f"cannot find the program {program}")
    registry = service_metrics.new_registry("uploader")
    metrics = Metrics(registry)
    app = service_app.build("uploader", ENDPOINTS, registry=registry, cors_origin=settings.cors_origin)
    directory = Path(settings.data_dir)
    spool = Spool(directory / "incoming")
    spool.prepare()
    store = SessionStore(directory / "sessions")
    store.load()

    async def resources(app: web.Application) -> AsyncIterator[None]:
        async with new_session() as http:
            metadata = MetadataClient(http, settings.metadata_urls)
            cluster = Cluster(metadata, StorageClient(http), NodeDirectory(metadata), metrics)
            workshop = Workshop(
                store=store,
                spool=spool,
                cluster=cluster,
                ffmpeg=settings.ffmpeg,
                ffprobe=settings.ffprobe,
                media_socket=settings.media_socket,
                job_timeout_s=settings.job_timeout_s,
            )
            queue = JobQueue(workshop.run, max_jobs=settings.max_jobs, max_queued=settings.max_queued, metrics=metrics)
            app[UPLOADS] = Uploads(
                queue=queue, store=store, spool=spool, metrics=metrics, max_upload_bytes=settings.max_upload_bytes
            )
            for session_id in await workshop.recover():
                queue.put(session_id)
            async with (
                _repeating("nodes", cluster.nodes.refresh, REFRESH_S),
                _repeating("reap", workshop.reap, REAP_EVERY_S),
                queue.working(),
            ):
                yield
        spool.close()
        store.close()

    async def drain() -> None:
        await app[UPLOADS].queue.drain(settings.drain_s)

    app.cleanup_ctx.append(resources)
    app[runner.DRAIN] = drain
    return app


def run(settings: UploaderSettings) -> int:
    """Serve until a signal; the exit status."""
    logs.configure("uploader", settings.log_level)
    return runner.run(lambda: make_app(settings), settings.host, settings.port)


@contextlib.asynccontextmanager
async def _repeating(name: str, work: Callable[[], Awaitable[None]], interval_s: float) -> AsyncIterator[None]:
    """Do `work` now and every `interval_s` for as long as the block lasts; its failures are logged and end nothing."""

    async def repeat() -> None:
        while True:
            try:
                await work()
            except VStackError as error:
                log.warning("background_failed", work=name, error=str(error))
            except Exception:
                log.exception("background_crashed", work=name)
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
