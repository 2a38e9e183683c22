"""The decisions of the metadata service that need no database."""

import asyncio
import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import vstack.metadata
from vstack.core.decree import Decree, Mode, VideoFacts, abort
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Instance
from vstack.core.paxos.receipts import Receipt, sign
from vstack.core.redundancy import fragment_bytes, recommend, savings_percent
from vstack.errors import InvalidRequestError
from vstack.metadata import jobs
from vstack.metadata.catalogue import manifest, nodes, pieces
from vstack.metadata.catalogue.nodes import StorageNode
from vstack.metadata.catalogue.videos import Extent
from vstack.metadata.catalogue.videos import VideoFacts as Row
from vstack.metadata.deciding import commit_rules
from vstack.metadata.postgres import statements
from vstack.metadata.rebuild.decisions import Vote, find
from vstack.wire.metadata import CommitRequest

KEY = b"the key of a cluster"
SUM = "ab" * 32
URLS = {f"http://n{number}:1": f"n{number}" for number in range(5)}
FACTS = VideoFacts("v", "A film", 1_700_000_000_123, 3)


def request(count: int = 3, **changes: Any) -> CommitRequest:
    fields: dict[str, Any] = {
        "node_urls": tuple(list(URLS)[:count]),
        "checksum": SUM,
        "size_bytes": 1000,
        "video_id": "v",
        "sequence_num": 0,
    }
    return CommitRequest(**{**fields, **changes})


def node(node_id: str, **changes: Any) -> StorageNode:
    fields: dict[str, Any] = {
        "node_key": 1,
        "node_id": node_id,
        "url": f"http://{node_id}:1",
        "superseded": False,
        "host": node_id,
        "zone": "",
        "version": "1",
        "capacity_bytes": 0,
        "disk_uuid": None,
        "incarnation": 0,
        "disk_usage_percent": 0.0,
        "chunk_count": 0,
        "disk_status": "healthy",
        "last_heartbeat": None,
        "heartbeat_age_s": 1.0,
        "probe_age_s": None,
    }
    return StorageNode(**{**fields, **changes})


@pytest.mark.parametrize(
    ("heartbeat", "probe", "disk", "superseded", "expected"),
    [
        (0.0, None, "healthy", False, "healthy"),
        (10.0, None, "healthy", False, "healthy"),
        (10.1, None, "healthy", False, "degraded"),
        (30.0, None, "healthy", False, "degraded"),
        (30.1, None, "healthy", False, "down"),
        (30.1, 29.0, "healthy", False, "degraded"),
        (3600.0, 31.0, "healthy", False, "down"),
        (0.0, None, "warning", False, "degraded"),
        (0.0, None, "read_only", False, "degraded"),
        (None, None, "healthy", False, "down"),
        (None, 1.0, "healthy", False, "degraded"),
        (0.0, 0.0, "healthy", True, "down"),
    ],
)
def test_status(heartbeat: float | None, probe: float | None, disk: str, *, superseded: bool, expected: str) -> None:
    found = nodes.status_of(heartbeat_age_s=heartbeat, probe_age_s=probe, disk_status=disk, superseded=superseded)
    assert found == expected


def test_members_of_a_generation() -> None:
    known = [
        node("a", capacity_bytes=2**30),
        node("b", capacity_bytes=3 * 2**30),
        node("c"),
        node("d", heartbeat_age_s=31.0),
        node("e", superseded=True),
    ]
    assert {member.node_id: member.weight for member in nodes.members(known)} == {"a": 1.0, "b": 3.0, "c": 2.0}
    assert [member.weight for member in nodes.members([node("a")])] == [1.0]


def test_created_at_is_exact_to_the_millisecond() -> None:
    for millisecond in range(1000):
        moment = datetime(2031, 5, 6, 7, 8, 9, millisecond * 1000, tzinfo=UTC)
        row = Row("v", "t", "uploading", 1, moment, restored=False)
        assert row.created_at_ms % 1000 == millisecond


@pytest.mark.parametrize(
    ("mode", "named", "registered", "expected"),
    [
        (Mode.REPLICATION, 1, 1, 1),
        (Mode.REPLICATION, 1, 2, 1),
        (Mode.REPLICATION, 2, 2, 2),
        (Mode.REPLICATION, 2, 3, 2),
        (Mode.REPLICATION, 3, 5, 2),
        (Mode.ERASURE_CODING, 5, 5, 4),
    ],
)
def test_copies_needed(mode: Mode, named: int, registered: int, expected: int) -> None:
    assert commit_rules.copies_needed(mode, named, registered) == expected


def test_one_copy_is_never_enough_among_three_nodes() -> None:
    with pytest.raises(InvalidRequestError):
        commit_rules.copies_needed(Mode.REPLICATION, 1, 3)


def test_a_decree_is_the_same_whatever_the_order_of_the_nodes() -> None:
    forwards = commit_rules.build_decree(request(), FACTS, URLS)
    backwards = commit_rules.build_decree(request(node_urls=tuple(list(URLS)[2::-1])), FACTS, URLS)
    assert forwards.encode() == backwards.encode()
    assert (forwards.title, forwards.created_at_ms, forwards.next_generation) == ("A film", 1_700_000_000_123, 3)


def test_receipts_prove_what_they_say_and_nothing_else() -> None:
    decree = commit_rules.build_decree(request(), FACTS, URLS)
    wanted = pieces.of("c", decree)

    def proven(**changes: Any) -> set[str]:
        fields: dict[str, Any] = {
            "node_id": "n0",
            "chunk_id": "c",
            "epoch": 0,
            "generation": 3,
            "stored_checksum": SUM,
            "stored_bytes": 1000,
        }
        receipt = sign(Receipt(**{**fields, **changes}), KEY)
        return {piece.node_id for piece in commit_rules.proven(wanted, "c", [receipt], KEY)}

    assert proven() == {"n0"}
    for wrong in ({"node_id": "n4"}, {"chunk_id": "d"}, {"stored_checksum": "cd" * 32}, {"stored_bytes": 999}):
        assert proven(**wrong) == set()
    forged = Receipt("n0", "c", 0, 3, stored_checksum=SUM, stored_bytes=1000, signature="00")
    with pytest.raises(InvalidRequestError):
        commit_rules.proven(wanted, "c", [forged], KEY)


def test_only_a_decree_of_this_chunk_becomes_a_row() -> None:
    good = commit_rules.build_decree(request(), FACTS, URLS)
    known = set(URLS.values())
    assert commit_rules.understood(good.encode(), "v-chunk-000", "v", known) == Decree.decode(good.encode())
    assert commit_rules.understood(good.encode(), "v-chunk-000", "w", known) is None
    assert commit_rules.understood(good.encode(), "v-chunk-000", "v", {"n0"}) is None
    assert commit_rules.readable(good.encode(), "v-chunk-001") is None
    given_up = abort("v", 0, 3).encode()
    assert commit_rules.readable(given_up, "v-chunk-000") is None
    assert commit_rules.is_abort(given_up)
    assert not commit_rules.is_abort(good.encode())
    for value in (b"", b"{}", b"[1]", b"\xff"):
        assert commit_rules.readable(value, "v-chunk-000") is None
        assert not commit_rules.is_abort(value)


@pytest.mark.parametrize(
    "changes",
    [
        {"size_bytes": 0},
        {"size_bytes": 2**40},
        {"checksum": "x"},
        {"checksum": SUM.upper()},
        {"checksum": f"sha256:{SUM}"},
        {"video_id": "a b"},
        {"created_at_ms": 10**18},
        {"created_at_ms": -1},
        {"segment": -1},
        {"duration_ms": 2**40},
        {"placements": []},
        {"placements": [["n0", SUM], ["n0", SUM]]},
        {"placements": [{"node_id": "n0", "checksum": SUM}] * 2},
        {"placements": [{"node_id": "n\0", "checksum": SUM}]},
        {"placements": [{"node_id": "n0", "checksum": SUM, "fragment_index": 0}]},
        {"placements": [{"node_id": "n0", "checksum": "y"}]},
        {"mode": "erasure_coding"},
        {"mode": "raid"},
    ],
)
def test_values_that_no_service_of_ours_proposes(changes: dict[str, Any]) -> None:
    fields = msgspec.to_builtins(commit_rules.build_decree(request(1), FACTS, URLS))
    assert commit_rules.readable(msgspec.json.encode(fields), "free-form") is not None
    assert commit_rules.readable(msgspec.json.encode({**fields, **changes}), "free-form") is None


@pytest.mark.parametrize(
    ("chunks", "highest", "last", "marks", "whole"),
    [(0, -1, -1, 0, False), (1, 0, 0, 1, True), (2, 2, 2, 1, False), (3, 2, 1, 1, False), (3, 2, 2, 2, False)],
)
def test_when_a_video_is_whole(chunks: int, highest: int, last: int, marks: int, *, whole: bool) -> None:
    assert (Extent(chunks, highest, last, marks, 0, 0).missing is None) is whole


def test_replicas_in_the_order_of_their_nodes_health() -> None:
    by_key = {
        1: node("a", heartbeat_age_s=20.0),
        2: node("b"),
        3: node("c", heartbeat_age_s=99.0),
        4: node("d", superseded=True),
    }
    assert manifest.replica_urls([1, 2, 3], by_key) == ("http://b:1", "http://a:1")
    assert manifest.replica_urls([3, 4], by_key) == ("http://c:1",)


def test_redundancy_policy() -> None:
    assert recommend(999, popularity_threshold=1000) is Mode.ERASURE_CODING
    assert recommend(1000, popularity_threshold=1000) is Mode.REPLICATION
    assert recommend(0, popularity_threshold=1000, override=Mode.REPLICATION) is Mode.REPLICATION
    assert fragment_bytes(2_097_152) == 699_051
    assert fragment_bytes(3) == fragment_bytes(1) == 1
    assert savings_percent(300, 900) == 0.0
    assert round(savings_percent(300, 500), 1) == 44.4


CONFIG = Config(1, ("a", "b", "c"))


def vote(node_id: str, ballot: int, value: bytes | None, *, epoch: int = 0, **flags: bool) -> Vote:
    instance = Instance("c", epoch, CONFIG)
    return Vote(node_id, AcceptorState(instance, ballot, ballot if value else -1, value, **flags))


def test_the_highest_proven_epoch_counts() -> None:
    old = [vote(name, 0, b"old") for name in "abc"]
    new = [vote(name, 65536, b"new", epoch=1) for name in "ab"]
    found = find("c", old + new)
    assert found.chosen is not None
    assert (found.chosen.value, found.open) == (b"new", ())
    found = find("c", old + new[:1])
    assert found.chosen is not None
    assert found.chosen.value == b"old"
    assert [(decision.instance.epoch, decision.value) for decision in found.open] == [(1, b"new")]


def test_what_is_not_proven_is_open_with_its_highest_vote() -> None:
    found = find("c", [vote("a", 0, b"x"), vote("b", 65536, b"y"), vote("c", 70000, None)])
    assert found.chosen is None
    assert [decision.value for decision in found.open] == [b"y"]
    assert find("c", [vote("a", 7, None)]).open == ()


def test_one_retired_acceptor_ends_a_chunk() -> None:
    votes = [vote("a", 0, b"x"), vote("b", 0, b"x"), vote("c", 0, b"x"), vote("a", -1, None, epoch=1, retired=True)]
    assert find("c", votes).retired is True


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    """SQL stands in files, by name; a name without a statement, or the other way round, is an error."""
    package = Path(vstack.metadata.__file__).parent
    for path in sorted(package.rglob("*.py")):
        text = path.read_text()
        for file in re.findall(r'statements\.load\("([a-z_]+)"\)', text):
            names = set(statements.load(file))
            users = [other.read_text() for other in package.rglob("*.py") if f'load("{file}")' in other.read_text()]
            used = {name for name in names if any(f'"{name}"' in source for source in users)}
            assert names == used, (file, names - used)
        if path.name != "statements.py":
            assert not re.search(r'"[^"\n]*\b(SELECT|INSERT|UPDATE|DELETE) ', text), f"{path.name} holds SQL"


async def test_a_task_that_swallows_a_cancellation_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "OBEY_TIMEOUT_S", 0.01)
    started = asyncio.Event()

    async def stubborn() -> None:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await started.wait()
    await jobs.end(task)
    assert task.cancelled()
