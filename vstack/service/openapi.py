"""/openapi.json from the endpoint table: OpenAPI 3.1, schemas from the very types that decode and encode."""

import typing
from collections.abc import Sequence

import msgspec
from aiohttp import web

from vstack import __version__
from vstack.service.endpoint import Endpoint
from vstack.wire.common import ErrorBody

_REF = "#/components/schemas/{name}"
_BYTES = {"type": "string", "format": "binary"}
_REASONS = {
    400: "The request is wrong",
    404: "No such thing",
    405: "Method not allowed",
    409: "Conflicts with what was decided or stored",
    413: "The body is too large",
    416: "The range is outside the object",
    500: "An internal error or detected corruption",
    503: "Not now; Retry-After says when",
    507: "The disk is full",
}


def document(title: str, endpoints: Sequence[Endpoint]) -> dict[str, object]:
    """The OpenAPI document of a service."""
    kinds = [kind for endpoint in endpoints for kind in _kinds(endpoint)]
    schemas, components = msgspec.json.schema_components([*kinds, ErrorBody], ref_template=_REF)
    by_kind = {repr(kind): schema for kind, schema in zip([*kinds, ErrorBody], schemas, strict=True)}
    paths: dict[str, dict[str, object]] = {}
    for endpoint in endpoints:
        if not endpoint.hidden:
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, by_kind, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def endpoint(title: str, endpoints: Sequence[Endpoint]) -> Endpoint:
    """The route that serves the document of `endpoints`."""
    body = msgspec.json.encode(document(title, endpoints))

    async def openapi(_request: web.Request) -> web.Response:
        """This document."""
        return web.Response(body=body, content_type="application/json")

    return Endpoint("GET", "/openapi.json", openapi, answers={200: "application/json"})


def _kinds(endpoint: Endpoint) -> list[object]:
    signature = endpoint.signature
    kinds = list(signature.path.values())
    kinds += [kind for kind in (signature.query, signature.body) if kind is not None]
    if _is_json(signature.returns):
        kinds.append(signature.returns)
    return kinds


def _is_json(returns: object) -> bool:
    if returns is None or returns is type(None):
        return False
    return not (isinstance(returns, type) and issubclass(returns, web.StreamResponse))


def _operation(
    endpoint: Endpoint, by_kind: dict[str, dict[str, typing.Any]], components: dict[str, typing.Any]
) -> dict[str, object]:
    signature = endpoint.signature
    parameters: list[dict[str, object]] = [
        {"name": name, "in": "path", "required": True, "schema": by_kind[repr(kind)]}
        for name, kind in signature.path.items()
    ]
    if signature.query is not None:
        schema = components[signature.query.__name__]
        required = schema.get("required", ())
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": field}
            for name, field in schema["properties"].items()
        ]
    operation: dict[str, object] = {
        "operationId": endpoint.handler.__name__,
        "summary": (endpoint.handler.__doc__ or "").strip().split("\n")[0],
        "parameters": parameters,
        "responses": _responses(endpoint, by_kind),
    }
    if signature.body is not None:
        operation["requestBody"] = {
            "required": not signature.body_optional,
            "content": {"application/json": {"schema": by_kind[repr(signature.body)]}},
        }
    elif endpoint.request_media is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {endpoint.request_media: {"schema": endpoint.request_schema or _BYTES}},
        }
    return operation


def _responses(endpoint: Endpoint, by_kind: dict[str, dict[str, typing.Any]]) -> dict[str, object]:
    responses: dict[str, object] = {}
    returns = endpoint.signature.returns
    if _is_json(returns):
        content = {"application/json": {"schema": by_kind[repr(returns)]}}
        responses[str(endpoint.status)] = {"description": "Success", "content": content}
    elif not endpoint.answers:
        responses[str(endpoint.status)] = {"description": "Success"}
    for status, media in endpoint.answers.items():
        responses[str(status)] = {"description": "Success", **({"content": {media: {}}} if media else {})}
    error = {"application/json": {"schema": by_kind[repr(ErrorBody)]}}
    for status in sorted({400, *endpoint.errors}):
        if str(status) not in responses:
            responses[str(status)] = {"description": _REASONS.get(status, "Error"), "content": error}
    return responses
