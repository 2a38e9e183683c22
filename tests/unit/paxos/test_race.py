"""Two metadata instances race for the same chunks with disjoint placements, over real nodes with their real engines."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from scripts.bench_consensus import CLUSTER_KEY, Cluster, cluster
from vstack.core.decree import Decree, Mode, Placement
from vstack.core.paxos.messages import Instance
from vstack.core.paxos.recovery import chosen_value
from vstack.core.placement import Generation, Node, choose, config_for
from vstack.errors import UnavailableError
from vstack.metadata.deciding.consensus import Consensus
from vstack.metadata.deciding.learning import Learner

NODES = 7
AT_ONCE = 8


def wishes(running: Cluster, chunk_id: str, number: int) -> tuple[Instance, bytes, bytes]:
    """The instance, and two values that place the chunk on different nodes."""
    generation = Generation(1, tuple(Node(node_id, node_id) for node_id in running.urls))
    ranked = [node.node_id for node in choose(chunk_id, generation.nodes, NODES)]
    values = [
        Decree(
            mode=Mode.REPLICATION,
            video_id=running.video_id,
            sequence_num=number,
            checksum="",
            size_bytes=1,
            placements=tuple(Placement(node_id, "") for node_id in nodes),
            next_generation=1,
        ).encode()
        for nodes in (ranked[:3], ranked[3:6])
    ]
    return Instance(chunk_id, 0, config_for(chunk_id, generation)), values[0], values[1]


async def decided(consensus: Consensus, instance: Instance, value: bytes, urls: dict[str, str]) -> bytes:
    """What was chosen, asked for again as a caller would when a busy machine let the deadline pass."""
    while True:
        with contextlib.suppress(UnavailableError):
            return await consensus.decide(instance, value, urls)


async def race(directory: Path, chunks: int, seed: int) -> tuple[int, int]:
    """How often each of the two won."""
    chance = random.Random(seed)
    wins = [0, 0]
    slots = asyncio.Semaphore(AT_ONCE)
    async with cluster(directory, NODES) as running:
        registry = CollectorRegistry()
        async with (
            Consensus(running.storage, CLUSTER_KEY, 2, CollectorRegistry()) as rival,
            Learner(running.storage, registry) as learner,
        ):

            async def one(number: int) -> None:
                async with slots:
                    chunk_id, sequence_num = running.next_chunk()
                    instance, first, second = wishes(running, chunk_id, sequence_num)
                    away = chance.sample(sorted(running.urls), chance.choice([0, 0, 1, 2]))
                    urls = {node_id: url for node_id, url in running.urls.items() if node_id not in away}
                    contenders = [
                        decided(running.consensus, instance, first, urls),
                        decided(rival, instance, second, urls),
                    ]
                    order = [0, 1] if number % 2 else [1, 0]
                    answers = await asyncio.gather(*(contenders[index] for index in order))
                    assert answers[0] == answers[1], "the two instances believe in different values"
                    assert answers[0] in (first, second)
                    wins[[first, second].index(answers[0])] += 1
                    learner.learn(instance, answers[0], running.urls)
                    states = await rival.inspect(instance, running.urls)
                    proven = chosen_value(
                        {answer.node_id: answer.state for answer in states if answer.state}, instance.config
                    )
                    assert proven in (None, answers[0])

            async with asyncio.TaskGroup() as group:
                for number in range(chunks):
                    group.create_task(one(number))
        assert registry.get_sample_value("vstack_metadata_learn_items_total", {"outcome": "learned"}) == 5 * chunks
    return wins[0], wins[1]


async def test_every_race_has_one_winner(tmp_path: Path) -> None:
    assert sum(await race(tmp_path, chunks=20, seed=1)) == 20


@pytest.mark.slow
async def test_a_thousand_races_have_one_winner_each(tmp_path: Path) -> None:
    first, second = await race(tmp_path, chunks=1000, seed=2)
    assert first + second == 1000
    assert min(first, second) > 0
