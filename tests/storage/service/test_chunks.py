"""PUT, GET, HEAD, DELETE of chunks and the inventory, as the public contract has them."""

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from tests.storage.service.conftest import RunningNode
from vstack.rpc.storage import StorageClient
from vstack.units import MAX_CHUNK_BYTES

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()
BAD_IDS = ["a.b", "a%20b", "a%2Fb", "%C3%A4", "x" * 65, "a%0A", "..%2F..%2Fetc", "a%00"]


async def test_put_then_get(node: RunningNode) -> None:
    async with node.request("PUT", "/chunk/c-1", data=DATA) as answer:
        assert answer.status == 201
        assert answer.headers["Location"] == "/chunk/c-1"
        assert answer.headers["ETag"] == f'"{SHA}"'
        assert answer.headers["X-Chunk-Size"] == str(len(DATA))
        assert "X-Chunk-Receipt" not in answer.headers
        assert await answer.read() == b""
    async with node.request("GET", "/chunk/c-1") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Length"] == str(len(DATA))
        assert answer.headers["ETag"] == f'"{SHA}"'
        assert answer.headers["X-Chunk-Size"] == str(len(DATA))
        assert answer.headers["X-Superblock-ID"]
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert await answer.read() == DATA


async def test_the_same_bytes_again_are_200_and_other_bytes_409(node: RunningNode) -> None:
    assert await node.put("c-1", DATA) == 201
    assert await node.put("c-1", DATA) == 200
    body = await node.json("PUT", "/chunk/c-1", data=b"other", status=409)
    assert body["detail"]
    assert await node.get("c-1") == DATA


async def test_a_chunk_of_exactly_two_mebibytes(node: RunningNode) -> None:
    data = os.urandom(MAX_CHUNK_BYTES)
    assert await node.put("big", io.BytesIO(data)) == 201  # type: ignore[arg-type]
    assert await node.get("big") == data


async def test_our_client_sends_and_takes_a_full_chunk(node: RunningNode) -> None:
    client, data = StorageClient(node.session), os.urandom(MAX_CHUNK_BYTES)
    checksum = hashlib.sha256(data).hexdigest()
    stored = await client.put_chunk(node.url, "big", memoryview(data), checksum=checksum)
    assert (stored.created, stored.receipt) == (True, None)
    assert await client.get_chunk(node.url, "big") == data
    head = await client.head_chunk(node.url, "big")
    assert head is not None
    assert (head.checksum, head.size_bytes) == (checksum, MAX_CHUNK_BYTES)
    assert (await client.inventory_page(node.url, None)).chunks[0].chunk_id == "big"
    assert await client.delete_chunk(node.url, "big")
    assert not await client.delete_chunk(node.url, "big")
    assert await client.head_chunk(node.url, "big") is None
    assert (await client.ping(node.url)).node_id == node.node_id


async def test_one_byte_too_many_is_413_by_its_declared_length(node: RunningNode) -> None:
    body = await node.json("PUT", "/chunk/c-1", data=io.BytesIO(bytes(MAX_CHUNK_BYTES + 1)), status=413)
    assert body["detail"]
    assert (await node.json("GET", "/chunks"))["chunks"] == []


async def test_an_oversized_length_is_refused_before_any_body(node: RunningNode) -> None:
    head = f"PUT /chunk/c-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {MAX_CHUNK_BYTES + 1}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(head.encode())
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()
    await writer.wait_closed()


async def chunked(total: int, piece: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, total, piece):
        yield bytes(min(piece, total - start))


async def test_chunked_transfer(node: RunningNode) -> None:
    async with node.request("PUT", "/chunk/full", data=chunked(MAX_CHUNK_BYTES)) as answer:
        assert answer.status == 201
    async with node.request("PUT", "/chunk/over", data=chunked(MAX_CHUNK_BYTES + 1)) as answer:
        assert answer.status == 413
    async with node.request("PUT", "/chunk/endless", data=chunked(MAX_CHUNK_BYTES * 4)) as answer:
        assert answer.status == 413
    async with node.request("PUT", "/chunk/empty", data=chunked(0)) as answer:
        assert answer.status == 400
    assert [row["chunk_id"] for row in (await node.json("GET", "/chunks"))["chunks"]] == ["full"]


async def test_an_empty_body_is_400(node: RunningNode) -> None:
    assert "detail" in await node.json("PUT", "/chunk/c-1", status=400)
    assert "detail" in await node.json("PUT", "/chunk/c-1", data=b"", status=400)
    assert await node.json("GET", "/chunk/c-1", status=404)


@pytest.mark.parametrize("form", [SHA, SHA.upper(), f"sha256:{SHA}"])
async def test_a_matching_checksum_header(memory_node: RunningNode, form: str) -> None:
    assert await memory_node.put("c-1", DATA, X_Chunk_Checksum=form) == 201


@pytest.mark.parametrize("form", ["0" * 64, "sha256:" + "0" * 64, "", "md5:" + "0" * 32, SHA[:-1], SHA + "0"])
async def test_a_wrong_checksum_header_is_400_and_stores_nothing(memory_node: RunningNode, form: str) -> None:
    assert await memory_node.put("c-1", DATA, X_Chunk_Checksum=form) == 400
    await memory_node.json("GET", "/chunk/c-1", status=404)


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
async def test_ids_are_checked_on_every_verb(memory_node: RunningNode, method: str, bad: str) -> None:
    url = URL(f"{memory_node.url}/chunk/{bad}", encoded=True)
    body = DATA if method == "PUT" else None
    async with memory_node.session.request(method, url, data=body) as answer:
        assert answer.status == 400
        if method != "HEAD":
            assert "detail" in await answer.json()


async def test_what_is_not_there_is_404(node: RunningNode) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        async with node.request(method, "/chunk/none") as answer:
            assert answer.status == 404
            if method != "HEAD":
                assert (await answer.json())["detail"]
    assert (await node.json("GET", "/nowhere", status=404))["detail"]
    async with node.request("POST", "/chunk/none") as answer:
        assert answer.status == 405
        assert "detail" in await answer.json()


async def test_head_has_the_headers_of_get(node: RunningNode) -> None:
    await node.put("c-1", DATA)
    async with node.request("GET", "/chunk/c-1") as answer:
        full = {name: value for name, value in answer.headers.items() if name != "Date"}
    async with node.request("HEAD", "/chunk/c-1") as answer:
        assert answer.status == 200
        assert await answer.read() == b""
        assert {name: value for name, value in answer.headers.items() if name != "Date"} == full


@pytest.mark.parametrize("size", [len(DATA), 1_500_000])
async def test_ranges(node: RunningNode, size: int) -> None:
    data = os.urandom(size)
    await node.put("c-1", io.BytesIO(data))  # type: ignore[arg-type]
    last = size - 1
    for text, expected, content_range in [
        ("bytes=0-0", data[:1], f"bytes 0-0/{size}"),
        ("bytes=10-", data[10:], f"bytes 10-{last}/{size}"),
        ("bytes=-7", data[-7:], f"bytes {size - 7}-{last}/{size}"),
        (f"bytes=5-{size * 2}", data[5:], f"bytes 5-{last}/{size}"),
        ("bytes=4097-9000", data[4097:9001], f"bytes 4097-9000/{size}"),
    ]:
        async with node.request("GET", "/chunk/c-1", headers={"Range": text}) as answer:
            assert answer.status == 206, text
            assert answer.headers["Content-Range"] == content_range
            assert answer.headers["Content-Length"] == str(len(expected))
            assert answer.headers["X-Chunk-Size"] == str(size)
            assert await answer.read() == expected
    for text in ("bytes=0-1,3-4", "bytes=9-2", "lines=1-2", "bytes=x"):
        async with node.request("GET", "/chunk/c-1", headers={"Range": text}) as answer:
            assert answer.status == 200, text
            assert await answer.read() == data
    async with node.request("GET", "/chunk/c-1", headers={"Range": f"bytes={size}-"}) as answer:
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{size}"
        assert "detail" in await answer.json()


async def test_if_none_match(node: RunningNode) -> None:
    await node.put("c-1", DATA)
    for method in ("GET", "HEAD"):
        for tags in (f'"{SHA}"', f'W/"{SHA}"', f'"x", "{SHA}"', "*"):
            async with node.request(method, "/chunk/c-1", headers={"If-None-Match": tags}) as answer:
                assert answer.status == 304
                assert answer.headers["ETag"] == f'"{SHA}"'
                assert await answer.read() == b""
        for tags in ('"x"', SHA, "", '"'):
            async with node.request(method, "/chunk/c-1", headers={"If-None-Match": tags}) as answer:
                assert answer.status == 200, tags
    async with node.request("GET", "/chunk/none", headers={"If-None-Match": "*"}) as answer:
        assert answer.status == 404


async def test_delete(node: RunningNode) -> None:
    await node.put("c-1", DATA)
    async with node.request("DELETE", "/chunk/c-1") as answer:
        assert answer.status == 204
        assert await answer.read() == b""
    await node.json("DELETE", "/chunk/c-1", status=404)
    await node.json("GET", "/chunk/c-1", status=404)
    assert await node.put("c-1", b"other bytes are welcome now") == 201
    assert await node.get("c-1") == b"other bytes are welcome now"


async def test_concurrent_puts_of_one_id_store_one_of_them(node: RunningNode) -> None:
    bodies = [bytes([number]) * 50_000 for number in range(4)]
    statuses = await asyncio.gather(*(node.put("c-1", body) for body in bodies for _ in range(3)))
    assert sorted(statuses) == [200, 200, 201] + [409] * 9
    assert await node.get("c-1") in bodies


async def test_concurrent_gets_and_puts_do_not_mix_bytes(node: RunningNode) -> None:
    bodies = {f"c-{number}": bytes([number]) * 1_000_000 for number in range(8)}
    for name, body in bodies.items():
        assert await node.put(name, body) == 201

    async def read(name: str) -> None:
        for _ in range(5):
            assert await node.get(name) == bodies[name]

    await asyncio.gather(*(read(name) for name in bodies), *(node.put(name, body) for name, body in bodies.items()))


async def test_the_inventory_pages_through_everything(node: RunningNode) -> None:
    names = [f"v{video}-chunk-{number:03d}" for video in range(2) for number in range(5)]
    for name in [*names, "v0-chunk-000-frag-3"]:
        await node.put(name, name.encode())
    seen: list[str] = []
    after: str | None = None
    while True:
        params = {"limit": "3"} | ({"after": after} if after is not None else {})
        page = await node.json("GET", "/chunks", params=params)
        assert len(page["chunks"]) <= 3
        seen += [row["chunk_id"] for row in page["chunks"]]
        after = page["next"]
        if after is None:
            break
    assert sorted(seen) == sorted([*names, "v0-chunk-000-frag-3"])
    rows = (await node.json("GET", "/chunks", params={"video_id": "v0"}))["chunks"]
    assert sorted(row["chunk_id"] for row in rows) == [*names[:5][:1], "v0-chunk-000-frag-3", *names[1:5]]
    fragment = next(row for row in rows if row["chunk_id"].endswith("frag-3"))
    digest = hashlib.sha256(b"v0-chunk-000-frag-3").hexdigest()
    assert fragment == {
        "chunk_id": "v0-chunk-000-frag-3",
        "size_bytes": 19,
        "checksum": f"sha256:{digest}",
        "fragment_index": 3,
        "epoch": 0,
    }


@pytest.mark.parametrize("query", ["limit=0", "limit=5001", "limit=x", "video_id=a.b", "after=" + "x" * 65])
async def test_bad_inventory_queries_are_400(memory_node: RunningNode, query: str) -> None:
    assert "detail" in await memory_node.json("GET", f"/chunks?{query}", status=400)


@pytest.mark.parametrize("after", ["zzz", "0", "-1", "%00", "99999999999999999999", "a:b"])
async def test_a_made_up_cursor_is_no_crash(node: RunningNode, after: str) -> None:
    await node.put("c-1", DATA)
    for path in ("/chunks", "/acceptors"):
        async with node.request("GET", f"{path}?after={after}") as answer:
            assert answer.status in (200, 400)
