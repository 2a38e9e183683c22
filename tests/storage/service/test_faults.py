"""What goes wrong: flipped bytes, full and failing disks, clients that leave, stall or lie."""

import asyncio
import io
import json
import os
import socket
from pathlib import Path

import pytest
import structlog

from tests.storage.service.conftest import RunningNode, eventually, on_memory, running, settings_for
from vstack.storage import receiving, sending, slow_reads
from vstack.storage.contract import DiskState
from vstack.storage.node import NODE
from vstack.units import MAX_CHUNK_BYTES

DATA = os.urandom(300_000)


def flip_on_disk(node: RunningNode, data: bytes) -> None:
    """Flip the last byte of these stored bytes in whichever file holds them."""
    for path in sorted(path for path in node.data_dir.rglob("*") if path.is_file()):
        content = path.read_bytes()
        position = content.find(data)
        if position >= 0:
            with path.open("r+b") as file:
                file.seek(position + len(data) - 1)
                file.write(bytes([data[-1] ^ 1]))
            return
    raise AssertionError("the bytes are in no file")


async def check_corruption(node: RunningNode) -> None:
    answer = await node.raw(b"GET /chunk/c-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert json.loads(body)["code"] == "corruption"
    assert DATA[:16] not in answer
    for header in ("bytes=0-9", "bytes=0-200000"):
        async with node.request("GET", "/chunk/c-1", headers={"Range": header}) as response:
            assert response.status == 500
    assert await node.metric("vstack_storage_corruption_total") == 3
    assert await node.get("c-2") == b"untouched"


async def test_a_flipped_byte_is_500_and_no_wrong_byte_leaves(memory_node: RunningNode) -> None:
    await memory_node.put("c-1", DATA)
    await memory_node.put("c-2", b"untouched")
    memory_node.memory.flip_byte("c-1")
    await check_corruption(memory_node)


async def test_a_flipped_byte_on_the_disk(disk_node: RunningNode) -> None:
    await disk_node.put("c-1", DATA)
    await disk_node.put("c-2", b"untouched")
    flip_on_disk(disk_node, DATA)
    await check_corruption(disk_node)


async def test_a_full_disk_is_507_and_serves_on(memory_node: RunningNode) -> None:
    await memory_node.put("c-1", DATA)
    memory_node.memory.state = DiskState.CRITICAL
    assert await memory_node.put("c-2", DATA) == 507
    assert await memory_node.get("c-1") == DATA


async def test_a_read_only_disk_is_500_for_writes_and_serves_on(memory_node: RunningNode) -> None:
    await memory_node.put("c-1", DATA)
    memory_node.memory.state = DiskState.READ_ONLY
    assert await memory_node.put("c-2", DATA) == 500
    await memory_node.json("DELETE", "/chunk/c-1", status=500)
    assert await memory_node.get("c-1") == DATA


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_upload_cut_off_half_way_leaves_nothing(memory_node: RunningNode, framing: str) -> None:
    """More often than there are buffers, so a buffer that is not given back stops the test."""
    head = {
        "length": b"Content-Length: 1000000\r\n\r\n" + bytes(500_000),
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n80000\r\n" + bytes(500_000),
    }[framing]
    for _ in range(10):
        _reader, writer = await asyncio.open_connection("127.0.0.1", memory_node.port)
        writer.write(b"PUT /chunk/cut HTTP/1.1\r\nHost: x\r\n" + head)
        await writer.drain()
        await eventually(lambda: memory_node.memory.borrowed == 1)
        writer.transport.abort()
        await eventually(lambda: memory_node.memory.borrowed == 0)
    await memory_node.json("GET", "/chunk/cut", status=404)
    assert await memory_node.put("cut", DATA) == 201


@pytest.mark.parametrize(
    "body",
    [
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: -5\r\n\r\nhello",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ],
)
async def test_a_badly_framed_body_is_400(memory_node: RunningNode, body: bytes) -> None:
    answer = await memory_node.raw(b"PUT /chunk/bad HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + body)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert memory_node.memory.borrowed == 0
    await memory_node.json("GET", "/chunk/bad", status=404)


async def test_a_stalled_upload_gives_its_buffer_back(
    memory_node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "RECEIVE_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", memory_node.port)
    writer.write(b"PUT /chunk/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    assert memory_node.memory.borrowed == 0
    writer.close()
    await writer.wait_closed()


def narrow_connection(port: int) -> socket.socket:
    """A connection whose receiving side takes very little before the node must wait."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    return connection


@pytest.mark.parametrize("ending", ["abort", "deadline"])
async def test_a_reader_that_takes_nothing_gives_its_buffer_back(
    memory_node: RunningNode, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    if ending == "deadline":
        monkeypatch.setattr(sending, "SEND_TIMEOUT_S", 0.2)
    data = os.urandom(MAX_CHUNK_BYTES)
    for number in range(8):  # more than loopback buffers hold
        await memory_node.put(f"c-{number}", io.BytesIO(data))  # type: ignore[arg-type]
    with narrow_connection(memory_node.port) as connection:
        connection.sendall(b"".join(b"GET /chunk/c-%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(8)))
        await eventually(lambda: memory_node.memory.borrowed == 1)
        if ending == "abort":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        await eventually(lambda: memory_node.memory.borrowed == 0)
    async with memory_node.request("GET", "/health") as answer:
        assert answer.status == 200


async def stuck(node: RunningNode) -> bool:
    """Whether the node has stopped answering because its client takes nothing."""
    before = await node.metric("vstack_storage_get_duration_seconds_count")
    await asyncio.sleep(0.1)
    return before > 0 and await node.metric("vstack_storage_get_duration_seconds_count") == before


@pytest.mark.parametrize(("part_bytes", "count"), [(60_000, 200), (200_000, 60), (MAX_CHUNK_BYTES, 8)])
async def test_a_slow_reader_gets_its_own_bytes(memory_node: RunningNode, part_bytes: int, count: int) -> None:
    """The engine in memory overwrites what it lent as soon as it comes back: an early return would show."""
    data = os.urandom(MAX_CHUNK_BYTES)
    await memory_node.put("c-1", io.BytesIO(data))  # type: ignore[arg-type]
    request = f"GET /chunk/c-1 HTTP/1.1\r\nHost: x\r\nRange: bytes=0-{part_bytes - 1}\r\n".encode()
    received = bytearray()

    def read() -> None:
        while piece := connection.recv(1 << 16):
            received.extend(piece)

    with narrow_connection(memory_node.port) as connection:
        connection.sendall((request + b"\r\n") * (count - 1) + request + b"Connection: close\r\n\r\n")
        await eventually(lambda: stuck(memory_node))
        await asyncio.to_thread(read)
    assert received.count(b"HTTP/1.1 206 ") == count
    assert received.count(data[:part_bytes]) == count


async def test_more_uploads_than_buffers_wait_for_their_turn(tmp_path: Path) -> None:
    async with running(on_memory(settings_for(tmp_path), buffers=2), tmp_path) as node:
        statuses = await asyncio.gather(*(node.put(f"c-{number}", DATA) for number in range(20)))
        assert statuses == [201] * 20


async def test_slow_reads_are_logged_once_in_a_while(memory_node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    await memory_node.put("c-1", DATA)
    monkeypatch.setattr(slow_reads, "TARGET_S", 60.0)
    with structlog.testing.capture_logs() as quick:
        await memory_node.get("c-1")
    monkeypatch.setattr(slow_reads, "TARGET_S", -1.0)
    with structlog.testing.capture_logs() as slow:
        for _ in range(3):
            await memory_node.get("c-1")
        memory_node.app[NODE].slow_reads._quiet_until = 0.0
        await memory_node.get("c-1")
    assert not [entry for entry in quick if entry["event"] == "slow_read"]
    logged = [(entry["chunk_id"], entry["also_slow"]) for entry in slow if entry["event"] == "slow_read"]
    assert logged == [("c-1", 0), ("c-1", 2)]
