"""The client's HTTP API: decode, call, encode."""

from importlib.resources import files
from typing import Final

from aiohttp import web

from vstack.client import views
from vstack.client.station import Station
from vstack.settings import ClientSettings
from vstack.wire import client as wire

STATION: Final = web.AppKey("station", Station)
SETTINGS: Final = web.AppKey("settings", ClientSettings)
PAGE: Final = files("vstack.client").joinpath("dashboard.html").read_text(encoding="utf-8")
PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'"
}


async def root(request: web.Request) -> web.Response:
    """The dashboards in Grafana where they are configured, else a page with the live figures."""
    grafana_url = request.app[SETTINGS].grafana_url
    if grafana_url:
        return web.Response(status=302, headers={"Location": grafana_url})
    return web.Response(text=PAGE, content_type="text/html", headers=PAGE_HEADERS)


async def health(request: web.Request) -> wire.Health:
    """Whether the client serves."""
    return wire.Health(status="healthy", service="client", playing=request.app[STATION].playing)


async def status(request: web.Request) -> wire.Status:
    """The state of the playback and of every node."""
    return _status(request)


async def stats(request: web.Request) -> wire.Stats:
    """Detailed statistics."""
    station = request.app[STATION]
    return views.stats(station.figures, station.client.nodes, station.client.rules)


async def history(request: web.Request) -> wire.History:
    """The last minutes, for charts."""
    return request.app[STATION].recorder.history()


async def performance(request: web.Request) -> wire.Performance:
    """A summary of the playback."""
    station = request.app[STATION]
    return views.performance(station.figures, station.client.rules)


async def play(request: web.Request, *, body: wire.PlayRequest) -> wire.Status:
    """Start playing a video."""
    await request.app[STATION].play(body.video_id, body.speed)
    return _status(request)


async def stop(request: web.Request) -> wire.Status:
    """Stop playing; harmless when nothing plays."""
    await request.app[STATION].stop()
    return _status(request)


def _status(request: web.Request) -> wire.Status:
    station = request.app[STATION]
    return views.status(station.figures, station.client.nodes, station.client.rules, error=station.error)
