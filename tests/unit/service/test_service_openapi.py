"""The OpenAPI document is complete, self-consistent and says what the service does."""

import json
from collections.abc import Iterator
from typing import Annotated

import msgspec
import pytest
from aiohttp import web

from vstack import __version__
from vstack.ids import Identifier
from vstack.service import openapi
from vstack.service.endpoint import Endpoint, Signature
from vstack.wire.common import Message, Title


class Page(Message, frozen=True, kw_only=True):
    after: Identifier | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    order: str


class Nested(Message, frozen=True, kw_only=True):
    title: Title


class Body(Message, frozen=True, kw_only=True):
    parts: tuple[Nested, ...]
    note: str | None = None


async def listing(_request: web.Request, *, query: Page) -> tuple[Nested, ...]:
    """List them.

    More text that is no summary.
    """
    return (Nested(title=query.order),)


async def change(_request: web.Request, *, ident: Identifier, body: Body | None) -> Nested | web.Response:
    """Change one."""
    return Nested(title=f"{ident}{body}")


async def remove(_request: web.Request, *, ident: Identifier) -> None:
    """Remove one."""


async def upload(_request: web.Request, *, ident: Identifier) -> web.StreamResponse:
    """Take bytes."""
    return web.Response(text=ident)


ENDPOINTS = [
    Endpoint("GET", "/things", listing),
    Endpoint("POST", "/things/{ident}", change, status=201, errors=(404, 409)),
    Endpoint("DELETE", "/things/{ident}", remove, status=204, errors=(404,)),
    Endpoint("PUT", "/raw/{ident}", upload, answers={201: "", 200: ""}, request_media="application/octet-stream"),
    Endpoint("GET", "/secret", remove, hidden=True),
]


@pytest.fixture(scope="module")
def document() -> dict[str, object]:
    decoded: dict[str, object] = json.loads(msgspec.json.encode(openapi.document("Test", ENDPOINTS[:4])))
    return decoded


def refs(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from refs(item)


def at(document: object, *path: str) -> dict[str, object]:
    for step in path:
        assert isinstance(document, dict)
        document = document[step]
    assert isinstance(document, dict)
    return document


def test_it_is_openapi_3_1_with_every_shown_route(document: dict[str, object]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {"title": "Test", "version": __version__}
    assert set(at(document, "paths")) == {"/things", "/things/{ident}", "/raw/{ident}"}
    assert set(at(document, "paths", "/things/{ident}")) == {"post", "delete"}


def test_every_reference_resolves(document: dict[str, object]) -> None:
    found = list(refs(document))
    assert found
    schemas = at(document, "components", "schemas")
    for ref in found:
        assert ref.removeprefix("#/components/schemas/") in schemas


def test_parameters_carry_their_constraints(document: dict[str, object]) -> None:
    query = {p["name"]: p for p in at(document, "paths", "/things", "get")["parameters"]}  # type: ignore[attr-defined]
    assert query["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    assert not query["limit"]["required"]
    assert query["order"]["required"]
    (path,) = at(document, "paths", "/things/{ident}", "delete")["parameters"]  # type: ignore[misc]
    assert path["in"] == "path"  # type: ignore[has-type]
    assert path["required"]  # type: ignore[has-type]
    assert path["schema"]["maxLength"] == 64  # type: ignore[has-type]


def test_bodies_and_answers(document: dict[str, object]) -> None:
    post = at(document, "paths", "/things/{ident}", "post")
    assert post["summary"] == "Change one."
    assert at(post, "requestBody")["required"] is False
    assert set(at(post, "responses")) == {"201", "400", "404", "409"}
    assert at(post, "responses", "201", "content", "application/json", "schema") == {
        "$ref": "#/components/schemas/Nested"
    }
    assert at(post, "responses", "409", "content", "application/json", "schema") == {
        "$ref": "#/components/schemas/ErrorBody"
    }
    assert "content" not in at(document, "paths", "/things/{ident}", "delete", "responses", "204")
    put = at(document, "paths", "/raw/{ident}", "put")
    assert at(put, "requestBody", "content") == {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
    }
    assert set(at(put, "responses")) == {"200", "201", "400"}


def test_hidden_routes_are_not_shown() -> None:
    shown = openapi.document("Test", [Endpoint("GET", "/secret", listing, hidden=True)])
    assert shown["paths"] == {}


def test_a_handler_parameter_that_comes_from_nowhere_is_a_mistake_at_start() -> None:
    async def wrong(_request: web.Request, *, other: Identifier) -> None:
        """Take what no path gives."""

    with pytest.raises(TypeError, match="parameter other"):
        Signature.of(Endpoint("GET", "/things/{ident}", wrong))
