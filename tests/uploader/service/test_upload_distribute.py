"""Chunks and their consensus while nodes die, hang and come back. Storage nodes and consensus are the real ones."""

import asyncio
from collections.abc import AsyncIterator
from itertools import combinations

import pytest
from prometheus_client import CollectorRegistry

from tests.uploader.service.cluster import FakeCluster, eventually, running_cluster
from vstack import ids
from vstack.core.fmp4.chunk import PackedChunk
from vstack.core.placement import choose
from vstack.errors import ConflictError, UnavailableError, VStackError
from vstack.rpc.metadata import MetadataClient
from vstack.rpc.storage import StorageClient
from vstack.uploader import chunkwrite
from vstack.uploader.chunkwrite import Cluster, Target
from vstack.uploader.distribute import Distributor
from vstack.uploader.metrics import Metrics
from vstack.uploader.nodes import NodeDirectory
from vstack.wire.metadata import VideoCreate

TITLE = 'A title with "quotes" and ünïcode'


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules on a shorter clock."""
    monkeypatch.setattr(chunkwrite, "SLOW_PUT_S", 0.4)
    monkeypatch.setattr(chunkwrite, "GRACE_S", 0.2)
    monkeypatch.setattr(chunkwrite, "PUT_DEADLINE_S", 1.5)


class Upload:
    """One video being distributed to a cluster."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.fake = cluster
        metadata = MetadataClient(cluster.session, [cluster.metadata.url])
        self.registry = CollectorRegistry()
        self.cluster = Cluster(
            metadata, StorageClient(cluster.session), NodeDirectory(metadata), Metrics(self.registry)
        )
        self.video_id = ids.new_video_id()
        self.committed: list[int] = []

    async def start(self) -> None:
        await self.cluster.nodes.refresh()
        created = await self.cluster.metadata.create_video(VideoCreate(title=TITLE, video_id=self.video_id))
        self.target = Target.of(created, TITLE)

    async def write(self, count: int, size_bytes: int = 50_000, *, first: int = 0) -> int:
        async with Distributor(self.target, self.cluster, self._note) as distributor:
            return await distributor.write_all(chunks(count, size_bytes, first=first))

    async def _note(self, chunk: PackedChunk) -> None:
        self.committed.append(chunk.number)

    def chunk_id(self, number: int = 0) -> str:
        return ids.chunk_id(self.video_id, number)

    def intended(self, number: int = 0) -> list[str]:
        return [node.node_id for node in choose(self.chunk_id(number), self.target.generation.nodes, 3)]

    def others(self, number: int = 0) -> list[str]:
        return [node_id for node_id in self.fake.nodes if node_id not in self.intended(number)]

    def chosen(self, number: int = 0) -> set[str]:
        return set(self.fake.metadata.decrees[self.chunk_id(number)].node_ids)

    def check_durable(self, number: int = 0, *, at_least: int = 2) -> None:
        """What was chosen is where the bytes are."""
        held = self.fake.copies(self.chunk_id(number)) & self.chosen(number)
        assert len(held) >= at_least, (held, self.chosen(number))

    def sample(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


async def chunks(count: int, size_bytes: int, *, first: int = 0) -> AsyncIterator[PackedChunk]:
    for number in range(first, first + count):
        yield PackedChunk(
            number,
            bytes([number % 256]) * size_bytes,
            duration_ms=5000,
            segment=number,
            init_size_bytes=0 if number else 700,
            last=number == first + count - 1,
        )


@pytest.fixture
async def upload(five_nodes: FakeCluster) -> Upload:
    started = Upload(five_nodes)
    await started.start()
    return started


async def test_three_copies_and_a_fast_decision(upload: Upload) -> None:
    assert await upload.write(5) == 5
    for number in range(5):
        assert upload.fake.copies(upload.chunk_id(number)) == set(upload.intended(number)) == upload.chosen(number)
    assert sorted(upload.committed) == [0, 1, 2, 3, 4]
    assert upload.sample("vstack_uploader_chunk_commits_total", outcome="full") == 5
    asked = [line for node in upload.fake.nodes.values() for line in node.requests]
    assert sum(line.endswith("/accept") for line in asked) == 2 * 5
    assert not any(line.endswith("/prepare") for line in asked)


async def test_three_nodes_decide_without_a_message(three_nodes: FakeCluster) -> None:
    upload = Upload(three_nodes)
    await upload.start()
    await upload.write(3)
    asked = [line for node in three_nodes.nodes.values() for line in node.requests]
    assert len(asked) == 9
    assert all(line.startswith("PUT ") for line in asked)


async def test_the_decree_is_the_one_that_the_metadata_service_makes(upload: Upload) -> None:
    """Receipts of another value would not count: then the decision would need rounds."""
    await upload.write(1)
    ((_, request),) = upload.fake.metadata.commits
    assert len(request.receipts) == 5
    assert request.last
    assert request.init_size_bytes == 700


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_dead_replica_leaves_the_intended_placement(upload: Upload, place: int) -> None:
    dead = upload.intended()[place]
    upload.fake.nodes[dead].kill()
    await upload.write(1)
    assert upload.chosen() == set(upload.intended())
    assert upload.fake.copies(upload.chunk_id()) == set(upload.intended()) - {dead}
    assert upload.sample("vstack_uploader_chunk_commits_total", outcome="degraded") == 1


async def test_a_node_that_failed_is_avoided_afterwards(upload: Upload) -> None:
    dead = upload.intended()[0]
    upload.fake.nodes[dead].kill()
    await upload.write(1)
    await upload.write(8, first=1)
    for number in range(1, 9):
        assert dead not in upload.chosen(number)
        upload.check_durable(number, at_least=3)


@pytest.mark.parametrize("fault", ["kill", pytest.param("hang", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pair", list(combinations(range(5), 2)))
async def test_any_two_of_five_may_fail_before(
    upload: Upload, pair: tuple[int, int], fault: str, request: pytest.FixtureRequest
) -> None:
    if fault == "hang":
        request.getfixturevalue("impatient")
    ranked = upload.intended() + upload.others()
    for place in pair:
        getattr(upload.fake.nodes[ranked[place]], fault)()
    await upload.write(2)
    for number in range(2):
        upload.check_durable(number)


@pytest.mark.parametrize("pair", list(combinations(range(3), 2)))
async def test_two_replicas_may_take_the_chunk_and_die_before_they_answer(
    upload: Upload, pair: tuple[int, int]
) -> None:
    """They accepted the first placement durably, and nobody knows. It must not bind what the others can decide."""
    for place in pair:
        node = upload.fake.nodes[upload.intended()[place]]

        async def die(node: object = node) -> None:
            node.kill()  # type: ignore[attr-defined]

        node.after_put = die
    await upload.write(1)
    alive = set(upload.fake.nodes) - {upload.intended()[place] for place in pair}
    assert upload.chosen() == alive
    upload.check_durable(at_least=3)


@pytest.mark.parametrize("pair", list(combinations(range(3), 2)))
@pytest.mark.usefixtures("impatient")
async def test_replaced_replicas_may_come_back(upload: Upload, pair: tuple[int, int]) -> None:
    """Two hang after they accepted, are replaced, and wake up while the replacements are written."""
    sleepers = [upload.fake.nodes[upload.intended()[place]] for place in pair]
    for sleeper in sleepers:

        async def sleep(sleeper: object = sleeper) -> None:
            sleeper.hang()  # type: ignore[attr-defined]

        sleeper.after_put = sleep

    async def wake() -> None:
        for sleeper in sleepers:
            sleeper.after_put = None
            sleeper.revive()

    for node_id in upload.others():
        upload.fake.nodes[node_id].before_put = wake
    await upload.write(1)
    upload.check_durable()


async def test_the_chosen_placement_is_adopted_and_filled(upload: Upload) -> None:
    """Another placement is chosen already (as if an earlier commit's answer was lost): the bytes go where it says."""
    placement = [*upload.others(), upload.intended()[2]]
    await upload.write(1)
    chosen = upload.fake.metadata.decrees.pop(upload.chunk_id())
    for node in upload.fake.nodes.values():
        node.engine._data.clear()
    other = type(chosen).for_copies(
        placement,
        video=upload.fake.metadata.facts(upload.video_id),
        sequence_num=0,
        checksum=chosen.checksum,
        size_bytes=chosen.size_bytes,
        duration_ms=5000,
        segment=0,
        init_size_bytes=700,
        last=True,
    )
    upload.fake.metadata.decrees[upload.chunk_id()] = other
    await upload.write(1)
    assert upload.fake.copies(upload.chunk_id()) >= set(placement)


async def test_a_chunk_that_was_given_up_ends_the_upload(upload: Upload) -> None:
    upload.fake.metadata.refuse_commit = ConflictError("the chunk was given up")
    with pytest.raises(ConflictError, match="given up"):
        await upload.write(3)
    assert not upload.committed


@pytest.mark.usefixtures("impatient")
async def test_a_hung_node_does_not_stall_the_upload(upload: Upload) -> None:
    """It costs one grace period, not one for every chunk."""
    upload.fake.nodes["node-3"].hang()
    async with asyncio.timeout(30):
        async with Distributor(upload.target, upload.cluster, upload._note) as distributor:
            assert await distributor.write_all(chunks(20, 1000)) == 20
            upload.fake.nodes["node-3"].revive()
    for number in range(20):
        upload.check_durable(number)
    hung = [line for line in upload.fake.nodes["node-3"].requests if line.startswith("PUT")]
    assert len(hung) <= 8


@pytest.mark.usefixtures("impatient")
async def test_a_late_copy_still_arrives(upload: Upload) -> None:
    late = upload.fake.nodes[upload.intended()[1]]
    late.hang()
    async with Distributor(upload.target, upload.cluster, upload._note) as distributor:
        await distributor.write_all(chunks(1, 1000))
        assert upload.fake.copies(upload.chunk_id()) == set(upload.intended()) - {late.node_id}
        late.revive()
    assert upload.fake.copies(upload.chunk_id()) == set(upload.intended())
    assert len(upload.fake.metadata.commits) == 1


async def test_the_metadata_service_may_be_away_for_a_while(upload: Upload) -> None:
    upload.fake.metadata.down = True
    writing = asyncio.create_task(upload.write(3))
    await eventually(lambda: upload.sample("vstack_uploader_retries_total", what="chunk") >= 1)
    assert not upload.committed
    upload.fake.metadata.down = False
    assert await writing == 3
    assert sorted(upload.committed) == [0, 1, 2]


async def test_too_few_nodes_are_waited_for(three_nodes: FakeCluster) -> None:
    upload = Upload(three_nodes)
    await upload.start()
    for node_id in ("node-1", "node-2"):
        three_nodes.nodes[node_id].kill()
    writing = asyncio.create_task(upload.write(1))
    await eventually(lambda: upload.sample("vstack_uploader_retries_total", what="chunk") >= 1)
    three_nodes.nodes["node-1"].revive()
    assert await writing == 1
    upload.check_durable()


async def test_too_few_nodes_for_too_long_is_an_error(
    three_nodes: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunkwrite, "PATIENCE_S", 0.2)
    upload = Upload(three_nodes)
    await upload.start()
    for node_id in ("node-1", "node-2"):
        three_nodes.nodes[node_id].kill()
    with pytest.raises(UnavailableError, match="durable on 1 nodes and needs 2"):
        await upload.write(5)
    assert not upload.fake.metadata.commits


@pytest.mark.parametrize("count", [1, 2])
async def test_small_clusters_store_on_all_they_have(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    async with running_cluster(tmp_path_factory.mktemp("cluster"), count) as cluster:
        upload = Upload(cluster)
        await upload.start()
        await upload.write(2)
        assert upload.fake.copies(upload.chunk_id(1)) == set(cluster.nodes)


async def test_memory_is_bounded_by_the_chunks_in_flight(upload: Upload) -> None:
    """The producer is held back while no commit gets through."""
    upload.fake.metadata.down = True
    produced: list[int] = []

    async def counted() -> AsyncIterator[PackedChunk]:
        async for chunk in chunks(50, 1000):
            produced.append(chunk.number)
            yield chunk

    async def write() -> int:
        async with Distributor(upload.target, upload.cluster, upload._note) as distributor:
            return await distributor.write_all(counted())

    writing = asyncio.create_task(write())
    await eventually(lambda: upload.sample("vstack_uploader_retries_total", what="chunk") >= 4)
    assert len(produced) == 5
    upload.fake.metadata.down = False
    assert await writing == 50


async def test_a_failure_leaves_no_task(upload: Upload) -> None:
    before = asyncio.all_tasks()
    upload.fake.metadata.refuse_commit = ConflictError("given up")
    upload.fake.nodes["node-1"].hang()
    with pytest.raises(VStackError):
        await upload.write(10)
    upload.fake.nodes["node-1"].revive()
    await eventually(lambda: not {task for task in asyncio.all_tasks() - before if "uploader" in repr(task.get_coro())})
