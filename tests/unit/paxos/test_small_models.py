"""Every interleaving of small instances, and proof that the checker sees: each mutant of the protocol is caught."""

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from tests.unit.paxos.small_model import Actor, Scenario, Violation, explore
from vstack.core.paxos import acceptor, proposer
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import FAST_BALLOT, NO_BALLOT, Config
from vstack.core.paxos.messages import Accepted, Learned, Promise, Rejected, Reply
from vstack.core.paxos.proposer import Proposer, Step


def writer(value: bytes, *, hears: bool = False) -> Actor:
    """One who proposes at ballot 0."""
    return Actor(value, fast=True, deaf=not hears)


def recoverer(value: bytes, **plan: int) -> Actor:
    """One who runs classic rounds, and hears only promises."""
    return Actor(value, deaf=True, **{"classic": 1, **plan})


def listener(value: bytes, *, classic: int = 1, **plan: int) -> Actor:
    """One who runs classic rounds and hears everything."""
    return Actor(value, classic=classic, **plan)


WRITERS = (writer(b"v"), writer(b"w"))
RECOVERERS = (recoverer(b"x"), recoverer(b"y"))
RESTARTING = Actor(b"x", classic=1, restarts=1, later=b"y")

QUICK = {
    "one acceptor": Scenario(1, (writer(b"v", hears=True), writer(b"w", hears=True), listener(b"x"), listener(b"y"))),
    "3: two writers that hear": Scenario(3, (writer(b"v", hears=True), writer(b"w", hears=True))),
    "3: two writers, a recoverer": Scenario(3, (*WRITERS, listener(b"x"))),
    "3: two writers, two recoverers": Scenario(3, (*WRITERS, *RECOVERERS), learning=False),
    "3: two writers, a recoverer that restarts": Scenario(3, (*WRITERS, RESTARTING), late_answers=False),
    "3: a writer, two recoverers with one id": Scenario(
        3, (writer(b"v"), *(replace(actor, proposer_id=7) for actor in RECOVERERS)), learning=False
    ),
    "5: two writers, a recoverer": Scenario(5, (*WRITERS, recoverer(b"x")), late_answers=False, learning=False),
}
SLOW = {
    "3: a writer that hears, a recoverer": Scenario(
        3, (writer(b"v", hears=True), writer(b"w"), listener(b"x")), refusals=False
    ),
    "3: two recoverers that hear": Scenario(3, (*WRITERS, listener(b"x"), listener(b"y")), late_answers=False),
    "3: two rounds each": Scenario(
        3, (*WRITERS, recoverer(b"x", classic=2), recoverer(b"y", classic=2)), late_answers=False, learning=False
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
@pytest.mark.parametrize("scenario", SLOW.values(), ids=SLOW.keys())
def test_every_interleaving_of_larger_models_is_safe(scenario: Scenario) -> None:
    assert explore(scenario) > 10_000
