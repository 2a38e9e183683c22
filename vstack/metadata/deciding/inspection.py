"""The true state of a chunk's consensus: what its acceptors say when they are asked now."""

import msgspec

from vstack import ids
from vstack.core.decree import Decree, Mode
from vstack.core.paxos import recovery
from vstack.core.paxos.config import NO_BALLOT
from vstack.core.paxos.messages import Instance
from vstack.core.placement import config_for
from vstack.errors import InvalidRequestError, NotFoundError
from vstack.metadata.catalogue import chunks, nodes, videos
from vstack.metadata.catalogue.generations import Generations
from vstack.metadata.deciding.commit_rules import FIRST_EPOCH
from vstack.metadata.deciding.consensus import Answer, Consensus
from vstack.metadata.postgres.database import Database
from vstack.wire.metadata import AcceptorAnswer, ConsensusState


async def inspect(db: Database, generations: Generations, consensus: Consensus, chunk_id: str) -> ConsensusState:
    """Ask the acceptors of a chunk's current epoch. NotFoundError for a chunk of no video that we know."""
    row = await chunks.get(db, chunk_id)
    instance = row.instance if row is not None else await _unfinished(db, generations, chunk_id)
    url_by_id = {node.node_id: node.url for node in await nodes.all_nodes(db) if not node.superseded}
    answers = await consensus.inspect(instance, url_by_id)
    return describe(instance, answers, row.decree if row is not None else None, url_by_id)


def describe(
    instance: Instance, answers: tuple[Answer, ...], recorded: bytes | None, url_by_id: dict[str, str]
) -> ConsensusState:
    """The answer of `GET /consensus`. `recorded` is the chosen value that the database knows."""
    states = {answer.node_id: answer.state for answer in answers if answer.state is not None}
    chosen = recorded if recorded is not None else recovery.chosen_value(states, instance.config)
    highest = max(states.values(), key=lambda state: state.accepted_ballot, default=None)
    value = chosen if chosen is not None or highest is None else highest.accepted_value
    return ConsensusState(
        chunk_id=instance.chunk_id,
        promised_ballot=max((state.promised for state in states.values()), default=NO_BALLOT),
        accepted_ballot=NO_BALLOT if highest is None else highest.accepted_ballot,
        accepted_value=None if value is None else _node_urls(value, url_by_id),
        phase="committed" if chosen is not None else recovery.stage(states.values()),
        epoch=instance.epoch,
        generation=instance.config.generation,
        acceptors=tuple(_answer(answer, url_by_id) for answer in answers),
    )


async def _unfinished(db: Database, generations: Generations, chunk_id: str) -> Instance:
    """The first epoch of a chunk that is not committed, by its id and its video's generation."""
    parsed = ids.parse_chunk_id(chunk_id)
    video = await videos.facts(db, parsed[0]) if parsed is not None else None
    if video is None or video.status == "deleting":
        raise NotFoundError(f"no chunk {chunk_id} is committed")
    generation = await videos.pinned(db, generations, video)
    if not generation.nodes:
        raise NotFoundError(f"no chunk {chunk_id} is committed, and no node is there to decide on it")
    return Instance(chunk_id, FIRST_EPOCH, config_for(chunk_id, generation))


def _answer(answer: Answer, url_by_id: dict[str, str]) -> AcceptorAnswer:
    state = answer.state
    if state is None:
        return AcceptorAnswer(node_id=answer.node_id, reachable=answer.reachable)
    return AcceptorAnswer(
        node_id=answer.node_id,
        reachable=True,
        promised_ballot=state.promised,
        accepted_ballot=state.accepted_ballot,
        accepted_value=None if state.accepted_value is None else _node_urls(state.accepted_value, url_by_id),
        learned=state.learned,
    )


def _node_urls(value: bytes, url_by_id: dict[str, str]) -> str:
    """The JSON text of the URLs that a value places a chunk on; the value's own text where it is no decree of ours."""
    try:
        decree = Decree.decode(value)
    except InvalidRequestError:
        return value.decode(errors="replace")
    if decree.mode is Mode.ABORT:
        return "[]"
    return msgspec.json.encode([url_by_id.get(node_id, node_id) for node_id in decree.node_ids]).decode()
