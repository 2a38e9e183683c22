#!/usr/bin/env python3
"""What consensus costs per committed chunk, counted on the wire beyond the data PUTs and their answers.

Real storage nodes (each with its engine on a disk, on a socket of loopback), the package's own storage client and the
metadata service's own consensus driver. Counted are requests and replies as the HTTP client sees them, round trips (a
burst of requests after which somebody waits) beyond the one that stores the data, and calls of fdatasync beyond those
that the same PUTs need without a proposal. Commits run one after another, so that no flush is shared between them.

Classic Paxos is what the driver runs where no fast quorum can be had, and always for an ABORT: the latter is measured,
because it asks all acceptors whatever is up. Ends with status 1 where a count differs from the published table.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import aiohttp
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry

from vstack import checksums, ids
from vstack.core import erasure
from vstack.core.decree import Decree, Mode, Placement
from vstack.core.paxos.messages import Instance
from vstack.core.paxos.receipts import Receipt
from vstack.core.placement import Generation, Node, choose, config_for
from vstack.metadata.deciding.consensus import Consensus
from vstack.rpc.storage import StorageClient
from vstack.service import logs
from vstack.service.runner import serving
from vstack.settings import StorageSettings
from vstack.storage.app import make_app
from vstack.storage.node import NODE
from vstack.units import KIB, MIB
from vstack.wire.consensus import AcceptRequest, ConfigBody, Proposal, receipt_from_text

CLUSTER_KEY: Final = b"the key of a benchmark"
CHUNK_BYTES: Final = 16 * KIB
SUPERBLOCK_BYTES: Final = 16 * MIB
MAX_COMMITS: Final = 200
"""So that one superblock holds them all: opening another one would flush, too."""
COUNT_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one commit, beyond its data."""

    round_trips: float
    messages: float
    durable_writes: float


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to commit: how many acceptors and pieces, and whether the fast round rides on the PUTs."""

    name: str
    acceptors: int
    mode: Mode
    rides: bool
    published: Cost


SCHEMES: Final = (
    Scheme("classic Paxos, 3 acceptors", 3, Mode.REPLICATION, rides=False, published=Cost(2, 12, 6)),
    Scheme("classic Paxos, 5 acceptors", 5, Mode.REPLICATION, rides=False, published=Cost(2, 20, 10)),
    Scheme("ChunkPaxos, 3 acceptors = 3 replicas", 3, Mode.REPLICATION, rides=True, published=Cost(0, 0, 0)),
    Scheme("ChunkPaxos, 5 acceptors = 5 fragments", 5, Mode.ERASURE_CODING, rides=True, published=Cost(0, 0, 0)),
    Scheme("ChunkPaxos, 5 acceptors, 3 replicas", 5, Mode.REPLICATION, rides=True, published=Cost(0, 4, 2)),
)


@dataclass
class Wire:
    """Counts what an HTTP session sends and gets: requests, replies, and bursts of requests."""

    requests: int = 0
    replies: int = 0
    bursts: int = 0
    _waiting: bool = False

    @property
    def messages(self) -> int:
        return self.requests + self.replies

    def trace(self) -> aiohttp.TraceConfig:
        config = aiohttp.TraceConfig()
        config.on_request_start.append(self._sent)
        config.on_request_end.append(self._answered)
        return config

    async def _sent(self, _session: aiohttp.ClientSession, _context: SimpleNamespace, _params: object) -> None:
        self.requests += 1
        self.bursts += not self._waiting
        self._waiting = True

    async def _answered(self, _session: aiohttp.ClientSession, _context: SimpleNamespace, _params: object) -> None:
        self.replies += 1
        self._waiting = False

    async def settled(self) -> None:
        """Wait for the answers that nobody waits for: those that came after a quorum."""
        async with asyncio.timeout(COUNT_TIMEOUT_S):
            while self.replies < self.requests:  # noqa: ASYNC110 - the product has no event for it
                await asyncio.sleep(0.001)


@dataclass
class Cluster:
    """Storage nodes in this process, and the two clients that commit through them."""

    apps: dict[str, web.Application]
    urls: dict[str, str]
    storage: StorageClient
    consensus: Consensus
    wire: Wire
    video_id: str = field(default_factory=ids.new_video_id)
    chunks: int = 0

    @property
    def flushes(self) -> int:
        return sum(app[NODE].engine.counters().flushes for app in self.apps.values())

    def next_chunk(self) -> tuple[str, int]:
        self.chunks += 1
        return ids.chunk_id(self.video_id, self.chunks), self.chunks


@contextlib.asynccontextmanager
async def cluster(directory: Path, nodes: int) -> AsyncIterator[Cluster]:
    """`nodes` storage nodes that keep their data below `directory`."""
    key = directory / "cluster.key"
    key.write_bytes(CLUSTER_KEY)
    wire = Wire()
    async with contextlib.AsyncExitStack() as stack:
        apps, urls = {}, {}
        for number in range(nodes):
            settings = StorageSettings(
                data_dir=str(directory / f"node-{number}"),
                cluster_key_file=str(key),
                metadata_urls=("http://127.0.0.1:1",),  # nobody is there: these nodes need no metadata service
                node_id=f"node-{number}",
                superblock_bytes=SUPERBLOCK_BYTES,
            )
            app = await make_app(settings)
            runner = await stack.enter_async_context(serving(app, "127.0.0.1", 0))
            apps[f"node-{number}"] = app
            urls[f"node-{number}"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        session = await stack.enter_async_context(aiohttp.ClientSession(trace_configs=[wire.trace()]))
        storage = StorageClient(session)
        consensus = await stack.enter_async_context(Consensus(storage, CLUSTER_KEY, 1, CollectorRegistry()))
        yield Cluster(apps, urls, storage, consensus, wire)


async def measure(directory: Path, scheme: Scheme, commits: int) -> Cost:
    """The mean cost of a commit."""
    async with cluster(directory, scheme.acceptors) as running:
        await _store(running, scheme, proposes=False)
        idle = running.flushes
        for _ in range(commits):
            await _store(running, scheme, proposes=False)
        data_flushes = running.flushes - idle
        await _commit(running, scheme)  # connections are open from here on
        messages, bursts, flushes = running.wire.messages, running.wire.bursts, running.flushes
        for _ in range(commits):
            await _commit(running, scheme)
        return Cost(
            round_trips=(running.wire.bursts - bursts) / commits - 1,
            messages=(running.wire.messages - messages) / commits - 2 * _pieces(scheme),
            durable_writes=(running.flushes - flushes - data_flushes) / commits,
        )


async def _commit(running: Cluster, scheme: Scheme) -> None:
    """Store one chunk and have its placement chosen."""
    instance, number, value, receipts = await _store(running, scheme, proposes=scheme.rides)
    if scheme.rides:
        chosen = await running.consensus.decide(instance, value, running.urls, receipts)
        assert chosen == value
    else:
        await running.consensus.abort(instance, running.urls, video_id=running.video_id, sequence_num=number)
    await running.wire.settled()


async def _store(running: Cluster, scheme: Scheme, *, proposes: bool) -> tuple[Instance, int, bytes, Sequence[Receipt]]:
    """PUT the pieces of a new chunk, with the proposal or without; (instance, number, value, receipts)."""
    chunk_id, number = running.next_chunk()
    data = number.to_bytes(8, "big") * (CHUNK_BYTES // 8)
    generation = Generation(1, tuple(Node(node_id, node_id) for node_id in running.urls))
    nodes = [node.node_id for node in choose(chunk_id, generation.nodes, _pieces(scheme))]
    bodies: Sequence[bytes] = erasure.encode(data) if scheme.mode is Mode.ERASURE_CODING else [data] * len(nodes)
    indexes = range(len(nodes)) if scheme.mode is Mode.ERASURE_CODING else [-1] * len(nodes)
    decree = Decree(
        mode=scheme.mode,
        video_id=running.video_id,
        sequence_num=number,
        checksum=checksums.of(data),
        size_bytes=len(data),
        placements=tuple(
            Placement(node_id, checksums.of(body), index)
            for node_id, body, index in zip(nodes, bodies, indexes, strict=True)
        ),
        next_generation=1,
    )
    instance = Instance(chunk_id, 0, config_for(chunk_id, generation))
    config, value = ConfigBody.of(instance.config), decree.encode()
    proposal = Proposal(epoch=0, config=config, value=value.decode()) if proposes else None

    async def put(node_id: str, body: bytes, index: int) -> str | None:
        object_id = chunk_id if index < 0 else ids.fragment_id(chunk_id, index)
        stored = await running.storage.put_chunk(
            running.urls[node_id], object_id, body, checksum=checksums.of(body), proposal=proposal
        )
        return stored.receipt

    async def vote(node_id: str) -> str | None:
        request = AcceptRequest(epoch=0, config=config, ballot=0, value=value.decode())
        return (await running.storage.accept(running.urls[node_id], chunk_id, request)).receipt

    puts = [put(node_id, body, index) for node_id, body, index in zip(nodes, bodies, indexes, strict=True)]
    votes = [vote(node_id) for node_id in instance.config.acceptors if proposes and node_id not in nodes]
    texts = await asyncio.gather(*puts, *votes)
    return instance, number, value, [receipt_from_text(text) for text in texts if text is not None]


def _pieces(scheme: Scheme) -> int:
    return 5 if scheme.mode is Mode.ERASURE_CODING else 3


async def measure_all(directory: Path, commits: int) -> list[Cost]:
    """The cost of every scheme, in the order of SCHEMES."""
    costs = []
    for number, scheme in enumerate(SCHEMES):
        place = directory / str(number)
        place.mkdir()
        costs.append(await measure(place, scheme, commits))
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=50, help="commits per scheme (default 50)")

    parser.add_argument(
        "--dir", type=Path, help="where the nodes keep their data, on a disk (default: a new directory)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if not 1 <= options.commits <= MAX_COMMITS:
        parser.error(f"--commits is 1 to {MAX_COMMITS}")
    logs.configure("bench", "error")
    with tempfile.TemporaryDirectory(prefix="vstack-bench-", dir=options.dir) as directory:
        costs = uvloop.run(measure_all(Path(directory), options.commits))
    if options.json:
        rows = [{"scheme": scheme.name, **asdict(cost)} for scheme, cost in zip(SCHEMES, costs, strict=True)]
        print(json.dumps(rows, indent=2))
    else:
        print(
            f"{'per committed chunk, beyond the data':40} {'round trips':>12} {'messages':>10} {'durable writes':>15}"
        )
        for scheme, cost in zip(SCHEMES, costs, strict=True):
            print(f"{scheme.name:40} {cost.round_trips:12.2f} {cost.messages:10.2f} {cost.durable_writes:15.2f}")
    return 0 if costs == [scheme.published for scheme in SCHEMES] else 1


if __name__ == "__main__":
    sys.exit(main())
