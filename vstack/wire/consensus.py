"""ChunkPaxos on the wire, and receipts as they travel in headers.

Values are JSON texts of decrees and travel as strings. A proposal rides on a PUT in `PROPOSAL_HEADER`, the receipt
comes back in `RECEIPT_HEADER`; both are base64url of compact JSON, which keeps them printable and below 8 KiB.
"""

import base64
import binascii
from typing import Annotated, Final, TypeVar

import msgspec

from vstack.core.paxos import acceptor
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import MAX_VALUE_BYTES, Instance
from vstack.core.paxos.receipts import Receipt
from vstack.errors import InvalidRequestError
from vstack.ids import Identifier
from vstack.wire.common import Count, Message

PROPOSAL_HEADER: Final = "X-Chunk-Proposal"
RECEIPT_HEADER: Final = "X-Chunk-Receipt"

Ballot = Annotated[int, msgspec.Meta(ge=-1, lt=2**52)]
ValueText = Annotated[str, msgspec.Meta(min_length=2, max_length=MAX_VALUE_BYTES)]


class ConfigBody(Message, frozen=True, kw_only=True):
    """The acceptors of an instance, with the generation they were drawn from."""

    generation: Count
    acceptors: Annotated[tuple[Identifier, ...], msgspec.Meta(min_length=1, max_length=5)]

    def to_core(self) -> Config:
        """InvalidRequestError where the set is no legal acceptor set."""
        try:
            return Config(generation=self.generation, acceptors=self.acceptors)
        except ValueError as error:
            raise InvalidRequestError(str(error)) from error

    @classmethod
    def of(cls, config: Config) -> "ConfigBody":
        return cls(generation=config.generation, acceptors=config.acceptors)


def value_bytes(text: str) -> bytes:
    """The value that a text stands for; InvalidRequestError where it has too many bytes or is no Unicode."""
    try:
        value = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError("a value is Unicode text") from error
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidRequestError(f"a value has at most {MAX_VALUE_BYTES} bytes")
    return value


class Proposal(Message, frozen=True, kw_only=True):
    """A value proposed for a chunk at the fast ballot."""

    epoch: Count
    config: ConfigBody
    value: ValueText

    def instance(self, chunk_id: str) -> Instance:
        return Instance(chunk_id=chunk_id, epoch=self.epoch, config=self.config.to_core())


class PrepareRequest(Message, frozen=True, kw_only=True):
    epoch: Count
    config: ConfigBody
    ballot: Ballot


class AcceptRequest(Message, frozen=True, kw_only=True):
    epoch: Count
    config: ConfigBody
    ballot: Ballot
    value: ValueText


class LearnItem(Message, frozen=True, kw_only=True):
    """A chosen value. Without a value it says that the chunk was deleted for good: RETIRE."""

    chunk_id: Identifier
    epoch: Count
    config: ConfigBody
    value: ValueText | None = None


class LearnRequest(Message, frozen=True, kw_only=True):
    """A batch of LEARN and RETIRE, made durable together."""

    items: Annotated[tuple[LearnItem, ...], msgspec.Meta(min_length=1, max_length=256)]


class LearnReply(Message, frozen=True, kw_only=True):
    """`learned` counts the items that now hold; fewer than were sent where the node refused some. `node_id` answers."""

    node_id: str
    learned: Count


class AcceptorReply(Message, frozen=True, kw_only=True):
    """What an acceptor answers, after its state is durable.

    `outcome` is promised, accepted, rejected, learned (it knows the chosen value, here in accepted_value), retired or
    mismatch. `receipt` is present for an acceptance at the fast ballot.
    """

    node_id: str
    outcome: str
    promised_ballot: int = -1
    accepted_ballot: int = -1
    accepted_value: str | None = None
    reason: str = ""
    receipt: str | None = None


class AcceptorQuery(Message, frozen=True, kw_only=True):
    """Which instance of a chunk."""

    epoch: Count = 0


class AcceptorState(Message, frozen=True, kw_only=True):
    """The durable state of one acceptor for one instance; also a row of a rebuild listing."""

    node_id: str
    chunk_id: str
    epoch: int
    generation: int
    acceptors: tuple[str, ...]
    promised_ballot: int
    accepted_ballot: int
    accepted_value: str | None
    learned: bool
    retired: bool

    def to_core(self) -> acceptor.AcceptorState:
        """InvalidRequestError where the acceptors are no legal set."""
        config = ConfigBody(generation=self.generation, acceptors=self.acceptors).to_core()
        return acceptor.AcceptorState(
            instance=Instance(self.chunk_id, self.epoch, config),
            promised=self.promised_ballot,
            accepted_ballot=self.accepted_ballot,
            accepted_value=None if self.accepted_value is None else self.accepted_value.encode(),
            learned=self.learned,
            retired=self.retired,
        )

    @classmethod
    def of(cls, node_id: str, state: acceptor.AcceptorState) -> "AcceptorState":
        return cls(
            node_id=node_id,
            chunk_id=state.instance.chunk_id,
            epoch=state.instance.epoch,
            generation=state.instance.config.generation,
            acceptors=state.instance.config.acceptors,
            promised_ballot=state.promised,
            accepted_ballot=state.accepted_ballot,
            accepted_value=None if state.accepted_value is None else state.accepted_value.decode(),
            learned=state.learned,
            retired=state.retired,
        )


class AcceptorPage(Message, frozen=True, kw_only=True):
    """A page of acceptor states; `next` is the cursor of the following page, None after the last."""

    states: tuple[AcceptorState, ...]
    next: str | None


T = TypeVar("T")


def to_header(value: object) -> str:
    """Base64url of the compact JSON of a Struct or dataclass."""
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode()


def from_header(text: str, kind: type[T], name: str) -> T:
    """The value of a header made by `to_header`; InvalidRequestError naming the header where it is none."""
    try:
        return msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=kind)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise InvalidRequestError(f"header {name} is not valid: {error}") from error


def receipt_to_header(receipt: Receipt) -> str:
    return to_header(receipt)


def receipt_from_text(text: str) -> Receipt:
    return from_header(text, Receipt, RECEIPT_HEADER)
