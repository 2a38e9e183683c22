"""Prometheus metrics: a registry per service, the request histogram, and the /metrics endpoint.

Names are `vstack_<service>_<thing>_<unit>[_total]`, in seconds and bytes. Labels are routes, methods, statuses and
outcomes, never ids: the number of series does not grow with the data.
"""

from typing import Final

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from vstack import __version__
from vstack.service.endpoint import Endpoint

LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class HttpMetrics:
    """Duration of every request by method, route pattern and status."""

    def __init__(self, registry: CollectorRegistry, service: str) -> None:
        self._duration = Histogram(
            f"vstack_{service}_http_request_duration_seconds",
            "Time from the request head to the end of the answer",
            ("method", "route", "status"),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )

    def observe(self, request: web.Request, status: int, elapsed_s: float) -> None:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unmatched"
        method = request.method if request.method in hdrs.METH_ALL else "other"
        self._duration.labels(method, route, str(status)).observe(elapsed_s)


def new_registry(service: str) -> CollectorRegistry:
    """A registry with process figures and `vstack_build_info`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    info = Gauge("vstack_build_info", "Always 1; the labels tell what runs", ("service", "version"), registry=registry)
    info.labels(service, __version__).set(1)
    return registry


def endpoint(registry: CollectorRegistry) -> Endpoint:
    """The route that serves the registry."""

    async def metrics(_request: web.Request) -> web.Response:
        """Metrics in the Prometheus text format."""
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Endpoint("GET", "/metrics", metrics, answers={200: "text/plain"})
