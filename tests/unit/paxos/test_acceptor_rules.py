"""The acceptor's rules one by one, and what the states of several prove."""

import pytest

from vstack.core.paxos.acceptor import AcceptorState, closes, governing, step
from vstack.core.paxos.config import MAX_ROUND, Config, acceptor_count, ballot, round_of
from vstack.core.paxos.messages import (
    Accept,
    Accepted,
    Instance,
    Learn,
    Learned,
    Message,
    Mismatch,
    Prepare,
    Promise,
    Rejected,
    Reply,
    Retire,
    Retired,
)
from vstack.core.paxos.recovery import chosen_value, stage

NODES = ("n0", "n1", "n2", "n3", "n4")
CONFIG = Config(1, NODES)
IT = Instance("chunk", 0, CONFIG)
NEXT = Instance("chunk", 1, CONFIG)
B1, B2 = ballot(1, 0), ballot(2, 0)


def after(*messages: Message, node: str = "n0") -> tuple[AcceptorState | None, Reply]:
    """The state and the last reply after these messages, in order."""
    state: AcceptorState | None = None
    reply: Reply = Retired()
    for message in messages:
        state, reply = step(node, state, message)
    return state, reply


def state(*messages: Message) -> AcceptorState:
    reached, _ = after(*messages)
    assert reached is not None
    return reached


@pytest.mark.parametrize(
    ("messages", "reply"),
    [
        ([Prepare(IT, B1)], Promise(B1, -1, None)),
        ([Accept(IT, 0, b"v"), Prepare(IT, B1)], Promise(B1, 0, b"v")),
        ([Accept(IT, B1, b"v"), Prepare(IT, B2)], Promise(B2, B1, b"v")),
        ([Prepare(IT, B1), Prepare(IT, B1)], Rejected(B1, -1, None)),
        ([Prepare(IT, 0)], Rejected(-1, -1, None)),
        ([Prepare(IT, -1)], Rejected(-1, -1, None)),
        ([Accept(IT, -1, b"v")], Rejected(-1, -1, None)),
        ([Accept(IT, 0, b"v")], Accepted(0)),
        ([Accept(IT, 0, b"v"), Accept(IT, 0, b"v")], Accepted(0)),
        ([Accept(IT, 0, b"v"), Accept(IT, 0, b"w")], Rejected(0, 0, b"v")),
        ([Prepare(IT, B1), Accept(IT, 0, b"v")], Rejected(B1, -1, None)),
        ([Prepare(IT, B2), Accept(IT, B1, b"v")], Rejected(B2, -1, None)),
        ([Prepare(IT, B1), Accept(IT, B1, b"v"), Accept(IT, B1, b"v")], Accepted(B1)),
        ([Accept(IT, B1, b"v"), Accept(IT, B1, b"w")], Rejected(B1, B1, b"v")),
        ([Learn(IT, b"v")], Learned(b"v")),
        ([Learn(IT, b"v"), Learn(IT, b"v")], Learned(b"v")),
        ([Learn(IT, b"v"), Prepare(IT, B1)], Learned(b"v")),
        ([Learn(IT, b"v"), Accept(IT, B1, b"w")], Learned(b"v")),
        ([Retire(IT)], Retired()),
        ([Retire(IT), Prepare(IT, B1)], Retired()),
        ([Retire(IT), Learn(IT, b"v")], Retired()),
        ([Retire(IT), Accept(NEXT, 0, b"v")], Retired()),
        ([Learn(NEXT, b"v"), Accept(IT, 0, b"w")], Retired()),
        ([Learn(NEXT, b"v"), Learn(IT, b"w")], Retired()),
        ([Learn(NEXT, b"v"), Retire(IT), Prepare(NEXT, B1)], Retired()),
    ],
)
def test_the_answer_to_the_last_of(messages: list[Message], reply: Reply) -> None:
    assert after(*messages)[1] == reply


@pytest.mark.parametrize(
    "messages",
    [
        [Accept(IT, 0, b"v"), Prepare(Instance("chunk", 0, Config(2, NODES)), B1)],
        [Accept(IT, 0, b"v"), Retire(Instance("chunk", 0, Config(1, NODES[::-1])))],
        [Learn(IT, b"v"), Learn(IT, b"w")],
    ],
)
def test_what_contradicts_the_state_is_a_mismatch_and_changes_nothing(messages: list[Message]) -> None:
    reached, reply = after(*messages)
    assert isinstance(reply, Mismatch)
    assert reached == state(*messages[:-1])


def test_a_node_that_is_no_acceptor_keeps_nothing() -> None:
    reached, reply = after(Accept(IT, 0, b"v"), node="n9")
    assert isinstance(reply, Mismatch)
    assert reached is None


@pytest.mark.parametrize("message", [Prepare(IT, B1), Accept(IT, 0, b"w"), Accept(IT, B1, b"v"), Prepare(IT, B2)])
def test_a_reply_without_a_change_needs_no_write(message: Message) -> None:
    """The caller recognises it by the object."""
    kept = state(Prepare(IT, B2), Accept(IT, B2, b"v"))
    assert step("n0", kept, message)[0] is kept


def test_a_learned_value_has_a_ballot_only_if_it_was_accepted() -> None:
    assert state(Accept(IT, 0, b"v"), Learn(IT, b"v")).accepted_ballot == 0
    assert state(Accept(IT, 0, b"w"), Learn(IT, b"v")).accepted_ballot == -1


def test_what_closes_an_epoch_answers_for_it() -> None:
    old, learned, retired = state(Accept(IT, 0, b"v")), state(Learn(NEXT, b"w")), state(Retire(IT))
    unlearned = state(Accept(NEXT, 0, b"w"))
    assert governing([], 0) is None
    assert governing([old, unlearned], 0) is old
    assert governing([old, unlearned], 1) is unlearned
    assert governing([learned], 0) is learned
    assert governing([old, learned], 0) is learned
    assert governing([learned], 2) is None
    assert governing([learned, retired], 2) is retired
    assert not closes(unlearned, 0)
    assert not closes(learned, 1)


def test_a_classic_round_proves_nothing_below_a_majority_and_a_fast_one_below_its_quorum() -> None:
    fast, classic, other = state(Accept(IT, 0, b"v")), state(Accept(IT, B1, b"v")), state(Accept(IT, 0, b"w"))
    assert chosen_value(dict.fromkeys(NODES[:3], fast), CONFIG) is None
    assert chosen_value(dict.fromkeys(NODES[:4], fast) | {"n4": other}, CONFIG) == b"v"
    assert chosen_value(dict.fromkeys(NODES[:2], classic), CONFIG) is None
    assert chosen_value(dict.fromkeys(NODES[:3], classic), CONFIG) == b"v"
    assert chosen_value({"n0": classic, "n1": state(Accept(IT, B2, b"v")), "n2": fast, "n3": fast}, CONFIG) is None
    assert chosen_value({**dict.fromkeys(NODES[:3], fast), "stranger": fast}, CONFIG) is None
    assert chosen_value({"n0": state(Learn(IT, b"v")), "n1": other}, CONFIG) == b"v"
    assert chosen_value({**dict.fromkeys(NODES[:4], fast), "n4": state(Retire(IT))}, CONFIG) is None
    assert chosen_value(dict.fromkeys(NODES, fast), Config(2, NODES)) is None
    assert chosen_value(dict.fromkeys(NODES, state(Prepare(IT, B1))), CONFIG) is None


def test_how_far_an_instance_has_come() -> None:
    assert stage([]) == "none"
    assert stage([state(Prepare(IT, B1))]) == "prepare"
    assert stage([state(Prepare(IT, B1)), state(Accept(IT, 0, b"v"))]) == "accept"
    assert stage([state(Learn(IT, b"v"))]) == "committed"


@pytest.mark.parametrize(("nodes", "count"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (50, 5)])
def test_acceptors_for_a_node_set(nodes: int, count: int) -> None:
    assert acceptor_count(nodes) == count


@pytest.mark.parametrize("count", [1, 3, 5])
def test_quorums_intersect_as_fast_paxos_demands(count: int) -> None:
    config = Config(1, NODES[:count])
    assert 2 * config.classic_quorum > count
    assert config.classic_quorum + 2 * config.fast_quorum > 2 * count


@pytest.mark.parametrize("acceptors", [(), ("a", "b"), ("a", "b", "a"), ("a", "b", "c", "d")])
def test_other_acceptor_sets_are_refused(acceptors: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        Config(1, acceptors)


def test_ballots_are_ordered_by_round_and_exact_in_json() -> None:
    assert ballot(1, 65_535) < ballot(2, 0) < 2**53
    assert ballot(MAX_ROUND - 1, 65_535) < 2**53
    assert [round_of(number) for number in (-1, 0, ballot(1, 65_535), ballot(7, 3))] == [0, 0, 1, 7]
    for round_number, proposer_id in [(0, 1), (MAX_ROUND, 0), (1, -1), (1, 65_536)]:
        with pytest.raises(ValueError):
            ballot(round_number, proposer_id)
