"""A typed service against everything that a client may send it: each wrong input is its clear 4xx, never a 500."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import aiohttp
import msgspec
import pytest
from aiohttp import web

from vstack import errors
from vstack.ids import Identifier
from vstack.service import app as service_app
from vstack.service import metrics, runner
from vstack.service.endpoint import Endpoint
from vstack.units import MAX_JSON_BODY_BYTES
from vstack.wire.common import Message, ShortText, Title

READ_TIMEOUT_S = 10.0

ERRORS: dict[str, tuple[errors.VStackError, int]] = {
    "invalid": (errors.InvalidRequestError("no"), 400),
    "unknown": (errors.NotFoundError("no such thing"), 404),
    "conflict": (errors.ConflictError("decided", chosen={"node_urls": ["http://a:1"]}), 409),
    "large": (errors.TooLargeError("too large"), 413),
    "range": (errors.PreconditionError("outside", size_bytes=7), 416),
    "corrupt": (errors.CorruptionError("rotten"), 500),
    "disk": (errors.DiskError("EIO"), 500),
    "later": (errors.UnavailableError("busy", retry_after_s=3), 503),
    "full": (errors.StorageFullError("full"), 507),
    "base": (errors.VStackError("unmapped"), 500),
}


class Query(Message, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    text: ShortText = ""


class Body(Message, frozen=True, kw_only=True):
    title: Title
    size: Annotated[float, msgspec.Meta(ge=0)] = 0


class Answer(Message, frozen=True, kw_only=True):
    ident: str
    limit: int = 0
    title: str = ""


async def read(_request: web.Request, *, ident: Identifier, query: Query) -> Answer:
    """Read."""
    return Answer(ident=ident, limit=query.limit, title=query.text)


async def write(_request: web.Request, *, body: Body) -> Answer:
    """Write."""
    return Answer(ident="new", title=body.title)


async def maybe(_request: web.Request, *, body: Body | None) -> Answer:
    """Write, or not."""
    return Answer(ident="none" if body is None else body.title)


async def remove(_request: web.Request, *, ident: Identifier) -> None:
    """Remove."""


async def fail(_request: web.Request, *, ident: Identifier) -> Answer:
    """Fail as told."""
    if ident == "crash":
        raise ValueError("secret detail")
    raise ERRORS[ident][0]


async def break_off(request: web.Request) -> web.StreamResponse:
    """Fail in the middle of an answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x" * 10)
    raise errors.CorruptionError("rotten in the middle")


ENDPOINTS = [
    Endpoint("GET", "/thing/{ident}", read, errors=(404,)),
    Endpoint("DELETE", "/thing/{ident}", remove, status=204),
    Endpoint("POST", "/thing", write, status=201),
    Endpoint("POST", "/maybe", maybe),
    Endpoint("GET", "/fail/{ident}", fail),
    Endpoint("GET", "/broken", break_off, answers={200: "application/octet-stream"}),
    Endpoint("GET", "/hidden", break_off, hidden=True),
]


@dataclass
class Service:
    port: int
    session: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, *, data: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, object], aiohttp.ClientResponse]:
        """Status, decoded body ({} when empty), response."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, data=data, headers=headers) as response:
            content = await response.read()
            return response.status, json.loads(content) if content else {}, response

    async def raw(self, request: bytes, *, until: bytes | None = None) -> bytes:
        """What comes back for these bytes until the connection ends, or up to and with `until`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            reading = reader.read() if until is None else reader.readuntil(until)
            return await asyncio.wait_for(reading, READ_TIMEOUT_S)
        finally:
            writer.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    app = service_app.build("test", ENDPOINTS, registry=metrics.new_registry("test"), cors_origin="https://player.test")
    async with (
        runner.serving(app, "127.0.0.1", 0) as running,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        yield Service(running.addresses[0][1], session)


async def test_typed_inputs_reach_the_handler_and_its_answer_comes_back(service: Service) -> None:
    assert (await service.ask("GET", "/thing/a-1_Z?limit=7&text=caf%C3%A9"))[:2] == (
        200,
        {"ident": "a-1_Z", "limit": 7, "title": "café"},
    )
    assert (await service.ask("POST", "/thing", data=b'{"title":"T","unknown":[1]}'))[:2] == (
        201,
        {"ident": "new", "limit": 0, "title": "T"},
    )
    assert (await service.ask("DELETE", "/thing/x"))[:2] == (204, {})


async def test_an_optional_body_may_be_missing_but_not_wrong(service: Service) -> None:
    assert (await service.ask("POST", "/maybe"))[1]["ident"] == "none"
    assert (await service.ask("POST", "/maybe", data=b'{"title":"T"}'))[1]["ident"] == "T"
    assert (await service.ask("POST", "/maybe", data=b"{}"))[0] == 400


@pytest.mark.parametrize(
    "ident", ["%00", "a%00b", "a%0A", "%0Aa", "a%20b", "a%2Fb", "%2E%2E", "%ED%A0%80", "%FF", "caf%C3%A9", "x" * 65]
)
async def test_a_bad_id_is_400_on_every_verb(service: Service, ident: str) -> None:
    for method in (b"GET", b"DELETE"):
        head = await service.raw(
            method + b" /thing/" + ident.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert head.startswith(b"HTTP/1.1 400 "), head
        assert b'"detail":"ident: ' in head
        assert b"(?!" not in head, "a regular expression is no explanation"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=11",
        "limit=abc",
        "limit=",
        "limit=1.5",
        "limit=1_0",
        "limit=" + "9" * 5000,
        "text=%00",
        "text=a%0Ab",
        "text=" + "x" * 257,
    ],
)
async def test_a_bad_query_is_400(service: Service, query: str) -> None:
    status, body, _ = await service.ask("GET", f"/thing/x?{query}")
    assert status == 400
    assert str(body["detail"]).startswith("query string: ")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"title":"x"} trailing',
        b'{"title":"x",}',
        b"\xff\xfe",
        b'{"title":"\xff"}',
        b'{"title":"\\ud800"}',
        b'{"title":"a\\u0000b"}',
        b'{"title":""}',
        b'{"title":"' + b"x" * 201 + b'"}',
        b'{"title":null}',
        b'{"title":5}',
        b'{"title":"x","size":-1}',
        b'{"title":"x","size":"1"}',
        b'{"title":"x","size":NaN}',
        b'{"title":"x","size":1e999}',
        b'{"title":"x","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
async def test_a_bad_body_is_400(service: Service, body: bytes) -> None:
    status, answer, _ = await service.ask("POST", "/thing", data=body)
    assert status == 400
    assert answer["code"] == "invalid_request"
    assert isinstance(answer["detail"], str)


async def test_a_body_above_the_limit_is_413_with_and_without_content_length(service: Service) -> None:
    large = b" " * (MAX_JSON_BODY_BYTES + 1)
    head = b"POST /thing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    told = await service.raw(head + b"Content-Length: 1048577\r\n\r\n", until=b"}")
    chunked = await service.raw(
        head + b"Transfer-Encoding: chunked\r\n\r\n100001\r\n" + large + b"\r\n0\r\n\r\n", until=b"}"
    )
    bomb = gzip.compress(large * 20)
    packed = await service.raw(
        head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb, until=b"}"
    )
    for answer in (told, chunked, packed):
        assert answer.startswith(b"HTTP/1.1 413 "), answer
        assert b'"code":"too_large"' in answer


async def test_a_body_in_a_broken_encoding_is_400(service: Service) -> None:
    status, answer, _ = await service.ask("POST", "/thing", data=b"not gzip", headers={"Content-Encoding": "gzip"})
    assert status == 400
    assert "gzip" in str(answer["detail"])
    assert "\n" not in str(answer["detail"])


@pytest.mark.parametrize("name", ERRORS)
async def test_every_error_class_has_its_status_code_and_sentence(service: Service, name: str) -> None:
    error, expected = ERRORS[name]
    status, body, response = await service.ask("GET", f"/fail/{name}")
    assert status == expected
    assert body["detail"] == str(error)
    assert body["code"] == error.code
    if name == "later":
        assert response.headers["Retry-After"] == "3"
    if name == "range":
        assert response.headers["Content-Range"] == "bytes */7"
    if name == "conflict":
        assert body["node_urls"] == ["http://a:1"]


async def test_a_crash_is_a_500_that_tells_nothing_of_the_inside(service: Service) -> None:
    status, body, _ = await service.ask("GET", "/fail/crash")
    assert (status, body) == (500, {"detail": "internal error", "code": "internal"})


async def test_unknown_routes_and_methods_answer_in_the_same_form(service: Service) -> None:
    assert (await service.ask("GET", "/nope"))[:2] == (404, {"detail": "Not Found", "code": "http"})
    status, body, response = await service.ask("PATCH", "/thing/x")
    assert (status, body["detail"]) == (405, "Method Not Allowed")
    assert response.headers["Allow"] == "DELETE,GET"


async def test_an_answer_that_fails_after_its_head_is_cut_short(service: Service) -> None:
    answer = await service.raw(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: 1000" in head
    assert body == b"x" * 10, "no second answer inside the first"


async def test_expectations(service: Service) -> None:
    request = b"POST /thing HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 13\r\nExpect: %s\r\n\r\n"
    granted = await service.raw(request % b"100-continue" + b'{"title":"x"}')
    assert granted.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created")
    refused = await service.raw(request % b"a-miracle" + b'{"title":"x"}')
    assert refused.startswith(b"HTTP/1.1 417 ")
    assert b'"detail":' in refused


async def test_cors_and_its_preflight(service: Service) -> None:
    _, _, response = await service.ask("GET", "/thing/x")
    assert response.headers["Access-Control-Allow-Origin"] == "https://player.test"
    status, _, response = await service.ask("OPTIONS", "/thing/x", headers={"Origin": "https://player.test"})
    assert status == 204
    assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert "Range" in response.headers["Access-Control-Allow-Headers"]
    assert (await service.ask("OPTIONS", "/nope"))[0] == 404
    _, _, response = await service.ask("POST", "/thing", data=b'{"title":"x"}')
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_requests_are_counted_by_route_pattern_never_by_id(service: Service) -> None:
    await service.ask("GET", "/thing/first")
    await service.ask("GET", "/thing/second")
    await service.ask("GET", "/wp-admin.php")
    async with service.session.get(f"http://127.0.0.1:{service.port}/metrics") as response:
        text = await response.text()
        assert response.content_type == "text/plain"
    count = "vstack_test_http_request_duration_seconds_count"
    assert f'{count}{{method="GET",route="/thing/{{ident}}",status="200"}} 2.0' in text
    assert f'{count}{{method="GET",route="unmatched",status="404"}} 1.0' in text
    assert "first" not in text
    assert "wp-admin" not in text
    assert 'vstack_build_info{service="test",version="' in text
    assert "process_resident_memory_bytes" in text
