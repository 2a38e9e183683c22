"""Registration and heartbeats against a metadata service that forgets, refuses and goes away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.storage.service.conftest import eventually, on_memory, running, settings_for
from tests.storage.service.memory import MemoryEngine
from vstack import __version__
from vstack.errors import ConflictError, SettingsError, VStackError
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.service.runner import ENDED, serving
from vstack.storage.contract import DiskState, Identity
from vstack.storage.membership import Membership


class FakeMetadata:
    """Answers as the metadata service does; `status` makes it fail."""

    def __init__(self) -> None:
        self.known = False
        self.status = 200
        self.registrations: list[dict[str, Any]] = []
        self.beats: list[dict[str, Any]] = []
        self.port = 0

    async def register(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.json_response({"detail": "refused"}, status=self.status)
        self.known = True
        body = await request.json()
        self.registrations.append(body)
        return web.json_response({"status": "registered", "node_id": body["node_id"], "node_url": body["node_url"]})

    async def heartbeat(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.json_response({"detail": "refused"}, status=self.status)
        if not self.known:
            return web.json_response({"detail": "unknown node"}, status=404)
        self.beats.append({"node_id": request.match_info["node_id"], **await request.json()})
        return web.json_response({"status": "ok", "message": "noted"})

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/nodes/register", self.register)
        app.router.add_post("/nodes/{node_id}/heartbeat", self.heartbeat)
        async with serving(app, "127.0.0.1", self.port) as runner:
            self.port = runner.addresses[0][1]
            yield

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Member:
    engine: MemoryEngine
    fenced: list[VStackError]
    task: asyncio.Task[None]


@contextlib.asynccontextmanager
async def member(*urls: str) -> AsyncIterator[Member]:
    engine, fenced = MemoryEngine(Identity("node-a", "disk-1", 5)), list[VStackError]()
    async with new_session() as session:
        membership = Membership(
            MetadataClient(session, urls),
            engine,
            public_url="http://10.0.0.1:8081",
            host_id="host-1",
            zone="z",
            on_fenced=fenced.append,
            interval_s=0.01,
        )
        task = asyncio.create_task(membership.run())
        yield Member(engine, fenced, task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_registers_then_beats() -> None:
    metadata = FakeMetadata()
    async with metadata.serve(), member(metadata.url) as node:
        await eventually(lambda: len(metadata.beats) >= 3)
        assert metadata.registrations == [
            {
                "node_url": "http://10.0.0.1:8081",
                "node_id": "node-a",
                "version": __version__,
                "host": "host-1",
                "zone": "z",
                "capacity_bytes": 1_000_000,
                "disk_uuid": "disk-1",
                "incarnation": 5,
            }
        ]
        assert metadata.beats[0] == {
            "node_id": "node-a",
            "disk_usage_percent": 10.0,
            "chunk_count": 0,
            "disk_status": "healthy",
            "capacity_bytes": 1_000_000,
            "incarnation": 5,
        }
        node.engine.state = DiskState.READ_ONLY
        await eventually(lambda: metadata.beats[-1]["disk_status"] == "read_only")
        assert len(metadata.registrations) == 1


async def test_registers_again_when_the_database_was_lost() -> None:
    metadata = FakeMetadata()
    async with metadata.serve(), member(metadata.url):
        await eventually(lambda: len(metadata.beats) >= 1)
        metadata.known = False
        await eventually(lambda: len(metadata.registrations) == 2)
        beats = len(metadata.beats)
        await eventually(lambda: len(metadata.beats) > beats)


@pytest.mark.parametrize("registered", [False, True])
async def test_a_conflict_ends_the_node(registered: bool) -> None:
    metadata = FakeMetadata()
    async with metadata.serve():
        if not registered:
            metadata.status = 409
        async with member(metadata.url) as node:
            if registered:
                await eventually(lambda: len(metadata.beats) >= 1)
                metadata.status = 409
            await eventually(node.task.done)
            assert [type(error) for error in node.fenced] == [ConflictError]
            assert "refused" in str(node.fenced[0])


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_other_failures_are_waited_out(status: int) -> None:
    metadata = FakeMetadata()
    async with metadata.serve(), member(metadata.url) as node:
        await eventually(lambda: len(metadata.beats) >= 1)
        metadata.status = status
        beats = len(metadata.beats)
        await asyncio.sleep(0.05)
        metadata.status = 200
        await eventually(lambda: len(metadata.beats) > beats + 1)
        assert not node.task.done()


async def test_fails_over_between_several_urls() -> None:
    metadata = FakeMetadata()
    async with metadata.serve(), member("http://127.0.0.1:9", metadata.url):
        await eventually(lambda: len(metadata.beats) >= 2)


async def test_the_node_serves_while_metadata_is_away_and_joins_later(tmp_path: Path) -> None:
    metadata = FakeMetadata()
    async with metadata.serve():
        pass
    app = on_memory(settings_for(tmp_path, metadata_urls=(metadata.url,)))
    async with running(app, tmp_path) as node:
        assert await node.put("c-1", b"data") == 201
        assert await node.get("c-1") == b"data"
        async with metadata.serve():
            await eventually(lambda: len(metadata.beats) >= 1, timeout_s=30)
            assert metadata.registrations[0]["node_url"] == "http://127.0.0.1:8081"


async def test_a_fenced_node_ends_its_process(tmp_path: Path) -> None:
    metadata = FakeMetadata()
    metadata.status = 409
    async with metadata.serve():
        app = on_memory(settings_for(tmp_path, metadata_urls=(metadata.url,)))
        ended = app[ENDED] = asyncio.get_running_loop().create_future()
        async with running(app, tmp_path):
            with pytest.raises(ConflictError, match="refused"):
                await asyncio.wait_for(ended, 10)


@pytest.mark.parametrize(
    "changes", [{"host": "0.0.0.0"}, {"public_url": "ftp://x"}, {"public_url": "http://x/path"}, {"host": "a b"}]
)
def test_a_node_that_nobody_could_reach_is_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="public_url"):
        on_memory(settings_for(tmp_path, **changes))
