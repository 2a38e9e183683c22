"""The parts of the uploader by themselves: progress, sessions, spool, queue, choice of nodes."""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.uploader.service.cluster import FakeCluster, eventually
from vstack.core.placement import Generation, Node, choose
from vstack.errors import DiskError, NotFoundError, SettingsError, UnavailableError
from vstack.rpc.metadata import MetadataClient
from vstack.uploader import progress, sessions
from vstack.uploader.metrics import Metrics
from vstack.uploader.nodes import MAX_SUSPECT_S, SUSPECT_S, NodeDirectory
from vstack.uploader.queue import JobQueue
from vstack.uploader.receive import EXTENSIONS, MAX_FILENAME_CHARS, check_filename
from vstack.uploader.sessions import Session, SessionStore
from vstack.uploader.spool import Spool

PHASES = st.sampled_from(list(progress.RANGES))
FRACTIONS = st.floats(-1, 2)


@given(PHASES, FRACTIONS)
def test_a_boundary_belongs_to_the_later_phase(phase: str, fraction: float) -> None:
    first, end = progress.RANGES[phase]  # type: ignore[index]
    assert first <= progress.percent(phase, fraction) < end  # type: ignore[arg-type]


@given(st.lists(st.tuples(PHASES, FRACTIONS)))
def test_progress_never_falls_and_is_100_only_at_the_end(steps: list[tuple[str, float]]) -> None:
    current = 0
    for phase, fraction in steps:
        after = progress.advance(current, phase, fraction)  # type: ignore[arg-type]
        assert current <= after < 100
        current = after
    assert progress.advance(current, "failed") == current
    assert progress.advance(current, "completed") == 100


def new_session(**changes: object) -> Session:
    session = Session(
        session_id=str(uuid.uuid4()),
        video_id=str(uuid.uuid4()),
        title="t",
        filename="f.mp4",
        size_bytes=5,
        started_at="2026-01-01T00:00:00.000Z",
    )
    return msgspec.structs.replace(session, **changes)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextlib.asynccontextmanager
async def store_in(directory: Path) -> AsyncIterator[SessionStore]:
    store = SessionStore(directory)
    store.load()
    yield store
    store.close()


async def test_a_session_survives(tmp_path: Path) -> None:
    session = new_session(status="chunking", progress=20, attempts=1, registered=True)
    async with store_in(tmp_path) as store:
        await store.save(session)
        assert store.get(session.session_id) == session
    (tmp_path / "half-written.tmp").write_bytes(b"{")
    (tmp_path / "broken.json").write_bytes(b"{")
    async with store_in(tmp_path) as again:
        assert again.all() == [session]
    assert names(tmp_path) == sorted([f"{session.session_id}.json", "broken.json"])


async def test_a_change_that_cannot_be_stored_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    session = new_session()
    async with store_in(tmp_path) as store:
        await store.save(session)
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(DiskError, match="Input/output error"):
            await store.save(session.moved("chunking"))
        monkeypatch.undo()
        assert store.get(session.session_id) == session


async def test_finished_sessions_are_forgotten_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEEP_FINISHED", 2)
    now_s = time.time()
    running = new_session()
    untold = new_session(status="failed", finished_at_s=now_s - 1000, registered=True)
    old = new_session(status="failed", finished_at_s=now_s - sessions.KEEP_FINISHED_S - 1)
    finished = [new_session(status="completed", finished_at_s=now_s + second) for second in range(3)]
    async with store_in(tmp_path) as store:
        for session in (running, untold, old, *finished):
            await store.save(session)
        assert {session.session_id for session in store.all()} == {
            session.session_id for session in (running, untold, *finished[1:])
        }
        with pytest.raises(NotFoundError):
            store.get(old.session_id)
    assert len(names(tmp_path)) == 4


async def test_a_received_file_is_written_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "incoming")
    spool.prepare()
    pieces = [os.urandom(size) for size in (1, 70_000, 3, 300_000)]
    async with spool.receiving("a") as incoming:
        for piece in pieces:
            await incoming.write(piece)
        await incoming.finish()
    assert spool.path("a").read_bytes() == b"".join(pieces)
    await spool.remove("a")
    await spool.remove("a")
    spool.close()


async def test_an_abandoned_file_is_removed_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def slow(descriptor: int, data: memoryview) -> int:
        time.sleep(0.05)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", slow)
    spool = Spool(tmp_path / "incoming")
    spool.prepare()

    async def receive() -> None:
        async with spool.receiving("a") as incoming:
            while True:
                await incoming.write(b"x" * 1000)

    task = asyncio.create_task(receive())
    await eventually(spool.path("a").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not spool.path("a").exists()
    spool.close()


async def test_files_without_a_session_are_removed_at_the_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    for name in ("kept", "lost"):
        spool.path(name).touch()
    spool.keep_only({"kept"})
    assert names(tmp_path) == ["kept"]
    spool.close()


async def test_one_uploader_uses_a_directory(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.prepare()
    with pytest.raises(SettingsError, match="another uploader"):
        Spool(tmp_path).prepare()
    first.close()
    second = Spool(tmp_path)
    second.prepare()
    second.close()


async def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot write to"):
        Spool(tmp_path / "file" / "incoming").prepare()


async def test_jobs_are_bounded_and_run_in_order() -> None:
    running: list[str] = []
    most = 0
    begun: list[str] = []
    go_on = asyncio.Semaphore(0)

    async def run(session_id: str) -> None:
        nonlocal most
        begun.append(session_id)
        running.append(session_id)
        most = max(most, len(running))
        await go_on.acquire()
        running.remove(session_id)
        if session_id == "1":
            raise ValueError("a job that crashes ends no worker")

    queue = JobQueue(run, max_jobs=2, max_queued=3, metrics=Metrics(CollectorRegistry()))
    async with queue.working():
        for number in range(5):
            with queue.admitted():
                queue.put(str(number))
        with pytest.raises(UnavailableError) as refused, queue.admitted():
            pass
        assert refused.value.retry_after_s >= 1
        await eventually(lambda: len(begun) == 2)
        for _ in range(5):
            go_on.release()
        await eventually(lambda: queue.active == 0)
        with queue.admitted():
            assert queue.active == 1
        assert queue.active == 0
    assert begun == ["0", "1", "2", "3", "4"]
    assert most == 2


async def test_closing_the_queue_cancels_what_runs() -> None:
    ended: list[str] = []

    async def run(session_id: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(session_id)

    queue = JobQueue(run, max_jobs=1, max_queued=5, metrics=Metrics(CollectorRegistry()))
    async with queue.working():
        queue.put("running")
        queue.put("waiting")
        await asyncio.sleep(0)
        await eventually(lambda: queue._waiting.qsize() == 1)
    assert ended == ["running"]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def directory(five_nodes: FakeCluster) -> NodeDirectory:
    found = NodeDirectory(MetadataClient(five_nodes.session, [five_nodes.metadata.url]), clock=Clock())
    await found.refresh()
    return found


async def test_the_choice_is_the_one_that_picks_the_acceptors(
    directory: NodeDirectory, five_nodes: FakeCluster
) -> None:
    generation = five_nodes.metadata.generation
    for number in range(50):
        key = f"chunk-{number}"
        assert directory.choose(key, generation, 3) == [node.node_id for node in choose(key, generation.nodes, 3)]


async def test_suspects_come_after_the_others_for_a_while(directory: NodeDirectory, five_nodes: FakeCluster) -> None:
    generation = five_nodes.metadata.generation
    best, *_ = directory.choose("c", generation, 3)
    directory.suspect(best)
    assert best not in directory.choose("c", generation, 3)
    assert directory.choose("c", generation, 5)[-1] == best
    directory._clock.now_s += SUSPECT_S + 1  # type: ignore[attr-defined]
    assert directory.choose("c", generation, 3)[0] == best


async def test_suspicion_grows_and_ends_with_a_success(directory: NodeDirectory) -> None:
    periods = []
    for _ in range(6):
        directory.suspect("node-1")
        directory.suspect("node-1")  # one outage fails many writes
        started_s = directory._clock()
        while directory.is_suspect("node-1"):
            directory._clock.now_s += 1  # type: ignore[attr-defined]
        periods.append(directory._clock() - started_s)
    assert periods == [SUSPECT_S, 2 * SUSPECT_S, 4 * SUSPECT_S, *[MAX_SUSPECT_S] * 3]
    directory.suspect("node-1")
    directory.trust("node-1")
    assert not directory.is_suspect("node-1")


async def test_nodes_that_joined_later_and_nodes_that_are_down_come_last(
    directory: NodeDirectory, five_nodes: FakeCluster
) -> None:
    members = five_nodes.metadata.generation.nodes[:2]
    generation = Generation(1, members)
    five_nodes.nodes["node-5"].status = "down"
    five_nodes.nodes["node-4"].status = "degraded"
    await directory.refresh()
    order = directory.choose("c", generation, 5)
    assert set(order[:2]) == {node.node_id for node in members}
    assert order[2:] == ["node-3", "node-4", "node-5"]


async def test_copies_fall_on_hosts_of_their_own(five_nodes: FakeCluster) -> None:
    directory = NodeDirectory(MetadataClient(five_nodes.session, [five_nodes.metadata.url]))
    await directory.refresh()
    shared = Generation(1, tuple(Node(f"node-{n}", "one" if n <= 3 else f"host-{n}") for n in range(1, 6)))
    for number in range(30):
        chosen = directory.choose(f"c{number}", shared, 3)
        assert len({"one" if node_id[-1] in "123" else node_id for node_id in chosen}) == 3


@given(st.text(max_size=400), st.sampled_from(sorted(EXTENSIONS)))
def test_a_file_name_is_printable_and_short(name: str, extension: str) -> None:
    kept = check_filename(f"{name}.{extension}")
    assert 0 < len(kept) <= MAX_FILENAME_CHARS
    assert "/" not in kept
    assert "\\" not in kept
    assert not any(ord(character) < 32 for character in kept)
    assert kept.endswith(f".{extension}")
