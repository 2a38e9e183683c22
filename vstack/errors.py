"""The one error hierarchy.

Every error that crosses a module boundary on purpose derives from `VStackError` and carries a stable `code`, which logs
and metrics use. Nothing here knows HTTP: `vstack.service.middleware` maps a class to a status, and `vstack.rpc.http`
maps a status back to a class. The message is a sentence for the person who made the request.
"""

from collections.abc import Mapping
from typing import ClassVar


class VStackError(Exception):
    """Base of all expected errors."""

    code: ClassVar[str] = "internal"


class InvalidRequestError(VStackError):
    """The request itself is wrong; sending it again unchanged cannot help."""

    code = "invalid_request"


class InvalidMediaError(InvalidRequestError):
    """The uploaded file is no video that can be stored; the sentence says why and never names a server path."""

    code = "invalid_media"


class NotFoundError(VStackError):
    """No such video, chunk, node or session."""

    code = "not_found"


class ConflictError(VStackError):
    """The request contradicts something already decided or stored.

    `chosen` holds the decided value as JSON-ready fields where there is one, and is added to the error body.
    """

    code = "conflict"

    def __init__(self, message: str, *, chosen: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.chosen = chosen


class TooLargeError(VStackError):
    """A body above its limit."""

    code = "too_large"


class PreconditionError(VStackError):
    """A byte range outside the object, which has `size_bytes`."""

    code = "range_not_satisfiable"

    def __init__(self, message: str, *, size_bytes: int | None = None) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class UnavailableError(VStackError):
    """Not now: too few nodes, no database, a full queue. Trying again after `retry_after_s` is right."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageFullError(VStackError):
    """The disk has no room that a PUT may take."""

    code = "storage_full"


class CorruptionError(VStackError):
    """Stored bytes fail their checksum. They are never served."""

    code = "corruption"


class DiskError(VStackError):
    """The operating system reported an I/O error, or the disk is read-only after one."""

    code = "disk"


class SettingsError(VStackError):
    """A configuration file, data directory or environment that a service refuses to start with."""

    code = "settings"


class OutputError(VStackError):
    """The file or pipe that a playback writes to takes no more bytes."""

    code = "output"


class RemoteError(VStackError):
    """A peer failed in a way that has no class of its own: a 5xx, a broken connection, a timeout, a wrong answer."""

    code = "remote"
