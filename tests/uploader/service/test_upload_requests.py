"""POST /upload: what is refused, with which words, and that nothing stays behind. No job gets far here."""

import asyncio
import io
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.uploader.service.cluster import eventually
from tests.uploader.service.running import BOUNDARY, Service, field, form, good_form, running_service, settings_for
from vstack.uploader import receive, spool

POST = f"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
REFUSED = {
    "no video": (form(field("title", "t")), "video is missing"),
    "no title": (form(field("video", "data", "a.mp4")), "title is missing"),
    "no field at all": (form(), "video is missing"),
    "video without a file name": (form(field("video", "data"), field("title", "t")), "must be a file"),
    "empty file name": (form(field("video", "data", ""), field("title", "t")), "must be one of"),
    "no extension": (form(field("video", "data", "mp4"), field("title", "t")), "must be one of"),
    "wrong extension": (form(field("video", "data", "a.mp4.txt"), field("title", "t")), "must be one of"),
    "only an extension of a path": (form(field("video", "data", "a.mp4/b"), field("title", "t")), "must be one of"),
    "empty file": (form(field("video", "", "a.mp4"), field("title", "t")), "file is empty"),
    "empty title": (form(field("video", "data", "a.mp4"), field("title", "")), "title must be"),
    "blank title": (form(field("video", "data", "a.mp4"), field("title", "  ")), "title must be"),
    "long title": (form(field("video", "data", "a.mp4"), field("title", "x" * 201)), "title must be"),
    "huge title": (form(field("title", "x" * 5_000_000), field("video", "data", "a.mp4")), "more than 200"),
    "unprintable title": (form(field("video", "data", "a.mp4"), field("title", "a\x07b")), "title must be"),
    "NUL in the title": (form(field("video", "data", "a.mp4"), field("title", "a\x00b")), "title must be"),
    "title that is no text": (form(field("video", "data", "a.mp4"), field("title", b"\xff\xfe")), "not valid UTF-8"),
    "two titles": (form(field("title", "a"), field("title", "b"), field("video", "d", "a.mp4")), "given twice"),
    "two videos": (
        form(field("video", "a", "a.mp4"), field("video", "b", "a.mp4"), field("title", "t")),
        "given twice",
    ),
    "unknown field": (form(field("title", "t"), field("other", "x"), field("video", "d", "a.mp4")), "no others"),
    "part without a name": (form(b"--the-boundary\r\nX-Y: z\r\n\r\nabc\r\n"), "no others"),
    "no boundary in the body": (b"hello", "well-formed"),
    "empty body": (b"", "well-formed"),
    "unfinished form": (form(field("title", "t"), field("video", "d" * 100, "a.mp4"), end=b""), "well-formed"),
    "ends in a part head": (b"--the-boundary\r\nContent-Disposition: form-data; na", ""),
    "nested multipart": (
        form(field("video", "--x\r\n\r\nhi\r\n--x--", "a.mp4", "Content-Type: multipart/mixed; boundary=x\r\n")),
        "no others",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_wrong_form_is_refused(service: Service, case: str) -> None:
    body, words = REFUSED[case]
    answer = await service.post(io.BytesIO(body))
    assert answer.status == 400, answer.body
    assert words in answer.body["detail"]
    assert not service.received
    assert not service.sessions


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "video/mp4", "application/octet-stream", "multipart/mixed; boundary=x", "nonsense", "a/b/c"],
)
async def test_another_content_type_is_refused(service: Service, content_type: str) -> None:
    answer = await service.post(good_form(), content_type=content_type)
    assert answer.status == 400
    assert "multipart/form-data" in answer.body["detail"]


@pytest.mark.parametrize("parameter", ["", "; boundary=", f"; boundary={'b' * 71}", '; boundary="ä"'])
async def test_a_bad_boundary_is_refused(service: Service, parameter: str) -> None:
    answer = await service.post(good_form(), content_type=f"multipart/form-data{parameter}")
    assert answer.status == 400, answer.body
    assert not service.received


async def test_no_content_type_is_refused(service: Service) -> None:
    answer = await service.raw(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "headers", ["Content-Encoding: gzip\r\n", "Content-Transfer-Encoding: base64\r\n", "Content-Length: 3\r\n"]
)
async def test_headers_of_a_part_do_not_change_its_bytes(service: Service, headers: str) -> None:
    """RFC 7578 deprecates them, and no browser sends them: the bytes are the file."""
    answer = await service.post(form(field("video", "0123456789", "a.mp4", headers), field("title", "t")))
    assert answer.status == 200, answer.body
    status = await service.get(answer.body["status_url"])
    assert status.body["size_bytes"] == 10


@pytest.mark.parametrize("filename", ["a.mp4", "B.MP4", "c.AvI", "d.mov", "e.mkv", "f.webm", "g.flv", "ü.x.mp4"])
@pytest.mark.parametrize("title_first", [True, False])
async def test_an_upload_is_accepted(service: Service, filename: str, title_first: bool) -> None:
    parts = [field("video", os.urandom(1000), filename), field("title", "Ä title ✓")]
    answer = await service.post(form(*(reversed(parts) if title_first else parts)))
    assert answer.status == 200, answer.body
    assert answer.body["status"] == "processing"
    assert answer.body["title"] == "Ä title ✓"
    assert answer.body["message"]
    assert str(uuid.UUID(answer.body["video_id"])) == answer.body["video_id"]
    assert answer.body["status_url"] == f"/upload/status/{uuid.UUID(answer.body['upload_session_id'])}"
    status = (await service.get(answer.body["status_url"])).body
    assert status["filename"] == filename
    assert status["video_id"] == answer.body["video_id"]
    assert status["title"] == "Ä title ✓"
    assert status["started_at"].endswith("Z")
    assert status["total_chunks"] is None
    assert 10 <= status["progress"] <= 20


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("../../etc/x.mp4", "x.mp4"), ("C:\\\\films\\\\y.mov", "y.mov"), (f"{'n' * 400}.mp4", f"{'n' * 251}.mp4")],
)
async def test_a_file_name_is_only_a_name(service: Service, sent: str, kept: str) -> None:
    answer = await service.post(form(field("video", "data", sent), field("title", "t")))
    status = (await service.get(answer.body["status_url"])).body
    assert status["filename"] == kept


async def test_a_file_that_is_no_video_fails_and_leaves_nothing(service: Service) -> None:
    answer = await service.post(good_form(b"just a text"))
    status = await service.client.wait(answer.body["upload_session_id"], poll_interval_s=0.02)
    assert status.status == "failed"
    assert status.error
    assert status.progress < 20
    assert not service.received
    assert await service.metric("vstack_uploader_uploads_total", outcome="failed") == 1


async def test_a_real_client_without_content_length(service: Service) -> None:
    async def body() -> AsyncIterator[bytes]:
        whole = good_form(os.urandom(700_000))
        for start in range(0, len(whole), 9973):
            yield whole[start : start + 9973]

    answer = await service.post(body())
    assert answer.status == 200, answer.body
    status = (await service.get(answer.body["status_url"])).body
    assert status["size_bytes"] == 700_000


async def test_aiohttps_own_form(service: Service, tmp_path: Path) -> None:
    """The example of the API's documentation."""
    path = tmp_path / "video.mp4"
    path.write_bytes(os.urandom(3_000_000))
    data = aiohttp.FormData()
    with path.open("rb") as file:
        data.add_field("video", file)
        data.add_field("title", "My Video")
        async with service.session.post(f"{service.url}/upload", data=data) as response:
            body = await response.json()
            assert response.status == 200, body
    status = (await service.get(body["status_url"])).body
    assert status["size_bytes"] == 3_000_000


async def test_received_bytes_are_the_sent_bytes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boundaries may fall anywhere into the pieces that arrive."""
    monkeypatch.setattr(receive, "PIECE_BYTES", 64)
    data = b"".join(b"\r\n--the-boundar" + bytes([number]) for number in range(256) if number != ord("y"))
    data += b"\r\n-"
    kept: list[bytes] = []
    finish = spool.Incoming.finish

    async def finish_and_read(incoming: spool.Incoming) -> None:
        await finish(incoming)
        kept.append(incoming._path.read_bytes())

    monkeypatch.setattr(spool.Incoming, "finish", finish_and_read)
    answer = await service.post(good_form(data))
    assert answer.status == 200, answer.body
    assert kept == [data]


async def test_a_declared_size_above_the_limit_is_refused_at_once(tmp_path: Path) -> None:
    async with running_service(settings_for(tmp_path, max_upload_bytes=1000)) as service:
        head = f"{POST}Content-Length: 1000000\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(head.encode())
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.close()
        assert not service.received


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_file_above_the_limit_is_refused_while_it_is_received(tmp_path: Path, chunked: bool) -> None:
    async with running_service(settings_for(tmp_path, max_upload_bytes=100_000)) as service:
        whole = good_form(bytes(100_001))

        async def body() -> AsyncIterator[bytes]:
            yield whole

        answer = await service.post(body() if chunked else whole)
        assert answer.status == 413
        assert "100000" in answer.body["detail"]
        assert not service.received
        assert (await service.post(good_form(bytes(100_000)))).status == 200


async def test_a_full_queue_refuses_before_the_body(tmp_path: Path) -> None:
    async with running_service(settings_for(tmp_path, max_jobs=1, max_queued=1)) as service:
        stuck = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(2)]
        head = (f"{POST}Content-Length: 500000\r\n\r\n").encode()
        for _, writer in stuck:
            writer.write(head + form(field("video", "data", "a.mp4"), end=b""))
        await eventually_active(service, 2)
        answer = await service.post(good_form())
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        expecting = await service.raw(head.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue"))
        assert expecting.startswith(b"HTTP/1.1 503"), expecting
        for _, writer in stuck:
            writer.close()
        await eventually_active(service, 0)
        assert (await service.post(good_form())).status == 200


async def test_expect_is_granted_to_a_good_request(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    body = good_form()
    writer.write(f"{POST}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert await reader.readline() == b"\r\n"
    writer.write(body)
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()


async def test_no_room_on_the_disk_is_507(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "RESERVE_BYTES", 2**60)
    answer = await service.post(good_form())
    assert answer.status == 507
    health = await service.get("/health")
    assert health.status == 503
    assert health.body["status"] == "unhealthy"


async def test_a_disk_that_fills_up_meanwhile_is_507(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    answer = await service.post(good_form(bytes(1_000_000)))
    monkeypatch.undo()
    assert answer.status == 507, answer.body
    assert not service.received


@pytest.mark.parametrize("cut", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_client_that_goes_away_leaves_nothing(service: Service, cut: float, chunked: bool) -> None:
    body = good_form(os.urandom(2_000_000))
    sent = body[: int(len(body) * cut)]
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"{POST}{framing}\r\n\r\n"
    await service.leave(head.encode() + (b"%x\r\n" % len(body) if chunked else b"") + sent)
    await eventually_active(service, 0)
    await eventually(lambda: not service.received)
    assert not service.sessions
    assert await service.metric("vstack_uploader_receiving") == 0


async def test_a_client_that_stops_sending_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "IDLE_TIMEOUT_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(f"{POST}Content-Length: 1000\r\n\r\n".encode() + form(field("title", "t"), end=b""))
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()
    assert not service.received


@pytest.mark.parametrize(
    "path", ["/upload/status/unknown", "/upload/status/00000000-0000-4000-8000-000000000000", "/nothing"]
)
async def test_unknown_things_are_404(service: Service, path: str) -> None:
    answer = await service.get(path)
    assert answer.status == 404
    assert answer.body["detail"]


async def test_a_bad_session_id_is_400(service: Service) -> None:
    assert (await service.get("/upload/status/no%20id")).status == 400


async def test_health(service: Service) -> None:
    answer = await service.get("/health")
    assert answer.status == 200
    assert answer.body == {"status": "healthy", "service": "uploader-service", "active_uploads": 0}


async def eventually_active(service: Service, count: int) -> None:
    async with asyncio.timeout(10):
        while (await service.get("/health")).body["active_uploads"] != count:  # noqa: ASYNC110 - another process' state
            await asyncio.sleep(0.01)
