"""A small cluster in one process, over real HTTP: the real storage service on memory, the real consensus, no database.

Nodes and the metadata service can be told to misbehave.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry

from tests.storage.service.memory import MemoryEngine
from vstack import checksums
from vstack.core.decree import Decree, VideoFacts
from vstack.core.paxos.messages import Instance
from vstack.core.placement import Generation, Node, config_for
from vstack.errors import ConflictError, NotFoundError, UnavailableError, VStackError
from vstack.ids import Identifier
from vstack.metadata.catalogue import pieces
from vstack.metadata.deciding import commit_rules
from vstack.metadata.deciding.consensus import Consensus
from vstack.rpc.http import new_session
from vstack.rpc.storage import StorageClient
from vstack.service import app as service_app
from vstack.service.endpoint import Endpoint
from vstack.service.metrics import new_registry
from vstack.service.runner import serving
from vstack.settings import StorageSettings
from vstack.storage.app import assemble
from vstack.storage.contract import Engine, Identity
from vstack.wire import metadata as wire
from vstack.wire.common import timestamp
from vstack.wire.consensus import receipt_from_text

CLUSTER_KEY = b"a key of the tests, long enough"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def eventually(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - of whatever a test can see
            await asyncio.sleep(0.01)


@dataclass
class FakeNode:
    """A storage node. `mode`: good, dead (connections break), hung (requests are taken and never answered)."""

    node_id: str
    engine: MemoryEngine
    mode: str = "good"
    url: str = ""
    status: wire.NodeStatus = "healthy"
    requests: list[str] = field(default_factory=list)
    revived: asyncio.Event = field(default_factory=asyncio.Event)
    before_put: Callable[[], Awaitable[None]] | None = None
    after_put: Callable[[], Awaitable[None]] | None = None

    def kill(self) -> None:
        self.mode = "dead"

    def hang(self) -> None:
        self.mode = "hung"

    def revive(self) -> None:
        self.mode = "good"
        self.revived.set()

    @property
    def chunk_ids(self) -> set[str]:
        return set(self.engine._data)

    async def gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware: what this node does with a request."""
        self.requests.append(f"{request.method} {request.path}")
        await self._misbehave(request)
        if request.method == "PUT" and self.before_put is not None:
            await self.before_put()
            await self._misbehave(request)
        response = await handler(request)
        if request.method == "PUT" and self.after_put is not None:
            await self.after_put()
            await self._misbehave(request)
        return response

    async def _misbehave(self, request: web.Request) -> None:
        if self.mode == "hung":
            await self.revived.wait()
        if self.mode == "dead":
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError


class FakeMetadata:
    """The metadata service without its database.

    `down`: every call is a 503. `hold_after`: with so many chunks committed, further commits wait for `released`.
    """

    def __init__(self, nodes: dict[str, FakeNode]) -> None:
        self.nodes = nodes
        self.url = ""
        self.down = False
        self.hold_after: int | None = None
        self.released = asyncio.Event()
        self._admitted: set[str] = set()
        self.videos: dict[str, wire.VideoCreate] = {}
        self.statuses: dict[str, str] = {}
        self.decrees: dict[str, Decree] = {}
        self.durable: dict[str, set[str]] = {}
        self.commits: list[tuple[str, wire.CommitRequest]] = []
        self.deleted: list[str] = []
        self.changes: list[wire.StatusChange] = []
        self.refuse_commit: VStackError | None = None
        self.refuse_delete: VStackError | None = None
        self.consensus: Consensus | None = None

    @property
    def generation(self) -> Generation:
        members = (node for node in self.nodes.values() if node.status != "down")
        return Generation(1, tuple(Node(node.node_id, f"host-{node.node_id}", 1.0) for node in members))

    def facts(self, video_id: str) -> VideoFacts:
        return VideoFacts(video_id, self.videos[video_id].title, 1_700_000_000_123, 1)

    async def gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.down and not request.path.startswith("/nodes/"):
            return web.json_response({"detail": "the database is away"}, status=503)
        return await handler(request)

    async def all_nodes(self, _request: web.Request) -> wire.NodeList:
        return wire.NodeList(
            nodes=tuple(
                wire.NodeSummary(
                    node_url=node.url,
                    node_id=node.node_id,
                    last_heartbeat=None,
                    disk_usage_percent=1.0,
                    chunk_count=0,
                    status=node.status,
                    version="1",
                    host=f"host-{node.node_id}",
                )
                for node in self.nodes.values()
            )
        )

    async def create_video(self, _request: web.Request, *, body: wire.VideoCreate) -> wire.VideoCreated:
        assert body.video_id is not None
        if self.statuses.get(body.video_id) == "failed":
            raise ConflictError(f"video {body.video_id} exists already: failed")
        self.videos[body.video_id] = body
        self.statuses.setdefault(body.video_id, "uploading")
        members = tuple(
            wire.GenerationNode(node_id=node.node_id, host=node.host, weight=node.weight)
            for node in self.generation.nodes
        )
        created_at = timestamp(datetime.fromtimestamp(1_700_000_000.123, UTC))
        return wire.VideoCreated(
            video_id=body.video_id,
            upload_url=f"/upload/{body.video_id}",
            generation=wire.GenerationBody(number=1, nodes=members),
            created_at=created_at,
        )

    async def set_status(self, _request: web.Request, *, video_id: Identifier, body: wire.StatusChange) -> wire.Video:
        self._require(video_id)
        self.changes.append(body)
        self.statuses[video_id] = body.status
        return wire.Video(
            video_id=video_id,
            title=self.videos[video_id].title,
            duration_sec=body.duration_sec or 0,
            total_chunks=body.total_chunks or 0,
            status=body.status,
            created_at="",
        )

    async def manifest(self, _request: web.Request, *, video_id: Identifier) -> wire.Manifest:
        self._require(video_id)
        committed = {chunk_id: one for chunk_id, one in self.decrees.items() if one.video_id == video_id}
        return wire.Manifest(
            video_id=video_id,
            title=self.videos[video_id].title,
            duration_sec=0,
            total_chunks=len(committed),
            chunk_duration_sec=10,
            chunk_size_bytes=2_097_152,
            created_at="",
            status="uploading",
            chunks=tuple(
                wire.ManifestChunk(
                    chunk_id=chunk_id,
                    sequence_num=decree.sequence_num,
                    size_bytes=decree.size_bytes,
                    checksum=checksums.text(decree.checksum),
                    redundancy_mode="replication",
                    replicas=tuple(self.nodes[node_id].url for node_id in self.durable[chunk_id]),
                )
                for chunk_id, decree in committed.items()
            ),
        )

    async def delete_video(self, _request: web.Request, *, video_id: Identifier) -> None:
        self._require(video_id)
        if self.refuse_delete is not None:
            raise self.refuse_delete
        del self.videos[video_id], self.statuses[video_id]
        self.deleted.append(video_id)

    async def commit(
        self, _request: web.Request, *, chunk_id: Identifier, body: wire.CommitRequest
    ) -> wire.CommitReply:
        """As the real service commits, with a dictionary for the table."""
        self._require(body.video_id)
        self.commits.append((chunk_id, body))
        if self.refuse_commit is not None:
            raise self.refuse_commit
        if self.hold_after is not None:
            admitted = self.decrees.keys() | self._admitted
            if chunk_id not in admitted and len(admitted) >= self.hold_after:
                await self.released.wait()
            self._admitted.add(chunk_id)
        urls = {node.node_id: node.url for node in self.nodes.values()}
        decree = commit_rules.build_decree(body, self.facts(body.video_id), {url: node for node, url in urls.items()})
        receipts = tuple(receipt_from_text(text) for text in body.receipts)
        known = self.decrees.get(chunk_id)
        if known is not None:
            if known.encode() != decree.encode():
                raise self._conflict(known)
            return self._reply(chunk_id, decree)
        durable = commit_rules.proven(pieces.of(chunk_id, decree), chunk_id, receipts, CLUSTER_KEY)
        if len(durable) < commit_rules.copies_needed(decree.mode, len(decree.placements), len(urls)):
            raise UnavailableError(f"only {len(durable)} copies are durable")
        assert self.consensus is not None
        instance = Instance(chunk_id, 0, config_for(chunk_id, self.generation))
        acceptors = {node_id: urls[node_id] for node_id in instance.config.acceptors}
        chosen = Decree.decode(await self.consensus.decide(instance, decree.encode(), acceptors, receipts))
        self.decrees[chunk_id] = chosen
        self.durable[chunk_id] = {piece.node_id for piece in durable} & set(chosen.node_ids)
        if chosen.encode() != decree.encode():
            raise self._conflict(chosen)
        return self._reply(chunk_id, decree)

    def _require(self, video_id: str) -> None:
        if video_id not in self.videos:
            raise NotFoundError(f"no video {video_id}")

    def _reply(self, chunk_id: str, decree: Decree) -> wire.CommitReply:
        nodes = tuple(self.nodes[node_id].url for node_id in decree.node_ids)
        degraded = len(self.durable[chunk_id]) < len(nodes)
        return wire.CommitReply(success=True, committed_nodes=nodes, message="", degraded=degraded)

    def _conflict(self, decree: Decree) -> ConflictError:
        return ConflictError(
            "committed with another value",
            chosen={
                "committed_nodes": [self.nodes[node_id].url for node_id in decree.node_ids],
                "checksum": checksums.text(decree.checksum),
                "size_bytes": decree.size_bytes,
            },
        )

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("GET", "/nodes/all", self.all_nodes),
            Endpoint("POST", "/video", self.create_video),
            Endpoint("PATCH", "/video/{video_id}/status", self.set_status),
            Endpoint("GET", "/manifest/{video_id}", self.manifest),
            Endpoint("DELETE", "/video/{video_id}", self.delete_video, status=204),
            Endpoint("POST", "/chunk/{chunk_id}/commit", self.commit),
        )


@dataclass
class FakeCluster:
    """What a test sees of the cluster."""

    metadata: FakeMetadata
    nodes: dict[str, FakeNode]
    session: aiohttp.ClientSession

    def copies(self, chunk_id: str) -> set[str]:
        return {node.node_id for node in self.nodes.values() if chunk_id in node.chunk_ids}


@contextlib.asynccontextmanager
async def running_cluster(directory: Path, node_count: int) -> AsyncIterator[FakeCluster]:
    """`node_count` storage nodes and a metadata service, all on ports of their own."""
    key = directory / "cluster.key"
    key.write_bytes(CLUSTER_KEY)
    nodes = {f"node-{number}": _node(f"node-{number}") for number in range(1, node_count + 1)}
    metadata = FakeMetadata(nodes)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(new_session())
        for node in nodes.values():
            app = _storage_app(node, key)
            node.url = await _serve(stack, app)
        metadata.consensus = await stack.enter_async_context(
            Consensus(StorageClient(session), CLUSTER_KEY, 1, CollectorRegistry())
        )
        app = service_app.build("metadata", metadata.endpoints(), registry=new_registry("metadata"))
        app.middlewares.append(_middleware(metadata.gate))
        metadata.url = await _serve(stack, app)
        for node in nodes.values():
            stack.callback(node.revive)
        stack.callback(metadata.released.set)
        yield FakeCluster(metadata, nodes, session)


def _node(node_id: str) -> FakeNode:
    return FakeNode(node_id, MemoryEngine(Identity(node_id, f"disk-{node_id}", 1), buffers=32))


def _storage_app(node: FakeNode, key: Path) -> web.Application:
    @contextlib.asynccontextmanager
    async def opened(_settings: StorageSettings) -> AsyncIterator[Engine]:
        yield node.engine

    settings = StorageSettings(
        data_dir="unused", cluster_key_file=str(key), metadata_urls=("http://127.0.0.1:9",), node_id=node.node_id
    )
    app = assemble(settings, opened)
    app.middlewares.append(_middleware(node.gate))
    return app


def _middleware(gate: Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await gate(request, handler)

    return middleware


async def _serve(stack: contextlib.AsyncExitStack, app: web.Application) -> str:
    runner = await stack.enter_async_context(serving(app, "127.0.0.1", 0))
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"
