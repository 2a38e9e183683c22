"""HTTP of the service itself: its health, and how much the cluster holds."""

from typing import Final

import msgspec
from aiohttp import web

from vstack import __version__
from vstack.errors import UnavailableError
from vstack.metadata.catalogue import nodes, stats
from vstack.metadata.state import METADATA
from vstack.service.endpoint import json_response
from vstack.wire import metadata as wire

SERVICE: Final = "metadata-service"


async def health(request: web.Request) -> wire.Health | web.Response:
    """Whether the service can work: 200 while the database answers, else 503."""
    try:
        counts = nodes.counts(await nodes.all_nodes(request.app[METADATA].db))
    except UnavailableError as error:
        unhealthy = wire.Health(
            status="unhealthy", service=SERVICE, healthy_nodes=0, total_nodes=0, database_status="unhealthy"
        )
        body = {**msgspec.to_builtins(unhealthy), "detail": str(error), "code": error.code}
        return json_response(body, status=503, headers={"Retry-After": str(round(error.retry_after_s))})
    return wire.Health(
        status="healthy",
        service=SERVICE,
        healthy_nodes=counts["healthy"],
        total_nodes=sum(counts.values()),
        database_status="healthy",
    )


async def root(_request: web.Request) -> wire.Root:
    """What this is."""
    return wire.Root(message="V-Stack Metadata Service", version=__version__)


async def service_stats(request: web.Request) -> wire.Stats:
    """How much the cluster holds."""
    db = request.app[METADATA].db
    totals = await stats.totals(db)
    counts = nodes.counts(await nodes.all_nodes(db))
    return wire.Stats(
        total_videos=totals.videos,
        total_chunks=totals.chunks,
        total_replicas=totals.replicas,
        total_fragments=totals.fragments,
        healthy_nodes=counts["healthy"],
        service_version=__version__,
    )
