"""Identifiers: how they look, how they are made, how they are ordered.

Invariants: an id matches `[A-Za-z0-9_-]{1,64}` wherever it enters the system, so it is safe in a URL, a file name and a
log line. A video id is minted once and never changes. Chunk order is the number in the id, never the text.
"""

import re
import uuid
from typing import Annotated

import msgspec

from vstack.errors import InvalidRequestError

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FRAGMENT = re.compile(r"(?P<chunk>[A-Za-z0-9_-]{1,60})-frag-(?P<index>[0-9]{1,2})")
_CHUNK = re.compile(r"(?P<video>[A-Za-z0-9_-]{1,50})-chunk-(?P<number>[0-9]{3,7})")

# `(?![\s\S])` is the end of the text in every regular-expression dialect; `$` would let a trailing newline pass.
Identifier = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?![\s\S])", min_length=1, max_length=64)]
"""An id as a field or path parameter: checked while decoding, shown in /openapi.json."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
BaseUrl = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^https?://(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::{_PORT})?(?![\s\S])",
        max_length=256,
    ),
]
"""The URL of a service: scheme, host, port, no path. Of an IPv6 address only the characters are checked."""


def new_video_id() -> str:
    """A fresh random video id (UUID 4)."""
    return str(uuid.uuid4())


def check(value: str, what: str = "id") -> str:
    """Return `value` unchanged, or raise InvalidRequestError where it is no identifier."""
    if _ID.fullmatch(value) is None:
        raise InvalidRequestError(f"{what} must be 1 to 64 characters of A-Z a-z 0-9 _ -")
    return value


def chunk_id(video_id: str, number: int) -> str:
    """The id of chunk `number` (from 0) of a video: three digits, more above 999."""
    return f"{video_id}-chunk-{number:03d}"


def fragment_id(chunk: str, index: int) -> str:
    """The id of erasure-coded fragment `index` of a chunk."""
    return f"{chunk}-frag-{index}"


def parse_chunk_id(value: str) -> tuple[str, int] | None:
    """(video id, number) of a chunk id of ours; None for any other identifier."""
    match = _CHUNK.fullmatch(value)
    return (match["video"], int(match["number"])) if match else None


def parse_fragment_id(value: str) -> tuple[str, int] | None:
    """(chunk id, fragment index) of a fragment id; None for any other identifier."""
    match = _FRAGMENT.fullmatch(value)
    return (match["chunk"], int(match["index"])) if match else None
