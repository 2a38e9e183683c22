"""The uploader's client on bad connections: an upload becomes one video, however often it has to be sent."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.uploader.service.running import BOUNDARY, Service, good_form
from vstack.errors import InvalidRequestError, RemoteError
from vstack.rpc import uploader as rpc
from vstack.rpc.uploader import UploaderClient
from vstack.wire.uploader import KEY_HEADER

FILE_BYTES = 8_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(bytes(FILE_BYTES))
    return path


@dataclass
class Wire:
    """A way to the uploader that breaks: for each connection, after how many bytes to it, or from it."""

    url: str = ""
    limits: list[tuple[float, float]] = field(default_factory=list)
    connections: int = 0


@pytest.fixture
async def wire(service: Service) -> AsyncIterator[Wire]:
    wire = Wire()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: float) -> None:
        while limit > 0 and (data := await reader.read(65536)):
            limit -= len(data)
            if limit >= 0:
                writer.write(data)
                await writer.drain()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections += 1
        to_limit, from_limit = wire.limits.pop(0) if wire.limits else (float("inf"), float("inf"))
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", service.port)
        ways = {
            asyncio.create_task(carry(reader, far_writer, to_limit)),
            asyncio.create_task(carry(far_reader, writer, from_limit)),
        }
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, far_writer):
            end.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield wire
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "limits",
    [
        [(FILE_BYTES / 2, float("inf"))],
        [(100, float("inf")), (FILE_BYTES / 2, float("inf")), (FILE_BYTES / 2, float("inf"))],
        [(float("inf"), len(b"HTTP/1.1 100 Continue\r\n\r\n") + 1)],
    ],
    ids=["cut on the way", "cut again and again", "the answer is lost"],
)
async def test_what_breaks_off_is_sent_again_and_is_one_upload(
    service: Service, wire: Wire, file: Path, limits: list[tuple[float, float]]
) -> None:
    wire.limits = list(limits)
    waits: list[Exception] = []
    sent: list[int] = []
    accepted = await UploaderClient(service.session, wire.url).upload(
        file, "t", lambda done, _total: sent.append(done), waits.append
    )
    assert service.sessions == [f"{accepted.upload_session_id}.json"]
    assert sent[-1] == FILE_BYTES
    assert wire.connections >= len(limits) + 1
    assert len(waits) >= len(limits)
    assert await service.metric("vstack_uploader_received_bytes_total") == FILE_BYTES


async def test_an_upload_that_always_breaks_off_is_given_up(service: Service, wire: Wire, file: Path) -> None:
    wire.limits = [(FILE_BYTES / 2, float("inf"))] * 10
    with pytest.raises(RemoteError):
        await UploaderClient(service.session, wire.url).upload(file, "t")
    assert wire.connections == rpc.MAX_SENDS
    assert service.sessions == []


async def test_an_uploader_that_starts_later_is_waited_for(service: Service, file: Path) -> None:
    """The port refuses until something listens there."""
    holder = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = holder.sockets[0].getsockname()[1]
    holder.close()
    await holder.wait_closed()
    refused = asyncio.Event()
    client = UploaderClient(service.session, f"http://127.0.0.1:{port}")
    uploading = asyncio.create_task(client.upload(file, "t", on_wait=lambda _reason: refused.set()))
    await refused.wait()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", service.port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
            with contextlib.suppress(ConnectionError, RuntimeError):
                target.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(forward, "127.0.0.1", port):
        accepted = await uploading
    assert service.sessions == [f"{accepted.upload_session_id}.json"]


async def test_a_file_that_changes_on_the_way_is_not_sent_again(service: Service, wire: Wire, file: Path) -> None:
    def shrink(_sent: int, _total: int) -> None:
        file.write_bytes(b"short")

    with pytest.raises(InvalidRequestError, match="changed while it was being sent"):
        await UploaderClient(service.session, wire.url).upload(file, "t", shrink)
    assert wire.connections == 1


async def post(service: Service, key: str, body: bytes) -> tuple[int, dict[str, object]]:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", KEY_HEADER: key}
    async with service.session.post(f"{service.url}/upload", data=body, headers=headers) as response:
        return response.status, await response.json()


async def test_a_key_names_one_upload(service: Service) -> None:
    key = str(uuid.uuid4())
    status, first = await post(service, key.upper(), good_form(title="First"))
    assert (status, first["upload_session_id"]) == (200, key)
    status, again = await post(service, key, good_form(title="Second"))
    assert (status, again["title"], again["video_id"]) == (200, "First", first["video_id"])
    status, other = await post(service, str(uuid.uuid4()), good_form(title="Third"))
    assert (status, other["title"]) == (200, "Third")
    assert len(service.sessions) == 2
    status, refused = await post(service, "../../etc", good_form())
    assert (status, refused["code"]) == (400, "invalid_request")


async def test_an_upload_that_is_being_received_is_not_received_twice(service: Service) -> None:
    key = str(uuid.uuid4())
    body = good_form()
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = f"POST /upload HTTP/1.1\r\nHost: x\r\n{KEY_HEADER}: {key}\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode() + body[:-5])
    async with asyncio.timeout(10):
        while not service.received:  # noqa: ASYNC110 - what the other connection does
            await asyncio.sleep(0.01)
    status, refused = await post(service, key, body)
    assert (status, refused["code"]) == (503, "unavailable")
    writer.write(body[-5:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    status, accepted = await post(service, key, body)
    assert (status, accepted["upload_session_id"]) == (200, key)
    assert len(service.sessions) == 1
