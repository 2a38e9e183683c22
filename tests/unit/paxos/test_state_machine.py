"""One chunk through its whole life, at random: epochs, racing proposers, LEARN, ABORT, RETIRE over a hostile network.

What the exhaustive models leave out is here: several epochs with acceptors of their own, closed states being dropped,
receipts, retirement. Messages and answers are never forgotten by the network, so each may be lost, late or doubled.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from vstack.core import decree
from vstack.core.paxos import acceptor
from vstack.core.paxos.acceptor import AcceptorState, closes, governing
from vstack.core.paxos.config import FAST_BALLOT, NO_BALLOT, Config
from vstack.core.paxos.messages import Accept, Accepted, Instance, Learn, Message, Reply, Retire, Retired
from vstack.core.paxos.proposer import Broadcast, Chosen, Effect, Phase, Proposer
from vstack.core.paxos.recovery import chosen_value

POOL = tuple(f"n{number}" for number in range(5))
MAX_EPOCHS = 4
WISHES = (b"v", b"w", b"x", decree.abort("video", 0, 0).encode())


@dataclass
class Contender:
    """A proposer of one epoch. `life` counts restarts: answers to an earlier life do not reach it."""

    proposer: Proposer
    life: int = 0


@dataclass(frozen=True)
class Sent:
    contender: int
    life: int
    message: Message


@dataclass
class StorageNode:
    """What one node keeps of the chunk, by epoch, as an engine would."""

    states: dict[int, AcceptorState] = field(default_factory=dict)

    def take(self, node_id: str, message: Message) -> Reply:
        epoch = message.instance.epoch
        before = governing(self.states.values(), epoch)
        after, reply = acceptor.step(node_id, before, message)
        if after is not None and after is not before:
            kept = self.states.get(after.instance.epoch)
            assert kept is None or after.retired or after.promised >= kept.promised
            self.states = {number: state for number, state in self.states.items() if not closes(after, number)}
            self.states[after.instance.epoch] = after
        return reply


class ChunkLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.nodes = {name: StorageNode() for name in POOL}
        self.instances: list[Instance] = []
        self.contenders: list[Contender] = []
        self.sent: list[Sent] = []
        self.answers: list[tuple[Sent, str, Reply]] = []
        self.votes: set[tuple[int, int, bytes, str]] = set()
        self.claimed: dict[int, bytes] = {}
        self.retired: set[str] = set()

    # -- what the observer knows ----------------------------------------------------------------------------------

    def chosen(self, epoch: int) -> set[bytes]:
        config = self.instances[epoch].config
        votes = Counter((ballot, value) for number, ballot, value, _ in self.votes if number == epoch)
        quorums = {True: config.fast_quorum, False: config.classic_quorum}
        return {value for (ballot, value), count in votes.items() if count >= quorums[ballot == FAST_BALLOT]}

    def obey(self, number: int, effect: Effect | None) -> None:
        contender = self.contenders[number]
        match effect:
            case Broadcast(message=message):
                self.sent.append(Sent(number, contender.life, message))
            case Chosen(value=value):
                epoch = contender.proposer.instance.epoch
                assert value in self.chosen(epoch), "a proposer claims what is not chosen"
                self.claimed[epoch] = value

    # -- the rules ------------------------------------------------------------------------------------------------

    @initialize(count=st.sampled_from([1, 3, 5]), data=st.data())
    def first_epoch(self, count: int, data: st.DataObject) -> None:
        self.open_epoch(count, data)

    def open_epoch(self, count: int, data: st.DataObject) -> None:
        acceptors = data.draw(st.permutations(POOL))[:count]
        epoch = len(self.instances)
        self.instances.append(Instance("chunk", epoch, Config(generation=epoch, acceptors=tuple(acceptors))))

    @precondition(lambda self: len(self.instances) - 1 in self.claimed and len(self.instances) < MAX_EPOCHS)
    @rule(count=st.sampled_from([1, 3, 5]), data=st.data())
    def next_epoch(self, count: int, data: st.DataObject) -> None:
        """Begun only when some proposer knows that the last one is decided."""
        self.open_epoch(count, data)

    @rule(data=st.data(), value=st.sampled_from(WISHES), fast=st.booleans(), proposer_id=st.integers(0, 2))
    def contend(self, data: st.DataObject, value: bytes, proposer_id: int, *, fast: bool) -> None:
        """Somebody proposes in any epoch that was ever opened; who has receipts completes the fast round with them."""
        instance = data.draw(st.sampled_from(self.instances))
        receipts = {
            node for epoch, ballot, voted, node in self.votes if (epoch, ballot, voted) == (instance.epoch, 0, value)
        }
        proposer = Proposer(instance, value, proposer_id)
        proposer, effect = proposer.start_fast(receipts) if fast else proposer.start_classic()
        self.contenders.append(Contender(proposer))
        self.obey(len(self.contenders) - 1, effect)

    @rule(data=st.data(), value=st.sampled_from(WISHES), fast=st.booleans(), learns=st.booleans())
    def decide_in_calm(self, data: st.DataObject, value: bytes, *, fast: bool, learns: bool) -> None:
        """The network behaves for once: a proposer comes to its end, and may tell everybody."""
        instance = data.draw(st.sampled_from(self.instances))
        self.contenders.append(Contender(Proposer(instance, value, 3)))
        number, contender = len(self.contenders) - 1, self.contenders[-1]
        contender.proposer, effect = contender.proposer.start_fast() if fast else contender.proposer.start_classic()
        self.obey(number, effect)
        while contender.proposer.phase is not Phase.DONE:
            sent = self.sent[-1]
            for node_id in instance.config.acceptors:
                if sent is self.sent[-1]:
                    self.hear(sent, node_id, self.take(node_id, sent.message))
            if contender.proposer.phase is Phase.IDLE:
                contender.proposer, effect = contender.proposer.start_classic()
                self.obey(number, effect)
        if learns and instance.epoch in self.claimed:
            self.tell(instance, instance.config.acceptors)

    @precondition(lambda self: self.contenders)
    @rule(data=st.data(), restart=st.booleans())
    def another_round(self, data: st.DataObject, *, restart: bool) -> None:
        """A deadline passed, or the process restarts with the same id and counts its rounds anew."""
        number = data.draw(st.integers(0, len(self.contenders) - 1))
        contender = self.contenders[number]
        if restart:
            fresh = Proposer(
                contender.proposer.instance, data.draw(st.sampled_from(WISHES)), contender.proposer.proposer_id
            )
            contender.proposer, contender.life = fresh, contender.life + 1
        if contender.proposer.phase is not Phase.DONE:
            contender.proposer, effect = contender.proposer.start_classic()
            self.obey(number, effect)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), heard=st.sets(st.sampled_from(POOL)), newest=st.booleans())
    def deliver(self, data: st.DataObject, heard: set[str], *, newest: bool) -> None:
        """Any message ever sent reaches some of its acceptors, in any order; some of their answers come back."""
        sent = self.sent[-1] if newest else data.draw(st.sampled_from(self.sent))
        acceptors = sent.message.instance.config.acceptors
        for node_id in data.draw(st.lists(st.sampled_from(acceptors), unique=True)):
            reply = self.take(node_id, sent.message)
            self.answers.append((sent, node_id, reply))
            if node_id in heard:
                self.hear(sent, node_id, reply)

    def take(self, node_id: str, message: Message) -> Reply:
        reply = self.nodes[node_id].take(node_id, message)
        if isinstance(message, Accept) and isinstance(reply, Accepted):
            self.votes.add((message.instance.epoch, message.ballot, message.value, node_id))
        assert node_id not in self.retired or reply == Retired()
        return reply

    def hear(self, sent: Sent, node_id: str, reply: Reply | None) -> None:
        contender = self.contenders[sent.contender]
        if sent.life == contender.life:
            contender.proposer, effect = contender.proposer.receive(node_id, reply)
            self.obey(sent.contender, effect)

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), lost=st.booleans())
    def late_answer(self, data: st.DataObject, *, lost: bool) -> None:
        """An old answer arrives, again or at last; or its sender gives up waiting for it."""
        sent, node_id, reply = data.draw(st.sampled_from(self.answers))
        self.hear(sent, node_id, None if lost else reply)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def learn(self, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.claimed)))
        acceptors = self.instances[epoch].config.acceptors
        self.tell(self.instances[epoch], data.draw(st.lists(st.sampled_from(acceptors), unique=True)))

    def tell(self, instance: Instance, node_ids: Iterable[str]) -> None:
        for node_id in node_ids:
            self.take(node_id, Learn(instance, self.claimed[instance.epoch]))

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        """The chunk is deleted, by whoever still believes in an old epoch, too. Rare: one node at a time."""
        instance = data.draw(st.sampled_from(self.instances))
        node_id = data.draw(st.sampled_from(instance.config.acceptors))
        if data.draw(st.integers(0, 9)) == 0:
            assert self.take(node_id, Retire(instance)) == Retired()
            self.retired.add(node_id)

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def one_value_per_epoch(self) -> None:
        for instance in self.instances:
            chosen = self.chosen(instance.epoch)
            assert len(chosen) <= 1, f"{chosen} are both chosen in epoch {instance.epoch}"
            assert chosen <= set(WISHES)

    @invariant()
    def an_epoch_follows_a_decided_one(self) -> None:
        for epoch in range(1, len(self.instances)):
            assert self.chosen(epoch - 1) == {self.claimed[epoch - 1]}

    @invariant()
    def states_say_what_happened(self) -> None:
        for node_id, node in self.nodes.items():
            for epoch, state in node.states.items():
                assert state.accepted_ballot <= state.promised
                if state.learned:
                    assert self.chosen(epoch) == {state.accepted_value}
                elif state.accepted_ballot != NO_BALLOT:
                    assert state.accepted_value is not None
                    assert (epoch, state.accepted_ballot, state.accepted_value, node_id) in self.votes

    @invariant()
    def a_rebuild_never_names_another_value(self) -> None:
        """Also where some nodes are missing: states of any subset prove the chosen value or nothing."""
        for instance in self.instances:
            states = {
                node_id: self.nodes[node_id].states[instance.epoch]
                for node_id in instance.config.acceptors
                if instance.epoch in self.nodes[node_id].states
            }
            for left_out in [None, *states]:
                answered = {node_id: state for node_id, state in states.items() if node_id != left_out}
                proven = chosen_value(answered, instance.config)
                assert proven is None or {proven} == self.chosen(instance.epoch)


ChunkLife.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestChunkLife = ChunkLife.TestCase


@pytest.mark.slow
def test_many_lives_of_a_chunk() -> None:
    run_state_machine_as_test(ChunkLife, settings=settings(max_examples=500, stateful_step_count=50))


def test_a_node_that_looks_up_only_the_epoch_itself_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `governing`, a late message reopens an epoch that was closed and dropped."""

    def own(states: Iterable[AcceptorState], epoch: int) -> AcceptorState | None:
        return next((state for state in states if state.instance.epoch == epoch), None)

    monkeypatch.setitem(StorageNode.take.__globals__, "governing", own)
    hunting = settings(max_examples=2000, stateful_step_count=30, derandomize=True, phases=[HypothesisPhase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ChunkLife, settings=hunting)
