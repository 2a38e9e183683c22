"""A storage node on a real socket under uvloop, over the engine in memory and over the one on a disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from tests.storage.service.memory import MemoryEngine
from vstack.core.decree import Decree, Mode, Placement
from vstack.service.runner import serving
from vstack.settings import StorageSettings
from vstack.storage.app import assemble, make_app
from vstack.storage.contract import Engine, Identity
from vstack.storage.node import NODE
from vstack.units import MIB
from vstack.wire.consensus import ConfigBody, Proposal

CLUSTER_KEY = b"a key of the tests, long enough"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class RunningNode:
    """A node and a session to speak with it."""

    app: web.Application
    port: int
    session: aiohttp.ClientSession
    data_dir: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> Engine:
        return self.app[NODE].engine

    @property
    def node_id(self) -> str:
        return self.engine.identity.node_id

    @property
    def memory(self) -> MemoryEngine:
        assert isinstance(self.engine, MemoryEngine)
        return self.engine

    def request(self, method: str, path: str, **options: Any) -> Any:
        return self.session.request(method, self.url + path, **options)

    async def put(self, chunk_id: str, data: bytes, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.request("PUT", f"/chunk/{chunk_id}", data=data, headers=named) as answer:
            return int(answer.status)

    async def get(self, chunk_id: str) -> bytes:
        async with self.request("GET", f"/chunk/{chunk_id}") as answer:
            assert answer.status == 200
            return bytes(await answer.read())

    async def json(self, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
        async with self.request(method, path, **options) as answer:
            body = await answer.json()
            assert answer.status == status, body
            return body

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name with these labels."""
        async with self.request("GET", "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        samples = [
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name and all(label in line for label in wanted)
        ]
        return sum(samples)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own, then read all that comes until the node closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def config(self, *others: str, generation: int = 7) -> ConfigBody:
        return ConfigBody(generation=generation, acceptors=(self.node_id, *others))

    def decree(self, data: bytes, digest: str, **changes: Any) -> Decree:
        fields: dict[str, Any] = {
            "mode": Mode.REPLICATION,
            "video_id": "v",
            "sequence_num": 0,
            "checksum": digest,
            "size_bytes": len(data),
            "placements": (Placement(self.node_id, digest), Placement("other", digest)),
            "next_generation": 7,
        }
        return Decree(**{**fields, **changes})

    def proposal(self, decree: Decree, *, epoch: int = 0, config: ConfigBody | None = None) -> Proposal:
        return Proposal(epoch=epoch, config=config or self.config("b", "c"), value=decree.encode().decode())


Start = Callable[..., contextlib.AbstractAsyncContextManager[RunningNode]]


def settings_for(directory: Path, **changes: Any) -> StorageSettings:
    key = directory / "cluster.key"
    key.write_bytes(CLUSTER_KEY)
    data_dir = directory / "data"
    fields: dict[str, Any] = {
        "data_dir": str(data_dir),
        "cluster_key_file": str(key),
        "metadata_urls": ("http://127.0.0.1:9",),
        "superblock_bytes": 8 * MIB,
        "capacity_bytes": 128 * MIB,
        "node_id": "node-a",
    }
    return StorageSettings(**{**fields, **changes})


@contextlib.asynccontextmanager
async def running(app: web.Application, data_dir: Path) -> AsyncIterator[RunningNode]:
    async with serving(app, "127.0.0.1", 0) as runner, aiohttp.ClientSession() as session:
        yield RunningNode(app, runner.addresses[0][1], session, data_dir)


def on_memory(settings: StorageSettings, *, buffers: int = 4) -> web.Application:
    @contextlib.asynccontextmanager
    async def opened(_settings: StorageSettings) -> AsyncIterator[Engine]:
        engine = MemoryEngine(Identity(settings.node_id or "node-a", "disk-1", 1), buffers=buffers)
        yield engine
        await engine.close()

    return assemble(settings, opened)


@pytest.fixture
async def memory_node(tmp_path: Path) -> AsyncIterator[RunningNode]:
    async with running(on_memory(settings_for(tmp_path)), tmp_path) as node:
        yield node


@pytest.fixture
async def disk_node(tmp_path: Path) -> AsyncIterator[RunningNode]:
    settings = settings_for(tmp_path)
    async with running(await make_app(settings), Path(settings.data_dir)) as node:
        yield node


@pytest.fixture(params=["memory", "disk"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningNode]:
    settings = settings_for(tmp_path)
    app = on_memory(settings) if request.param == "memory" else await make_app(settings)
    async with running(app, Path(settings.data_dir)) as started:
        yield started


async def eventually(condition: Callable[[], bool | Awaitable[bool]], *, timeout_s: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            result = condition()
            if isinstance(result, bool):
                holds = result
            else:
                holds = await result
            if holds:
                return
            await asyncio.sleep(0.005)
