"""Wires the client's HTTP server: settings in, aiohttp application out."""

from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from vstack.client import handlers
from vstack.client.metrics import StationCollector, startup_histogram
from vstack.client.smart_client import SmartClient
from vstack.client.station import Station
from vstack.service import logs, metrics, runner
from vstack.service.app import build
from vstack.service.endpoint import Endpoint
from vstack.settings import ClientSettings

ENDPOINTS: Final = (
    Endpoint("GET", "/", handlers.root, answers={200: "text/html", 302: ""}),
    Endpoint("GET", "/health", handlers.health),
    Endpoint("GET", "/api/status", handlers.status),
    Endpoint("GET", "/api/stats", handlers.stats),
    Endpoint("GET", "/api/metrics", handlers.history),
    Endpoint("GET", "/api/performance", handlers.performance),
    Endpoint("POST", "/api/play", handlers.play, errors=(404, 409, 413, 503)),
    Endpoint("POST", "/api/stop", handlers.stop),
)


def run(settings: ClientSettings) -> int:
    """Serve until a signal; the exit status."""
    logs.configure("client", settings.log_level)
    return runner.run(lambda: make_app(settings), settings.host, settings.port)


async def make_app(settings: ClientSettings) -> web.Application:
    """The application of one client; it plays nothing until it is told to."""
    registry = metrics.new_registry("client")
    startup = startup_histogram(registry)
    station = Station(SmartClient(settings.metadata_urls), startup.observe)
    registry.register(StationCollector(station))

    async def on_air(_app: web.Application) -> AsyncIterator[None]:
        async with station.running():
            yield

    app = build("client", ENDPOINTS, registry=registry, cors_origin=settings.cors_origin)
    app[handlers.STATION] = station
    app[handlers.SETTINGS] = settings
    app.cleanup_ctx.append(on_air)
    return app
