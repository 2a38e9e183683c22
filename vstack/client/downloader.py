"""One download: one object from one node, and handed on only when it is what was promised.

The whole object is hashed by a thread: hashlib lets go of the interpreter meanwhile, so where many playbacks share a
process its loop goes on receiving on another core.
"""

import asyncio
from dataclasses import dataclass

import aiohttp

from vstack import checksums, errors
from vstack.core.playback.plan import Source
from vstack.core.playback.scoring import Failure
from vstack.rpc.storage import StorageClient


@dataclass(slots=True)
class Received:
    """What a running download has received so far."""

    size_bytes: int = 0


class DownloadError(Exception):
    """A download that failed, and why."""

    def __init__(self, reason: Failure, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


async def download(storage: StorageClient, source: Source, received: Received) -> bytes:
    """The verified bytes of `source`; `received` is kept up to date meanwhile.

    DownloadError where the node fails, does not have the object, or has other bytes. There is no time limit of its own
    worth the name: the scheduler cuts off what is silent or no longer needed.
    """

    def take(piece: bytes) -> None:
        received.size_bytes += len(piece)

    try:
        data = await storage.get_chunk(
            source.node, source.object_id, stall_timeout_s=None, max_bytes=source.size_bytes, on_piece=take
        )
    except errors.VStackError as error:
        raise DownloadError(_reason(error), str(error)) from error
    if len(data) != source.size_bytes or await asyncio.to_thread(checksums.of, data) != source.checksum:
        raise DownloadError(Failure.CORRUPT, f"{source.object_id} from {source.node} is not what the manifest promises")
    return data


def _reason(error: errors.VStackError) -> Failure:
    match error:
        case errors.NotFoundError():
            return Failure.MISSING
        case errors.TooLargeError():
            return Failure.CORRUPT
        case errors.RemoteError(__cause__=aiohttp.ClientConnectorError()):
            return Failure.UNREACHABLE
        case errors.RemoteError(__cause__=BaseException()):
            return Failure.BROKEN
        case _:
            return Failure.ERROR
