"""Wires a storage node: settings in, aiohttp application out."""

import asyncio
import contextlib
import platform
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from vstack.errors import SettingsError
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.service import logs, metrics, runner
from vstack.service.app import build
from vstack.service.endpoint import Endpoint
from vstack.settings import StorageSettings, cluster_key
from vstack.storage import acceptor_handlers, handlers
from vstack.storage.contract import Engine
from vstack.storage.engine import open_engine
from vstack.storage.membership import Membership
from vstack.storage.metrics import EngineCollector, StorageMetrics
from vstack.storage.node import NODE, Node
from vstack.wire.common import NodeUrl

OCTETS: Final = "application/octet-stream"
JSON: Final = "application/json"

ENDPOINTS: Final = (
    Endpoint(
        "PUT",
        "/chunk/{chunk_id}",
        handlers.put_chunk,
        errors=(409, 413, 500, 507),
        answers={200: "", 201: ""},
        request_media=OCTETS,
    ),
    Endpoint(
        "GET",
        "/chunk/{chunk_id}",
        handlers.get_chunk,
        errors=(404, 416, 500),
        answers={200: OCTETS, 206: OCTETS, 304: ""},
    ),
    Endpoint("HEAD", "/chunk/{chunk_id}", handlers.head_chunk, errors=(404,), answers={200: "", 304: ""}),
    Endpoint("DELETE", "/chunk/{chunk_id}", handlers.delete_chunk, status=204, errors=(404, 500)),
    Endpoint("GET", "/chunks", handlers.list_chunks),
    Endpoint("GET", "/ping", handlers.ping),
    Endpoint("HEAD", "/ping", handlers.ping),
    Endpoint("GET", "/health", handlers.health, answers={503: JSON}),
    Endpoint("POST", "/acceptor/{chunk_id}/prepare", acceptor_handlers.prepare, errors=(413, 500, 507)),
    Endpoint("POST", "/acceptor/{chunk_id}/accept", acceptor_handlers.accept, errors=(413, 500, 507)),
    Endpoint("GET", "/acceptor/{chunk_id}", acceptor_handlers.acceptor_state, errors=(404,)),
    Endpoint("GET", "/acceptors", acceptor_handlers.list_acceptors),
    Endpoint("POST", "/acceptors/learn", acceptor_handlers.learn, errors=(413, 500, 507)),
)

OpenEngine = Callable[[StorageSettings], AbstractAsyncContextManager[Engine]]


def run(settings: StorageSettings) -> int:
    """Serve until a signal; the exit status."""
    logs.configure("storage", settings.log_level)
    return runner.run(lambda: make_app(settings), settings.host, settings.port)


async def make_app(settings: StorageSettings) -> web.Application:
    """The application of one storage node; its engine opens when the application starts."""
    return assemble(settings, _opened)


def assemble(settings: StorageSettings, opened: OpenEngine) -> web.Application:
    """The application on an engine of the caller's choice."""
    key = cluster_key(settings)
    public_url = _public_url(settings)
    registry = metrics.new_registry("storage")
    counts = StorageMetrics(registry)

    async def engine(app: web.Application) -> AsyncIterator[None]:
        async with opened(settings) as engine:
            registry.register(EngineCollector(engine))
            app[NODE] = Node.on(engine, key, counts)
            yield

    async def membership(app: web.Application) -> AsyncIterator[None]:
        async with new_session() as session:
            member = Membership(
                MetadataClient(session, settings.metadata_urls),
                app[NODE].engine,
                public_url=public_url,
                host_id=settings.host_id or platform.node(),
                zone=settings.zone,
                on_fenced=lambda error: runner.end(app, error),
            )
            task = asyncio.create_task(member.run())
            yield
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    app = build("storage", ENDPOINTS, registry=registry, cors_origin=settings.cors_origin)
    app.cleanup_ctx.extend((engine, membership))
    return app


def _public_url(settings: StorageSettings) -> str:
    """How others reach this node; SettingsError where that cannot be told."""
    if settings.public_url is None and settings.host in ("", "0.0.0.0", "::"):  # noqa: S104 - only compared
        raise SettingsError("public_url must be set where host is every address")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = settings.public_url or f"http://{host}:{settings.port}"
    try:
        return msgspec.convert(url.rstrip("/"), NodeUrl)
    except msgspec.ValidationError as error:
        raise SettingsError(f"public_url {url} is no plain http URL: {error}") from error


@contextlib.asynccontextmanager
async def _opened(settings: StorageSettings) -> AsyncIterator[Engine]:
    engine = await open_engine(
        Path(settings.data_dir),
        node_id=settings.node_id,
        superblock_bytes=settings.superblock_bytes,
        capacity_bytes=settings.capacity_bytes,
        io_threads=settings.io_threads,
        may_format=settings.may_format,
    )
    try:
        yield engine
    finally:
        await engine.close()
