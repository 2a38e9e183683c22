"""Receives one upload: multipart/form-data with a `video` file and a `title`, in either order, streamed to the spool.

Invariants: everything that is wrong with a request is an error of vstack.errors as soon as it is seen; memory holds a
few pieces of PIECE_BYTES, never the file; an upload that ends early, for whatever reason, leaves no file.
"""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
import msgspec
from aiohttp import BodyPartReader, MultipartReader, web

from vstack.errors import InvalidRequestError, TooLargeError
from vstack.units import KIB, MAX_TITLE_CHARS
from vstack.uploader.spool import Incoming
from vstack.wire.common import Title
from vstack.wire.uploader import KEY_HEADER

EXTENSIONS: Final = frozenset({"mp4", "avi", "mov", "mkv", "webm", "flv"})
PIECE_BYTES: Final = 256 * KIB
ENVELOPE_BYTES: Final = 64 * KIB
"""Most that boundaries, part headers and the title add to the file."""
IDLE_TIMEOUT_S: Final = 60.0
MAX_TITLE_BYTES: Final = 4 * MAX_TITLE_CHARS
MAX_FILENAME_CHARS: Final = 255

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# What aiohttp's reader raises where a body is not what it says: it has no exception of its own for that.
_MALFORMED = (
    ValueError,
    RuntimeError,
    AssertionError,
    LookupError,
    RuntimeWarning,
    aiohttp.http_exceptions.HttpProcessingError,
)
_BROKEN = (aiohttp.ClientError, web.RequestPayloadError, ConnectionError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """What a complete upload said; the file's bytes are in the spool."""

    title: str
    filename: str


@dataclass(frozen=True, slots=True)
class _Part:
    name: str | None
    filename: str | None
    body: BodyPartReader


def check_head(request: web.Request, max_upload_bytes: int) -> None:
    """Refuse what the head of a request already shows to be wrong, before its body is asked for."""
    if request.content_type != "multipart/form-data":
        raise InvalidRequestError("an upload is a POST of multipart/form-data with the fields video and title")
    if (request.content_length or 0) > max_upload_bytes + ENVELOPE_BYTES:
        raise _too_large(max_upload_bytes)


def key_of(request: web.Request) -> str | None:
    """The client's own id of this upload in canonical form, None where it gives none."""
    key = request.headers.get(KEY_HEADER)
    try:
        return None if key is None else str(uuid.UUID(key))
    except ValueError as error:
        raise InvalidRequestError(f"{KEY_HEADER} must be a UUID") from error


async def receive(request: web.Request, incoming: Incoming, max_upload_bytes: int) -> Form:
    """Read the whole form; the file goes to `incoming`, which the caller finishes or abandons."""
    title: str | None = None
    filename: str | None = None
    try:
        reader = await request.multipart()
    except _MALFORMED as error:
        raise _malformed(error) from error
    while (part := await _next(lambda: _next_part(reader))) is not None:
        if part.name == "video":
            if filename is not None:
                raise InvalidRequestError("the field video is given twice")
            filename = check_filename(part.filename)
            await _receive_file(part.body, incoming, max_upload_bytes)
        elif part.name == "title":
            if title is not None:
                raise InvalidRequestError("the field title is given twice")
            title = await _receive_title(part.body)
        else:
            raise InvalidRequestError("an upload has the fields video and title and no others")
    if filename is None:
        raise InvalidRequestError("the field video is missing")
    if title is None:
        raise InvalidRequestError("the field title is missing")
    return Form(title, filename)


def check_filename(filename: str | None) -> str:
    """The last part of a file name as a client sent it, for people to read; InvalidRequestError for other formats."""
    if filename is None:
        raise InvalidRequestError("the field video must be a file with a file name")
    base = _UNPRINTABLE.sub("", re.split(r"[/\\]", filename)[-1])
    _, dot, extension = base.rpartition(".")
    if not dot or extension.lower() not in EXTENSIONS:
        raise InvalidRequestError(f"the file must be one of {', '.join(sorted(EXTENSIONS))}, by its file name")
    return base[-MAX_FILENAME_CHARS:]


async def _next_part(reader: MultipartReader) -> _Part | None:
    """The next field; one that is multipart itself, or has no name, is no field of ours."""
    body = await reader.next()
    if body is None:
        return None
    if not isinstance(body, BodyPartReader):
        raise InvalidRequestError("an upload has the fields video and title and no others")
    return _Part(body.name, body.filename, body)


async def _receive_file(part: BodyPartReader, incoming: Incoming, max_upload_bytes: int) -> None:
    while not part.at_eof():
        piece = await _next(lambda: part.read_chunk(PIECE_BYTES))
        if incoming.size_bytes + len(piece) > max_upload_bytes:
            raise _too_large(max_upload_bytes)
        if piece:
            await incoming.write(piece)
    if not incoming.size_bytes:
        raise InvalidRequestError("the file is empty")


async def _receive_title(part: BodyPartReader) -> str:
    data = bytearray()
    while not part.at_eof():
        data += await _next(lambda: part.read_chunk(PIECE_BYTES))
        if len(data) > MAX_TITLE_BYTES:
            raise InvalidRequestError(f"the title has more than {MAX_TITLE_CHARS} characters")
    try:
        title: str = msgspec.convert(data.decode().strip(), Title)
    except UnicodeDecodeError as error:
        raise InvalidRequestError("the title is not valid UTF-8") from error
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"the title must be 1 to {MAX_TITLE_CHARS} printable characters") from error
    return title


async def _next(read: Callable[[], Awaitable[T]]) -> T:
    """One step of the reader, with a deadline, and its many exceptions mapped to ours."""
    try:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            return await read()
    except TimeoutError as error:
        raise InvalidRequestError(f"nothing arrived for {IDLE_TIMEOUT_S:.0f} s") from error
    except _BROKEN as error:
        raise InvalidRequestError("the upload was cut off") from error
    except _MALFORMED as error:
        raise _malformed(error) from error


def _malformed(error: BaseException) -> InvalidRequestError:
    reason = error.message if isinstance(error, aiohttp.http_exceptions.HttpProcessingError) else str(error)
    return InvalidRequestError(f"the body is not well-formed multipart/form-data: {reason}")


def _too_large(max_upload_bytes: int) -> TooLargeError:
    return TooLargeError(f"a file has at most {max_upload_bytes} bytes")
