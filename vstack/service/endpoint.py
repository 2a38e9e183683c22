"""Routes with typed inputs and outputs: one declaration serves decoding, encoding and /openapi.json.

A handler is `async def name(request, *, ...) -> Struct | StreamResponse`. Its keyword-only parameters say what it
takes: a name that stands in the path is a path parameter, `query` is a Struct decoded from the query string, `body` a
Struct decoded from a JSON body. Its return annotation is the answer: a Struct (or tuple of Structs) becomes JSON with
`Endpoint.status`, None becomes an empty answer, a StreamResponse is passed on as it is (`Health | web.Response` returns
the Struct where the status is not always the same). What a client sends wrong is an InvalidRequestError before the
handler runs, so the OpenAPI document is true by construction.
"""

import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from vstack.errors import InvalidRequestError, TooLargeError
from vstack.units import MAX_JSON_BODY_BYTES

Handler = Callable[..., Awaitable[object]]
Expect = Callable[[web.Request], Awaitable[web.StreamResponse | None]]

_REGEX_ERROR = re.compile(r"Expected `str` matching regex '.*'")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route.

    `errors` lists the statuses beyond 400 and 500 that it may answer with. `answers` describes non-JSON answers by
    status, for handlers that return a StreamResponse; `request_media` names the media type of a raw request body, and
    `request_schema` describes it where it is more than bytes. `expect` answers an `Expect` header in a way of its own.
    """

    method: str
    path: str
    handler: Handler
    status: int = 200
    errors: tuple[int, ...] = ()
    answers: Mapping[int, str] = field(default_factory=dict)
    request_media: str | None = None
    request_schema: Mapping[str, object] | None = None
    expect: Expect | None = None
    hidden: bool = False

    @property
    def signature(self) -> "Signature":
        return Signature.of(self)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a handler takes and returns, resolved once."""

    path: Mapping[str, object]
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    body_optional: bool
    returns: object

    @classmethod
    def of(cls, endpoint: Endpoint) -> "Signature":
        hints = typing.get_type_hints(endpoint.handler, include_extras=True)
        path: dict[str, object] = {}
        query = body = None
        body_optional = False
        for name, parameter in inspect.signature(endpoint.handler).parameters.items():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                continue
            if name == "query":
                query = hints[name]
            elif name == "body":
                body = hints[name]
                members = [member for member in typing.get_args(body) if member is not type(None)]
                if members and type(None) in typing.get_args(body):
                    body, body_optional = members[0], True
            elif "{" + name + "}" in endpoint.path:
                path[name] = hints[name]
            else:
                raise TypeError(
                    f"{endpoint.handler.__name__}: parameter {name} is neither in {endpoint.path} nor known"
                )
        return cls(path, query, body, body_optional, _answer_type(hints.get("return")))


def install(app: web.Application, endpoints: Iterable[Endpoint], *, expect: Expect | None = None) -> None:
    """Add the routes to an application. `expect` answers `Expect` headers."""
    for endpoint in endpoints:
        app.router.add_route(endpoint.method, endpoint.path, _bind(endpoint), expect_handler=endpoint.expect or expect)


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer from Structs or plain data."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=dict(headers or {})
    )


def _bind(endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    signature = endpoint.signature
    handler = endpoint.handler
    status = endpoint.status

    async def call(request: web.Request) -> web.StreamResponse:
        inputs: dict[str, object] = {}
        for name, kind in signature.path.items():
            inputs[name] = _convert(request.match_info[name], kind, name)
        if signature.query is not None:
            inputs["query"] = _convert(dict(request.query), signature.query, "query string")
        if signature.body is not None:
            inputs["body"] = await _read_body(request, signature.body, optional=signature.body_optional)
        result = await handler(request, **inputs)
        if isinstance(result, web.StreamResponse):
            return result
        if result is None:
            return web.Response(status=status)
        return json_response(result, status=status)

    call.__name__ = handler.__name__
    return call


def _answer_type(annotation: object) -> object:
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    structs = [kind for kind in members if not (isinstance(kind, type) and issubclass(kind, web.StreamResponse))]
    return structs[0] if structs else annotation


async def _read_body(request: web.Request, kind: type[msgspec.Struct], *, optional: bool) -> msgspec.Struct | None:
    length = request.content_length
    if length is not None and length > MAX_JSON_BODY_BYTES:
        raise TooLargeError(f"a request body of this kind has at most {MAX_JSON_BODY_BYTES} bytes")
    data = bytearray()
    async for piece in request.content.iter_any():
        data += piece
        if len(data) > MAX_JSON_BODY_BYTES:
            raise TooLargeError(f"a request body of this kind has at most {MAX_JSON_BODY_BYTES} bytes")
    if optional and not data:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"body: {_sentence(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError("the body is nested too deeply") from error


def _convert(value: object, kind: object, what: str) -> object:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"{what}: {_sentence(error)}") from error


def _sentence(error: msgspec.ValidationError) -> str:
    """The message of a decoder, without the regular expression that only a programmer reads."""
    return _REGEX_ERROR.sub("Characters or length not allowed here", str(error))
