"""HTTP byte ranges and validators (RFC 9110, sections 13 and 14), as pure functions."""

import re
from collections.abc import Mapping

from vstack.errors import PreconditionError

_SINGLE = re.compile(r"\s*bytes\s*=\s*(?P<first>[0-9]{0,1000})\s*-\s*(?P<last>[0-9]{0,1000})\s*", re.IGNORECASE)


def requested(headers: Mapping[str, str], size_bytes: int, etag: str) -> slice | None:
    """The one range asked for, as a slice with both ends set; None where the whole object is the answer.

    Malformed ranges, several ranges and a failed If-Range are answered with the whole object, as the RFC allows.
    PreconditionError where no byte of the object is asked for.
    """
    text = headers.get("Range")
    if text is None or headers.get("If-Range", etag) != etag:
        return None
    match = _SINGLE.fullmatch(text)
    if match is None or not (match["first"] or match["last"]):
        return None
    if match["first"]:
        first = int(match["first"])
        last = int(match["last"]) if match["last"] else size_bytes - 1
        if match["last"] and last < first:
            return None
    else:
        first = max(0, size_bytes - int(match["last"]))
        last = size_bytes - 1
    if first >= size_bytes:
        raise PreconditionError(f"the object has {size_bytes} bytes", size_bytes=size_bytes)
    return slice(first, min(last, size_bytes - 1) + 1)


def content_range(part: slice, size_bytes: int) -> str:
    """The Content-Range header of a 206."""
    return f"bytes {part.start}-{part.stop - 1}/{size_bytes}"
