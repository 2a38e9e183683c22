"""Metadata instances on a real database beside real storage nodes, which keep their data in memory."""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

from tests.storage.service.memory import MemoryEngine
from vstack.core.decree import Decree, VideoFacts
from vstack.core.placement import Generation, Node, config_for
from vstack.metadata.app import make_app
from vstack.metadata.postgres.database import Database
from vstack.metadata.state import METADATA
from vstack.rpc.http import new_session
from vstack.rpc.storage import StorageClient
from vstack.service.runner import serving
from vstack.settings import MetadataSettings, StorageSettings
from vstack.storage.app import assemble
from vstack.storage.contract import Engine, Identity
from vstack.wire.consensus import ConfigBody, Proposal

KEY = b"a key of the tests, long enough"
Json = Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 30) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


@dataclass
class StorageNode:
    """A storage node that can stop and come back with what it had."""

    node_id: str
    port: int
    engine: MemoryEngine
    settings: StorageSettings
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        @contextlib.asynccontextmanager
        async def opened(_settings: StorageSettings) -> AsyncIterator[Engine]:
            yield self.engine

        await self._stack.enter_async_context(serving(assemble(self.settings, opened), "127.0.0.1", self.port))

    async def stop(self) -> None:
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()

    async def objects(self) -> set[str]:
        return {info.chunk_id for info in (await self.engine.chunks(None, 100_000))[0]}


@dataclass
class Answer:
    """An HTTP answer with its JSON."""

    status: int
    body: Json
    headers: dict[str, str]


class Api:
    """Speaks HTTP with one metadata instance."""

    def __init__(self, session: aiohttp.ClientSession, app: web.Application) -> None:
        self._session = session
        self._stack = contextlib.AsyncExitStack()
        self.app = app
        self.url = ""

    async def start(self) -> None:
        runner = await self._stack.enter_async_context(serving(self.app, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._stack.aclose()

    @property
    def db(self) -> Database:
        return self.app[METADATA].db

    async def call(self, method: str, path: str, body: Json = None, **options: Any) -> Answer:
        if body is not None:
            options["json"] = body
        async with self._session.request(method, self.url + path, **options) as response:
            data = (
                await response.json() if "json" in response.headers.get("Content-Type", "") else await response.text()
            )
            return Answer(response.status, data, dict(response.headers))

    async def ok(self, method: str, path: str, body: Json = None, **options: Any) -> Json:
        answer = await self.call(method, path, body, **options)
        assert answer.status == 200, (method, path, answer.body)
        return answer.body


class Cluster:
    """Several metadata instances on one database, and storage nodes that register with the first one."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.directory = directory
        self.database_url = database_url
        self.key_file = directory / "cluster.key"
        self.key_file.write_bytes(KEY)
        self.apis: list[Api] = []
        self.nodes: list[StorageNode] = []
        self.session: aiohttp.ClientSession
        self.storage: StorageClient
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.session = await self._stack.enter_async_context(new_session())
        self.storage = StorageClient(self.session)
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            await node.stop()
        for api in self.apis:
            await api.stop()
        await self._stack.aclose()

    @property
    def api(self) -> Api:
        return self.apis[0]

    async def add_metadata(self, *, database_url: str | None = None, **changes: Any) -> Api:
        settings = MetadataSettings(
            database_url=database_url or self.database_url,
            cluster_key_file=str(self.key_file),
            database_pool_size=6,
            proposer_id=len(self.apis) + 1,
            **changes,
        )
        api = Api(self.session, await make_app(settings))
        await api.start()
        self.apis.append(api)
        return api

    async def add_nodes(self, count: int) -> list[StorageNode]:
        """Start nodes, each on a host of its own, and wait until they are healthy."""
        started = []
        for _ in range(count):
            number = len(self.nodes)
            port = free_port()
            node = StorageNode(
                node_id=f"node-{number}",
                port=port,
                engine=MemoryEngine(Identity(f"node-{number}", f"disk-{number}", 1)),
                settings=StorageSettings(
                    data_dir=str(self.directory / f"node-{number}"),
                    cluster_key_file=str(self.key_file),
                    metadata_urls=tuple(api.url for api in self.apis),
                    port=port,
                    node_id=f"node-{number}",
                    host_id=f"host-{number}",
                ),
            )
            await node.start()
            self.nodes.append(node)
            started.append(node)

        async def all_healthy() -> bool:
            return len(await self.api.ok("GET", "/nodes/healthy")) >= len(self.nodes)

        await eventually(all_healthy)
        return started

    async def video(self, title: str = "A video", **extra: Json) -> "Video":
        created = await self.api.ok("POST", "/video", {"title": title, **extra})
        nodes = tuple(Node(**node) for node in created["generation"]["nodes"])
        facts = VideoFacts(
            video_id=created["video_id"],
            title=title,
            created_at_ms=_milliseconds(created["created_at"]),
            generation=created["generation"]["number"],
        )
        return Video(self, facts, Generation(facts.generation, nodes))

    async def metric(self, name: str) -> float:
        """The sum of one of the first instance's own metrics over all labels."""
        text = (await self.api.call("GET", "/metrics")).body
        samples = [line for line in text.splitlines() if line.startswith(f"vstack_metadata_{name}")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in samples)

    async def sql(self, statement: str, *params: object) -> list[tuple[Any, ...]]:
        """Run a statement on the database, past the service."""
        async with self.api.db.connection() as connection:
            cursor = await connection.execute(statement.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []


@dataclass
class Video:
    """A video under upload, as an uploader sees it."""

    cluster: Cluster
    facts: VideoFacts
    generation: Generation

    @property
    def video_id(self) -> str:
        return self.facts.video_id

    def chunk_id(self, number: int) -> str:
        return f"{self.video_id}-chunk-{number:03d}"

    def body(self, nodes: Sequence[StorageNode], data: bytes, number: int = 0, **extra: Json) -> dict[str, Json]:
        """A commit request."""
        return {
            "node_urls": [node.url for node in nodes],
            "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "size_bytes": len(data),
            "video_id": self.video_id,
            "sequence_num": number,
            "duration_ms": 1000,
            **extra,
        }

    def decree(self, nodes: Sequence[StorageNode], data: bytes, number: int = 0, **extra: Json) -> Decree:
        """What that request asks for."""
        fields = {"duration_ms": 1000, "segment": 0, "init_size_bytes": 0, "last": False, **extra}
        return Decree.for_copies(
            [node.node_id for node in nodes],
            video=self.facts,
            sequence_num=number,
            checksum=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            **fields,
        )

    async def put(self, nodes: Sequence[StorageNode], data: bytes, number: int = 0) -> None:
        """Plain PUTs, without a proposal."""
        for node in nodes:
            await self.cluster.storage.put_chunk(
                node.url, self.chunk_id(number), data, checksum=hashlib.sha256(data).hexdigest()
            )

    async def propose(self, nodes: Sequence[StorageNode], data: bytes, number: int = 0, **extra: Json) -> list[str]:
        """PUTs that carry the proposal; the receipts."""
        config = config_for(self.chunk_id(number), self.generation)
        proposal = Proposal(
            epoch=0,
            config=ConfigBody.of(config),
            value=self.decree(nodes, data, number, **extra).encode().decode(),
        )
        receipts = []
        for node in nodes:
            stored = await self.cluster.storage.put_chunk(
                node.url, self.chunk_id(number), data, checksum=hashlib.sha256(data).hexdigest(), proposal=proposal
            )
            if stored.receipt is not None:
                receipts.append(stored.receipt)
        return receipts

    async def commit(
        self, nodes: Sequence[StorageNode], data: bytes, number: int = 0, *, api: Api | None = None, **extra: Json
    ) -> Answer:
        return await (api or self.cluster.api).call(
            "POST", f"/chunk/{self.chunk_id(number)}/commit", self.body(nodes, data, number, **extra)
        )

    async def store(self, nodes: Sequence[StorageNode], data: bytes, number: int = 0, **extra: Json) -> Json:
        """Plain PUTs and a commit that must succeed."""
        await self.put(nodes, data, number)
        answer = await self.commit(nodes, data, number, **extra)
        assert answer.status == 200, answer.body
        return answer.body

    async def complete(self, nodes: Sequence[StorageNode], chunks: int = 3) -> list[bytes]:
        """Store and activate a whole video; its chunks."""
        data = [f"{self.video_id} {number}".encode() * 10 for number in range(chunks)]
        for number, piece in enumerate(data):
            await self.store(nodes, piece, number, last=number == chunks - 1)
        await self.cluster.api.ok("PATCH", f"/video/{self.video_id}/status", {"status": "active"})
        return data


def _milliseconds(text: str) -> int:
    from datetime import datetime  # noqa: PLC0415

    return round(datetime.fromisoformat(text).timestamp() * 1000)
