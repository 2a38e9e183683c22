"""What every service's messages share."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from vstack.ids import BaseUrl
from vstack.units import MAX_TITLE_CHARS


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all wire types."""


class ErrorBody(Message, frozen=True, kw_only=True):
    """The body of every error answer."""

    detail: str
    code: str = "internal"


# PostgreSQL text holds no NUL, and a URL or title with control characters is a mistake or an attack.
_PRINTABLE = r"^[^\x00-\x1f\x7f]*(?![\s\S])"

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TITLE_CHARS, pattern=_PRINTABLE)]
ShortText = Annotated[str, msgspec.Meta(max_length=256, pattern=_PRINTABLE)]
NodeUrl = BaseUrl
Checksum = Annotated[str, msgspec.Meta(pattern=r"^(sha256:)?[0-9a-fA-F]{64}(?![\s\S])")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


def timestamp(moment: datetime) -> str:
    """ISO-8601 in UTC with `Z`, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
