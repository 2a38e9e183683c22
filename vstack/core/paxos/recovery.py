"""Reading a decision off the durable states of acceptors, without a message: for a rebuild and for `GET /consensus`.

Each state is a fact about the past ("this acceptor accepted v at ballot b"), so states read at different moments prove
as much as a snapshot. What they cannot prove may be chosen all the same: an acceptor that did not answer, or one whose
earlier vote was overwritten in a later round, hides it. Then a classic round decides; it finds what was chosen.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import FAST_BALLOT, NO_BALLOT, Config

Stage = Literal["none", "prepare", "accept", "committed"]


def chosen_value(states: Mapping[str, AcceptorState], config: Config) -> bytes | None:
    """The value that the states of one instance, by acceptor, prove chosen.

    Proof is a learned value, a fast quorum at the fast ballot, or a classic quorum at one classic ballot. States begun
    with another config, or of a node that is no acceptor, do not count. A retired chunk has no value: None.
    """
    voices = [state for node, state in states.items() if node in config.acceptors and state.instance.config == config]
    if any(state.retired for state in voices):
        return None
    for state in voices:
        if state.learned:
            return state.accepted_value
    votes = Counter((state.accepted_ballot, state.accepted_value) for state in voices)
    for (ballot, value), count in votes.items():
        needed = config.fast_quorum if ballot == FAST_BALLOT else config.classic_quorum
        if ballot != NO_BALLOT and count >= needed:
            return value
    return None


def stage(states: Iterable[AcceptorState]) -> Stage:
    """How far an instance has come by what these states say. "accept" may be chosen already, unproven."""
    known = list(states)
    if any(state.learned for state in known):
        return "committed"
    if any(state.accepted_ballot != NO_BALLOT for state in known):
        return "accept"
    return "prepare" if any(state.promised != NO_BALLOT for state in known) else "none"
