"""What surrounds every handler: error mapping, request ids and logs, request metrics, CORS.

Invariant: every error answer of every service, unknown routes included, is `{"detail": ..., "code": ...}` with the
status of this module's table. Nothing else in the house knows which status an error has.
"""

import time
import uuid
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from vstack import errors
from vstack.service.endpoint import json_response
from vstack.service.metrics import HttpMetrics

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()

STATUS: dict[type[errors.VStackError], int] = {
    errors.InvalidRequestError: 400,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.TooLargeError: 413,
    errors.PreconditionError: 416,
    errors.UnavailableError: 503,
    errors.StorageFullError: 507,
    errors.CorruptionError: 500,
    errors.DiskError: 500,
    errors.RemoteError: 503,
}


def status_of(error: errors.VStackError) -> int:
    """The HTTP status of an error class; 500 where the table names none."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_response(error: errors.VStackError) -> web.Response:
    """The answer that tells a client of an error."""
    body: dict[str, object] = {"detail": str(error), "code": error.code}
    headers = {}
    if isinstance(error, errors.ConflictError) and error.chosen is not None:
        body.update(error.chosen)
    if isinstance(error, errors.UnavailableError):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, errors.PreconditionError) and error.size_bytes is not None:
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    return json_response(body, status=status_of(error), headers=headers)


def build(metrics: HttpMetrics) -> Middleware:
    """The one middleware of a service."""

    @web.middleware
    async def middleware(request: web.Request, handler: Next) -> web.StreamResponse:
        started = time.perf_counter()
        request_id = request.headers.get("X-Request-ID") or uuid.uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id[:64])
        response: web.StreamResponse | None = None
        try:
            response = await _answer(request, handler)
            return response
        finally:
            status = response.status if response is not None else 499
            metrics.observe(request, status, time.perf_counter() - started)
            structlog.contextvars.unbind_contextvars("request_id")

    return middleware


def cors(origin: str) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A response signal that lets pages of `origin` read what a browser player needs."""

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            response.headers.setdefault("Access-Control-Allow-Origin", origin)
            response.headers.setdefault("Access-Control-Allow-Headers", "Range, If-None-Match")
            response.headers.setdefault("Access-Control-Expose-Headers", "ETag, Content-Range, Content-Length")

    return add_headers


async def _answer(request: web.Request, handler: Next) -> web.StreamResponse:
    try:
        return await handler(request)
    except errors.VStackError as error:
        status = status_of(error)
        if status >= 500:
            log.warning("request_failed", path=request.path, code=error.code, error=str(error))
        return error_response(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return json_response({"detail": error.reason, "code": "http"}, status=error.status, headers=headers)
    except Exception:
        log.exception("request_crashed", method=request.method, path=request.path)
        return json_response({"detail": "internal error", "code": "internal"}, status=500)
