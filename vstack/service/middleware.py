"""What surrounds every handler: error mapping, request ids and logs, request metrics, CORS.

Invariants: every error answer of every service, unknown routes included, is `{"detail": ..., "code": ...}` with the
status of this module's table; nothing else in the house knows which status an error has. An answer that fails after
its head was sent is cut off with its connection: a reader sees a short body, never a second answer inside the first.
"""

import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from vstack import errors
from vstack.service.endpoint import json_response
from vstack.service.metrics import HttpMetrics

CLIENT_GONE: Final = 499
PREFLIGHT_MAX_AGE_S: Final = 600

STARTED: Final[web.RequestKey[web.StreamResponse]] = web.RequestKey("started", web.StreamResponse)
"""The answer whose head is on its way."""

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
        # Not a UUID: that asks the kernel, and lets go of the GIL meanwhile.
        request_id = request.headers.get("X-Request-ID") or f"{random.getrandbits(128):032x}"
        structlog.contextvars.bind_contextvars(request_id=request_id[:64])
        response: web.StreamResponse | None = None
        try:
            response = await _answer(request, handler)
            return response
        finally:
            status = response.status if response is not None else CLIENT_GONE
            metrics.observe(request, status, time.perf_counter() - started)
            structlog.contextvars.unbind_contextvars("request_id")

    return middleware


async def mark_started(request: web.Request, response: web.StreamResponse) -> None:
    """A response signal: the head of `response` is about to be sent."""
    request[STARTED] = response


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Answers an `Expect` header: 100-continue is granted, anything else is a 417 of the usual form."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        return json_response({"detail": "the only expectation understood is 100-continue", "code": "http"}, status=417)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # aiohttp counts it as part of the answer otherwise
    return None


def cors(origin: str) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A response signal that lets pages of `origin` read what a browser player needs."""

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            response.headers.setdefault("Access-Control-Allow-Origin", origin)
            response.headers.setdefault("Access-Control-Expose-Headers", "ETag, Content-Range, Content-Length")
        if request.method == "OPTIONS":
            response.headers.setdefault("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
            response.headers.setdefault("Access-Control-Allow-Headers", "Range, If-None-Match")
            response.headers.setdefault("Access-Control-Max-Age", str(PREFLIGHT_MAX_AGE_S))

    return add_headers


async def _answer(request: web.Request, handler: Next) -> web.StreamResponse:
    try:
        return await handler(request)
    except errors.VStackError as error:
        status = status_of(error)
        if status >= 500:
            log.warning("request_failed", path=request.path, code=error.code, error=str(error))
        return _unless_started(request, error_response(error))
    except web.HTTPException as error:
        return _http_answer(request, error)
    except web.RequestPayloadError as error:
        reason = " ".join(str(error).split()).removeprefix("400, message: ")
        return _unless_started(request, error_response(errors.InvalidRequestError(f"the body is broken: {reason}")))
    except ConnectionResetError:
        log.debug("client_gone", path=request.path)
        return _unless_started(request, web.Response(status=CLIENT_GONE))
    except Exception:
        log.exception("request_crashed", method=request.method, path=request.path)
        return _unless_started(request, json_response({"detail": "internal error", "code": "internal"}, status=500))


def _http_answer(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """What aiohttp's router decided: an unknown path or method; OPTIONS of a known path is answered."""
    if error.status < 400:
        raise error
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    if request.method == "OPTIONS" and error.status == 405:
        return web.Response(status=204, headers=headers)
    return json_response({"detail": error.reason, "code": "http"}, status=error.status, headers=headers)


def _unless_started(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """`answer`, unless another one has begun: then the connection is cut, which is all that can be said."""
    started: web.StreamResponse | None = request.get(STARTED)
    if started is None:
        return answer
    if request.transport is not None:
        request.transport.abort()
    return started
