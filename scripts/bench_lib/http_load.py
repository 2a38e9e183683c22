"""A load generator that costs little: raw HTTP/1.1 on asyncio protocols, one request in flight per connection.

Every answer is checked: status, declared length, bytes received, and for a GET samples of the content. A wrong answer
ends the run with an error, so a figure never stands on broken answers.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop

HEAD_END: Final = b"\r\n\r\n"
HEAD_LIMIT_BYTES: Final = 4096
SAMPLE_BYTES: Final = 64
SAMPLES: Final = 9
RUN_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send: `body` follows `head`; `expected` is what the answer's body must be."""

    head: bytes
    body: bytes = b""
    expected: bytes = b""
    statuses: tuple[int, ...] = (200,)


@dataclass(slots=True)
class Outcome:
    """What a run did: payload bytes moved, seconds from first to last, and the latency of each request in seconds."""

    payload_bytes: int = 0
    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def megabytes_per_s(self) -> float:
        return self.payload_bytes / self.elapsed_s / 1e6

    def percentile_s(self, fraction: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


class WrongAnswerError(Exception):
    """The server did not answer what it should have."""


def run(port: int, requests: Iterator[Request], connections: int, *, object_bytes: int) -> Outcome:
    """Send all requests, each connection taking the next one when its last is answered."""
    return uvloop.run(_run(port, requests, connections, object_bytes))


async def _run(port: int, requests: Iterator[Request], connections: int, object_bytes: int) -> Outcome:
    loop = asyncio.get_running_loop()
    outcome = Outcome()
    clients = [_Connection(requests, outcome, object_bytes) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    started = time.perf_counter()
    for client in clients:
        client.send_next()
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            await asyncio.gather(*(client.done for client in clients))
    finally:
        for client in clients:
            client.close()
    outcome.elapsed_s = time.perf_counter() - started
    return outcome


class _Connection(asyncio.BufferedProtocol):
    def __init__(self, requests: Iterator[Request], outcome: Outcome, object_bytes: int) -> None:
        self._requests = requests
        self._outcome = outcome
        self._buffer = memoryview(bytearray(HEAD_LIMIT_BYTES + object_bytes))
        self._filled = 0
        self._answer_bytes: int | None = None
        self._body_start = 0
        self._sent_at = 0.0
        self._request: Request | None = None
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc}")

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._answer_bytes is None:
            self._read_head()
        if self._answer_bytes is not None and self._filled >= self._answer_bytes:
            self._finish()

    def send_next(self) -> None:
        self._request = next(self._requests, None)
        if self._request is None:
            if not self.done.done():
                self.done.set_result(None)
            return
        assert self._transport is not None
        self._filled, self._answer_bytes = 0, None
        self._sent_at = time.perf_counter()
        self._transport.writelines([self._request.head, self._request.body])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _read_head(self) -> None:
        head, end, _ = bytes(self._buffer[: min(self._filled, HEAD_LIMIT_BYTES)]).partition(HEAD_END)
        if not end:
            return
        assert self._request is not None
        status = int(head[9:12])
        if status not in self._request.statuses:
            self._fail(f"status {status}: {bytes(self._buffer[: self._filled])[:500]!r}")
            return
        self._body_start = len(head) + len(end)
        self._answer_bytes = self._body_start + _content_length(head)

    def _finish(self) -> None:
        assert self._request is not None
        assert self._answer_bytes is not None
        body = self._buffer[self._body_start : self._filled]
        if self._filled != self._answer_bytes or not _matches(body, self._request.expected):
            self._fail(f"{len(body)} bytes came that are not the {len(self._request.expected)} expected")
            return
        self._outcome.latencies_s.append(time.perf_counter() - self._sent_at)
        self._outcome.payload_bytes += len(self._request.body) or len(body)
        self.send_next()

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(WrongAnswerError(reason))
        self.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _matches(body: memoryview, expected: bytes) -> bool:
    """Equal length, and equal bytes at both ends and in between."""
    if len(body) != len(expected):
        return False
    last = max(0, len(expected) - SAMPLE_BYTES)
    starts = {last * step // (SAMPLES - 1) for step in range(SAMPLES)}
    return all(body[start : start + SAMPLE_BYTES] == expected[start : start + SAMPLE_BYTES] for start in starts)


def gets(paths: Sequence[str], contents: Sequence[bytes], until: float) -> Iterator[Request]:
    """GETs of these objects in turn, until a moment of `time.perf_counter`."""
    requests = [
        Request(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode(), expected=content)
        for path, content in zip(paths, contents, strict=True)
    ]
    position = 0
    while time.perf_counter() < until:
        yield requests[position % len(requests)]
        position += 1


def puts(paths: Sequence[str], contents: Sequence[bytes]) -> Iterator[Request]:
    """One PUT to each path."""
    for number, path in enumerate(paths):
        body = contents[number % len(contents)]
        head = f"PUT {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        yield Request(head, body, statuses=(200, 201, 204))
