"""Builds the aiohttp application of a service from its endpoint table."""

from collections.abc import Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry

from vstack.service import endpoint, metrics, middleware, openapi
from vstack.service.endpoint import Endpoint

REGISTRY: web.AppKey[CollectorRegistry] = web.AppKey("registry", CollectorRegistry)


def build(
    service: str, endpoints: Sequence[Endpoint], *, registry: CollectorRegistry, cors_origin: str | None = None
) -> web.Application:
    """An application with the given routes, /metrics, /openapi.json and the shared middleware.

    Body limits are the handlers' own: JSON bodies are bounded while they are decoded, raw bodies while they stream.
    """
    wrapper = middleware.build(metrics.HttpMetrics(registry, service))
    app = web.Application(middlewares=[wrapper], client_max_size=0)
    app.on_response_prepare.append(middleware.mark_started)
    if cors_origin:
        app.on_response_prepare.append(middleware.cors(cors_origin))
    app[REGISTRY] = registry
    table = [*endpoints, metrics.endpoint(registry)]
    endpoint.install(app, [*table, openapi.endpoint(f"V-Stack {service}", table)], expect=middleware.expect)
    return app
