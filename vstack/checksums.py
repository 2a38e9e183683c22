"""SHA-256 checksums as text: `sha256:<hex>` or bare hex on the way in, `sha256:<hex>` on the way out."""

import hashlib
import re
from typing import Final

from vstack.errors import InvalidRequestError

PREFIX: Final = "sha256:"
_HEX = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


def parse(text: str) -> str:
    """The 64 lower-case hex digits of a checksum in either form, or InvalidRequestError."""
    match = _HEX.fullmatch(text)
    if match is None:
        raise InvalidRequestError("a checksum is 64 hex digits, with or without the prefix sha256:")
    return match[1].lower()


def text(hex_digest: str) -> str:
    """`sha256:<hex>`, the form that every JSON answer carries."""
    return PREFIX + hex_digest


def of(data: bytes | bytearray | memoryview) -> str:
    """Hex SHA-256 of `data`. Releases the GIL for large inputs."""
    return hashlib.sha256(data).hexdigest()
