"""Storing a chunk, with the proposal that may ride on it.

Owns the rules that bind the bytes of a PUT to the decree proposed with them. Data and acceptance become durable under
one flush, or neither does.
"""

from dataclasses import dataclass

from vstack import ids
from vstack.core.decree import Decree, Mode, Placement
from vstack.core.paxos.config import FAST_BALLOT
from vstack.core.paxos.messages import Accept, Instance, Mismatch, Retired
from vstack.errors import ConflictError, InvalidRequestError
from vstack.storage.acceptors import Acceptors
from vstack.storage.contract import Engine, PutBuffer, PutOutcome
from vstack.storage.receipts import Notary
from vstack.units import DATA_SHARDS
from vstack.wire.consensus import Proposal, value_bytes

WHOLE = -1
"""The fragment index of a whole chunk."""


@dataclass(frozen=True, slots=True)
class Target:
    """What an object id names: a chunk, or one fragment of it."""

    object_id: str
    chunk_id: str
    fragment_index: int

    @classmethod
    def of(cls, object_id: str) -> "Target":
        chunk_id, fragment_index = ids.parse_fragment_id(object_id) or (object_id, WHOLE)
        return cls(object_id, chunk_id, fragment_index)


class Writer:
    """Stores chunks and fragments of one node."""

    def __init__(self, engine: Engine, acceptors: Acceptors, notary: Notary) -> None:
        self._engine = engine
        self._acceptors = acceptors
        self._notary = notary

    async def put(
        self, target: Target, buffer: PutBuffer, size_bytes: int, expected_checksum: str | None
    ) -> PutOutcome:
        """Store the bytes alone. Errors as of Engine.put."""
        return await self._engine.put(
            target.object_id,
            buffer,
            size_bytes,
            fragment_index=target.fragment_index,
            expected_checksum=expected_checksum,
        )

    async def put_proposed(
        self,
        target: Target,
        buffer: PutBuffer,
        size_bytes: int,
        expected_checksum: str | None,
        proposal: Proposal,
    ) -> tuple[PutOutcome, str]:
        """Store the bytes and vote for the proposal; the receipt says what became durable.

        InvalidRequestError where decree and bytes disagree; ConflictError where the chunk was deleted for good or was
        begun with other acceptors. Where another value holds the vote, the bytes are stored all the same.
        """
        instance = proposal.instance(target.chunk_id)
        value = value_bytes(proposal.value)
        placement = self._check(target, size_bytes, Decree.decode(value))
        if expected_checksum not in (None, placement.checksum):
            raise InvalidRequestError("the proposed placement and the checksum header disagree")
        async with self._acceptors.proposed(Accept(instance, FAST_BALLOT, value)) as taken:
            self._check_open(instance, taken.reply)
            outcome = await self._engine.put(
                target.object_id,
                buffer,
                size_bytes,
                epoch=instance.epoch,
                fragment_index=target.fragment_index,
                expected_checksum=placement.checksum,
                acceptance=taken.unsaved,
            )
        vote = value if taken.fast_vote == value else None
        return outcome, self._notary.receipt(instance, vote=vote, stored=outcome.info)

    def _check(self, target: Target, size_bytes: int, decree: Decree) -> Placement:
        """The decree's placement of exactly this object on this node."""
        whole = target.fragment_index == WHOLE
        if decree.mode is not (Mode.REPLICATION if whole else Mode.ERASURE_CODING):
            raise InvalidRequestError(f"a decree of mode {decree.mode} does not place {target.object_id}")
        if ids.parse_chunk_id(target.chunk_id) not in (None, (decree.video_id, decree.sequence_num)):
            raise InvalidRequestError(f"the proposed decree is not about {target.chunk_id}")
        expected_bytes = decree.size_bytes if whole else -(-decree.size_bytes // DATA_SHARDS)
        if size_bytes != expected_bytes:
            raise InvalidRequestError(f"the proposed decree expects {expected_bytes} bytes, not {size_bytes}")
        mine = (self._engine.identity.node_id, target.fragment_index)
        for placement in decree.placements:
            if (placement.node_id, placement.fragment_index) == mine:
                if whole and placement.checksum != decree.checksum:
                    raise InvalidRequestError("the proposed decree contradicts its own checksum")
                return placement
        raise InvalidRequestError(f"the proposed decree does not place {target.object_id} on this node")

    def _check_open(self, instance: Instance, reply: object) -> None:
        match reply:
            case Retired():
                raise ConflictError(f"{instance.chunk_id} was deleted, or placed anew since")
            case Mismatch(reason=reason) if self._engine.identity.node_id in instance.config.acceptors:
                raise ConflictError(reason)
