"""Every interleaving of small instances, and proof that the checker sees: each mutant of the protocol is caught."""

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from tests.unit.paxos.small_model import Actor, Scenario, ViolationError, explore
from vstack.core.paxos import acceptor, proposer
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import FAST_BALLOT, NO_BALLOT, Config
from vstack.core.paxos.messages import Accepted, Learned, Message, Promise, Reply
from vstack.core.paxos.proposer import Proposer, Step


def writer(value: bytes, *, hears: bool = False) -> Actor:
    """One who proposes at ballot 0."""
    return Actor(value, fast=True, deaf=not hears)


def recoverer(value: bytes, classic: int = 1, proposer_id: int | None = None) -> Actor:
    """One who runs classic rounds, and hears only promises."""
    return Actor(value, classic=classic, deaf=True, proposer_id=proposer_id)


def listener(value: bytes) -> Actor:
    """One who runs a classic round and hears everything."""
    return Actor(value, classic=1)


WRITERS = (writer(b"v"), writer(b"w"))
RECOVERERS = (recoverer(b"x"), recoverer(b"y"))
RESTARTING = Actor(b"x", classic=1, restarts=1, later=b"y")

QUICK = {
    "1: a writer that hears, two recoverers": Scenario(1, (writer(b"v", hears=True), *RECOVERERS)),
    "3: two writers that hear": Scenario(3, (writer(b"v", hears=True), writer(b"w", hears=True))),
    "3: a writer that hears, a recoverer": Scenario(
        3, (writer(b"v", hears=True), writer(b"w"), listener(b"x")), refusals=False
    ),
    "3: two writers, a recoverer": Scenario(3, (*WRITERS, listener(b"x"))),
    "3: two writers, two recoverers": Scenario(3, (*WRITERS, *RECOVERERS), learning=False),
    "3: a writer, a recoverer that restarts": Scenario(3, (writer(b"v"), RESTARTING), late_answers=False),
    "3: a writer, two recoverers with one id": Scenario(
        3, (writer(b"v"), recoverer(b"x", proposer_id=7), recoverer(b"y", proposer_id=7)), learning=False
    ),
    "5: two writers, a recoverer": Scenario(5, (*WRITERS, recoverer(b"x")), late_answers=False, learning=False),
}
SLOW = {
    "3: two writers, a recoverer that restarts": Scenario(3, (*WRITERS, RESTARTING), late_answers=False),
    "3: a recoverer that hears, another": Scenario(
        3, (*WRITERS, listener(b"x"), recoverer(b"y")), late_answers=False, refusals=False
    ),
    "3: two rounds and one": Scenario(
        3, (*WRITERS, recoverer(b"x", 2), recoverer(b"y")), late_answers=False, learning=False
    ),
    "3: two recoverers that restart": Scenario(
        3, (*WRITERS, replace(RESTARTING, deaf=True), recoverer(b"z")), learning=False
    ),
    "5: two writers, two recoverers": Scenario(5, (*WRITERS, *RECOVERERS), late_answers=False, learning=False),
}


@pytest.mark.parametrize("scenario", QUICK.values(), ids=QUICK.keys())
def test_every_interleaving_is_safe(scenario: Scenario) -> None:
    assert explore(scenario) > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SLOW.values(), ids=SLOW.keys())
def test_every_interleaving_of_larger_models_is_safe(scenario: Scenario) -> None:
    assert explore(scenario) > 10_000


# -- mutants: one rule broken at a time ---------------------------------------------------------------------------


def fast_quorum_of(size: int) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(Config, "fast_quorum", property(lambda _: size))


def majority_owns_ballot_zero(patch: pytest.MonkeyPatch) -> None:
    """Ballot 0 is taken for a classic one, though it has two owners: a majority chooses, any reported value binds."""

    def highest(config: Config, promises: Collection[Promise], own: bytes) -> bytes:
        best = max(promises, key=lambda promise: promise.accepted_ballot)
        return own if best.accepted_value is None else best.accepted_value

    patch.setattr(Config, "fast_quorum", Config.classic_quorum)
    patch.setattr(proposer, "value_to_propose", highest)


def classic_quorum_too_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Config, "classic_quorum", property(lambda config: len(config.acceptors) // 2))


def ignores_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(proposer, "value_to_propose", lambda _config, _promises, own: own)


def takes_the_lowest(patch: pytest.MonkeyPatch) -> None:
    """The value of the lowest ballot instead of the highest."""

    def lowest(config: Config, promises: Collection[Promise], own: bytes) -> bytes:
        voted = [promise for promise in promises if promise.accepted_value is not None]
        return min(voted, key=lambda promise: promise.accepted_ballot).accepted_value or own if voted else own

    patch.setattr(proposer, "value_to_propose", lowest)


def threshold_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """Recovery wants one vote more than F + Q - N before a fast value binds it."""
    real = proposer.value_to_propose

    def demanding(config: Config, promises: Collection[Promise], own: bytes) -> bytes:
        value = real(config, promises, own)
        highest = max(promise.accepted_ballot for promise in promises)
        votes = sum(promise.accepted_value == value for promise in promises)
        needed = config.fast_quorum + len(promises) - len(config.acceptors) + 1
        return own if highest == FAST_BALLOT and votes < needed else value

    patch.setattr(proposer, "value_to_propose", demanding)


def counts_any_ballot(patch: pytest.MonkeyPatch) -> None:
    """The proposer takes answers to its earlier rounds for answers to this one."""
    real = proposer._grant
    patch.setattr(proposer, "_grant", lambda after, node, reply: real(after, node, replace(reply, ballot=after.ballot)))


def believes_one_acceptance(patch: pytest.MonkeyPatch) -> None:
    real = Proposer.receive

    def receive(self: Proposer, node: str, reply: Reply | None) -> Step:
        if isinstance(reply, Accepted) and self.value is not None:
            return replace(self, phase=proposer.Phase.DONE), proposer.Chosen(self.value)
        return real(self, node, reply)

    patch.setattr(Proposer, "receive", receive)


def promises_twice(patch: pytest.MonkeyPatch) -> None:
    """A ballot that is promised already is promised again."""

    def prepare(state: AcceptorState, ballot: int) -> tuple[AcceptorState, Reply]:
        if ballot < state.promised:
            return state, acceptor._rejection(state)
        return replace(state, promised=ballot), Promise(ballot, state.accepted_ballot, state.accepted_value)

    patch.setattr(acceptor, "_prepare", prepare)


def promises_in_silence(patch: pytest.MonkeyPatch) -> None:
    """A promise does not say what was accepted."""
    real = acceptor._prepare

    def prepare(state: AcceptorState, ballot: int) -> tuple[AcceptorState, Reply]:
        after, reply = real(state, ballot)
        return after, Promise(ballot, NO_BALLOT, None) if isinstance(reply, Promise) else reply

    patch.setattr(acceptor, "_prepare", prepare)


def promise_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    """What is accepted is not below what was accepted, but may be below what was promised."""

    def accept(state: AcceptorState, ballot: int, value: bytes) -> tuple[AcceptorState, Reply]:
        if ballot < state.accepted_ballot or (ballot == state.accepted_ballot and value != state.accepted_value):
            return state, acceptor._rejection(state)
        promised = max(ballot, state.promised)
        return replace(state, promised=promised, accepted_ballot=ballot, accepted_value=value), Accepted(ballot)

    patch.setattr(acceptor, "_accept", accept)


def takes_a_second_fast_value(patch: pytest.MonkeyPatch) -> None:
    real = acceptor._accept

    def accept(state: AcceptorState, ballot: int, value: bytes) -> tuple[AcceptorState, Reply]:
        if ballot == FAST_BALLOT == state.promised:
            return replace(state, accepted_ballot=ballot, accepted_value=value), Accepted(ballot)
        return real(state, ballot, value)

    patch.setattr(acceptor, "_accept", accept)


def takes_a_fast_value_after_a_promise(patch: pytest.MonkeyPatch) -> None:
    real = acceptor._accept

    def accept(state: AcceptorState, ballot: int, value: bytes) -> tuple[AcceptorState, Reply]:
        if ballot == FAST_BALLOT and state.accepted_ballot == NO_BALLOT:
            return replace(state, accepted_ballot=ballot, accepted_value=value), Accepted(ballot)
        return real(state, ballot, value)

    patch.setattr(acceptor, "_accept", accept)


def claims_what_is_not_chosen(patch: pytest.MonkeyPatch) -> None:
    """An acceptor answers with its own acceptance as if it had learned it."""
    real = acceptor._prepare

    def prepare(state: AcceptorState, ballot: int) -> tuple[AcceptorState, Reply]:
        after, reply = real(state, ballot)
        return after, reply if after.accepted_value is None else Learned(after.accepted_value)

    patch.setattr(acceptor, "_prepare", prepare)


def learns_anew(patch: pytest.MonkeyPatch) -> None:
    """A learned value is replaced by the first one that is accepted after it."""
    real = acceptor.step

    def step(node: str, state: AcceptorState | None, message: Message) -> tuple[AcceptorState | None, Reply]:
        return real(node, replace(state, learned=False) if state else None, message)

    patch.setattr(acceptor, "step", step)


def nothing(_patch: pytest.MonkeyPatch) -> None:
    """The scenario itself breaks the rule."""


def forgets_promises(state: AcceptorState | None) -> AcceptorState | None:
    return state and replace(state, promised=state.accepted_ballot)


def forgets_acceptances(state: AcceptorState | None) -> AcceptorState | None:
    return state and replace(state, accepted_ballot=NO_BALLOT, accepted_value=None, learned=False)


RACE_3 = Scenario(3, (*WRITERS, *RECOVERERS), late_answers=False, learning=False)
RACE_5 = Scenario(5, (*WRITERS, recoverer(b"x")), late_answers=False, learning=False)
HEARD_3 = Scenario(3, (*WRITERS, listener(b"x")), late_answers=False)
ROUNDS_3 = Scenario(3, (writer(b"v"), recoverer(b"x", 2)), learning=False)
DUEL_3 = Scenario(3, (recoverer(b"x"), recoverer(b"y"), recoverer(b"z")), learning=False)
SAME_ID_3 = Scenario(
    3, (recoverer(b"x", proposer_id=7), recoverer(b"y", proposer_id=7), recoverer(b"z", proposer_id=8)), learning=False
)
RESTARTS_3 = Scenario(3, (replace(RESTARTING, deaf=True), recoverer(b"z")), learning=False)

MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Scenario, str]] = {
    "a majority owns ballot 0 (of 3)": (majority_owns_ballot_zero, RACE_3, "agreement"),
    "a majority owns ballot 0 (of 5)": (majority_owns_ballot_zero, RACE_5, "agreement"),
    "N=3 F=2": (fast_quorum_of(2), RACE_3, "agreement"),
    "N=5 F=3": (fast_quorum_of(3), RACE_5, "agreement"),
    "a classic quorum below a majority": (classic_quorum_too_small, RACE_5, "agreement|honesty"),
    "an acceptor forgets all": (nothing, replace(RACE_3, recover=lambda _: None), "agreement"),
    "an acceptor forgets promises": (nothing, replace(RACE_3, recover=forgets_promises), "agreement"),
    "an acceptor forgets acceptances": (nothing, replace(RACE_3, recover=forgets_acceptances), "agreement"),
    "a proposer ignores an accepted value (3)": (ignores_accepted, RACE_3, "agreement"),
    "a proposer ignores an accepted value (5)": (ignores_accepted, RACE_5, "agreement"),
    "a proposer takes the lowest ballot's value": (takes_the_lowest, RACE_3, "agreement"),
    "recovery threshold off by one (3)": (threshold_off_by_one, RACE_3, "agreement"),
    "recovery threshold off by one (5)": (threshold_off_by_one, RACE_5, "agreement"),
    "a proposer counts answers to earlier rounds": (counts_any_ballot, ROUNDS_3, "agreement"),
    "a proposer believes one acceptance": (believes_one_acceptance, HEARD_3, "honesty"),
    "promises not strict, one id shared": (promises_twice, SAME_ID_3, "agreement"),
    "promises not strict, a proposer restarts": (promises_twice, RESTARTS_3, "agreement"),
    "promises hide what was accepted": (promises_in_silence, RACE_3, "agreement"),
    "acceptance below a promise": (promise_is_not_kept, DUEL_3, "agreement"),
    "a second value at ballot 0": (takes_a_second_fast_value, RACE_3, "agreement"),
    "a value at ballot 0 after a promise": (takes_a_fast_value_after_a_promise, RACE_3, "agreement"),
    "Learned for what is not chosen": (claims_what_is_not_chosen, HEARD_3, "honesty"),
    "a learned value changes": (learns_anew, HEARD_3, "promises"),
}


@pytest.mark.parametrize(("mutate", "scenario", "broken"), MUTANTS.values(), ids=MUTANTS.keys())
def test_every_mutant_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None], scenario: Scenario, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises(ViolationError, match=rf"^({broken}):"):
        explore(scenario)


@pytest.mark.parametrize("scenario", [ROUNDS_3, DUEL_3, SAME_ID_3, RESTARTS_3])
def test_the_other_scenarios_of_the_mutants_are_safe_without_them(scenario: Scenario) -> None:
    explore(scenario)
