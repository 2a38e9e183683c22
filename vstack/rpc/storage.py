"""Typed client of storage nodes. Every method names the node by URL: which node is the caller's decision.

Nothing here retries: a caller that has other nodes goes there, and one that has not waits by its own policy.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from vstack import checksums, errors
from vstack.rpc.http import JsonCaller, describe, error_of
from vstack.units import MAX_CHUNK_BYTES
from vstack.wire import consensus, storage

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 1.0
PUT_TIMEOUT_S: Final = 30.0
GET_TIMEOUT_S: Final = 60.0
STALL_TIMEOUT_S: Final = 5.0
CONTROL_TIMEOUT_S: Final = 3.0
PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """A durable PUT. `receipt` is the X-Chunk-Receipt text, None from a node without a cluster key."""

    created: bool
    checksum: str
    receipt: str | None


@dataclass(frozen=True, slots=True)
class ChunkHead:
    """What HEAD says: hex SHA-256 and size."""

    checksum: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Pong:
    """What a ping says of a node."""

    node_id: str
    disk_usage_percent: float
    chunk_count: int


class _Body(aiohttp.Payload):
    """A chunk as a request body: sent in pieces, without a copy, as often as the connection pool needs."""

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(data, content_type="application/octet-stream")
        self._size = len(data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        view = memoryview(self._value)
        for start in range(0, len(view), PIECE_BYTES):
            await writer.write(view[start : start + PIECE_BYTES])


class StorageClient:
    """Calls to storage nodes over one session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def put_chunk(
        self,
        node_url: str,
        chunk_id: str,
        data: bytes | memoryview,
        *,
        checksum: str,
        proposal: consensus.Proposal | None = None,
        timeout_s: float = PUT_TIMEOUT_S,
    ) -> Stored:
        """Store one chunk or fragment; returns when its bytes, and the acceptance of `proposal`, are durable there."""
        headers = {"Content-Type": "application/octet-stream", storage.CHECKSUM_HEADER: checksum}
        if proposal is not None:
            headers[consensus.PROPOSAL_HEADER] = consensus.to_header(proposal)
        body = _Body(data)
        async with self._send("PUT", f"{node_url}/chunk/{chunk_id}", timeout_s, data=body, headers=headers) as answer:
            return Stored(answer.status == 201, checksum, answer.headers.get(consensus.RECEIPT_HEADER))

    async def get_chunk(
        self,
        node_url: str,
        chunk_id: str,
        *,
        stall_timeout_s: float | None = STALL_TIMEOUT_S,
        timeout_s: float = GET_TIMEOUT_S,
        max_bytes: int = MAX_CHUNK_BYTES,
        on_piece: Callable[[bytes], None] | None = None,
    ) -> bytes:
        """The bytes of a chunk, not verified; `on_piece` sees each piece as it arrives.

        RemoteError when nothing arrives for `stall_timeout_s` (None: the caller itself cuts off a node that is silent,
        from the connection on); TooLargeError as soon as more than `max_bytes` do.
        """
        url = f"{node_url}/chunk/{chunk_id}"
        pieces: list[bytes] = []
        received_bytes = 0
        connect_timeout_s = None if stall_timeout_s is None else CONNECT_TIMEOUT_S
        async with self._send(
            "GET", url, timeout_s, stall_timeout_s=stall_timeout_s, connect_timeout_s=connect_timeout_s
        ) as answer:
            async for piece in answer.content.iter_any():
                received_bytes += len(piece)
                if received_bytes > max_bytes:
                    raise errors.TooLargeError(f"GET {url}: more than {max_bytes} bytes")
                pieces.append(piece)
                if on_piece is not None:
                    on_piece(piece)
        return b"".join(pieces)

    async def head_chunk(self, node_url: str, chunk_id: str) -> ChunkHead | None:
        """Checksum and size of a stored chunk, None where the node has none."""
        try:
            async with self._send("HEAD", f"{node_url}/chunk/{chunk_id}", CONTROL_TIMEOUT_S) as answer:
                etag = answer.headers.get("ETag", "").strip('"')
                try:
                    return ChunkHead(checksums.parse(etag), int(answer.headers.get(storage.SIZE_HEADER, "")))
                except (errors.InvalidRequestError, ValueError) as error:
                    raise errors.RemoteError(f"HEAD {node_url}: not the answer of a storage node") from error
        except errors.NotFoundError:
            return None

    async def delete_chunk(self, node_url: str, chunk_id: str) -> bool:
        """Delete durably; False where there was nothing to delete."""
        try:
            async with self._send("DELETE", f"{node_url}/chunk/{chunk_id}", CONTROL_TIMEOUT_S):
                return True
        except errors.NotFoundError:
            return False

    async def ping(self, node_url: str, *, timeout_s: float = CONTROL_TIMEOUT_S) -> Pong:
        async with self._send("HEAD", f"{node_url}/ping", timeout_s) as answer:
            try:
                return Pong(
                    node_id=answer.headers.get(storage.NODE_HEADER, ""),
                    disk_usage_percent=float(answer.headers.get(storage.DISK_USAGE_HEADER, "0")),
                    chunk_count=int(answer.headers.get(storage.CHUNK_COUNT_HEADER, "0")),
                )
            except ValueError as error:
                raise errors.RemoteError(f"ping {node_url}: not the answer of a storage node") from error

    async def prepare(self, node_url: str, chunk_id: str, request: consensus.PrepareRequest) -> consensus.AcceptorReply:
        return await self._json(node_url, "POST", f"/acceptor/{chunk_id}/prepare", consensus.AcceptorReply, request)

    async def accept(self, node_url: str, chunk_id: str, request: consensus.AcceptRequest) -> consensus.AcceptorReply:
        return await self._json(node_url, "POST", f"/acceptor/{chunk_id}/accept", consensus.AcceptorReply, request)

    async def learn(self, node_url: str, request: consensus.LearnRequest) -> consensus.LearnReply:
        return await self._json(node_url, "POST", "/acceptors/learn", consensus.LearnReply, request)

    async def acceptor_state(self, node_url: str, chunk_id: str, epoch: int) -> consensus.AcceptorState | None:
        try:
            return await self._json(
                node_url, "GET", f"/acceptor/{chunk_id}", consensus.AcceptorState, params={"epoch": str(epoch)}
            )
        except errors.NotFoundError:
            return None

    async def acceptor_page(self, node_url: str, after: str | None) -> consensus.AcceptorPage:
        """A page of all acceptor states of a node, for a rebuild."""
        params = {"after": after} if after is not None else {}
        return await self._json(node_url, "GET", "/acceptors", consensus.AcceptorPage, params=params, timeout_s=60)

    async def inventory_page(
        self, node_url: str, after: str | None, *, video_id: str | None = None
    ) -> storage.Inventory:
        """A page of the chunks that a node holds, optionally of one video."""
        params = {} if after is None else {"after": after}
        if video_id is not None:
            params["video_id"] = video_id
        return await self._json(node_url, "GET", "/chunks", storage.Inventory, params=params, timeout_s=60)

    async def _json(
        self,
        node_url: str,
        method: str,
        path: str,
        answer: type[T],
        body: object = None,
        *,
        params: dict[str, str] | None = None,
        timeout_s: float = CONTROL_TIMEOUT_S,
    ) -> T:
        caller = JsonCaller(self._session, [node_url])
        return await caller.call(method, path, answer, body=body, params=params, retry=False, timeout_s=timeout_s)

    @contextlib.asynccontextmanager
    async def _send(
        self,
        method: str,
        url: str,
        timeout_s: float,
        *,
        stall_timeout_s: float | None = None,
        connect_timeout_s: float | None = CONNECT_TIMEOUT_S,
        data: aiohttp.Payload | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_read=stall_timeout_s, sock_connect=connect_timeout_s)
        try:
            async with self._session.request(method, url, data=data, headers=headers, timeout=timeout) as response:
                if response.status >= 400:
                    raise error_of(response.status, await response.read(), url, response.headers)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.RemoteError(f"{method} {url}: {describe(error)}") from error
