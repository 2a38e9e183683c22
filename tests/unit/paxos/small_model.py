"""Exhaustive checking of small ChunkPaxos instances, breadth first, on the product's own `step` and `Proposer`.

The network is a set that only grows: whatever was sent may arrive never (loss), at any later time (reordering) and any
number of times (duplication). Proposers may begin another round whenever they like (a deadline passed) and restart with
the same id and round counter but another wish; acceptors may crash at any time and come back with what is durable.

An observer keeps every vote ever cast, and so knows what is chosen independently of both roles: by a fast quorum at
ballot 0, or by a classic quorum at one classic ballot. `explore` raises `ViolationError`, with the steps to it, if
  agreement   two values are chosen
  honesty     a proposer says `Chosen` of a value that is not
  promises    an acceptor's promise sinks, or a learned value changes
  validity    a value is chosen that nobody proposed

Acceptors are alike, so states that differ only in their names are one state: they are sorted into a canonical order.
All records are interned and each distinct call of the product is made once, so most of the work is on small integers.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from vstack.core.paxos import acceptor
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import FAST_BALLOT, NO_BALLOT, Config
from vstack.core.paxos.messages import Accept, Accepted, Instance, Learn, Message, Promise, Rejected, Reply
from vstack.core.paxos.proposer import Broadcast, Chosen, Effect, Phase, Proposer

T = TypeVar("T", bound=Hashable)
Vote = tuple[int, bytes]


class ViolationError(AssertionError):
    """A property does not hold; the message ends with the shortest sequence of steps that shows it."""


@dataclass(frozen=True)
class Actor:
    """A proposer of the scenario.

    It begins with a fast round where `fast`, and may begin `classic` rounds of its own and restart `restarts` times,
    then wishing for `later` (None: the same value). A `deaf` one hears promises only: it
    never knows how its last phase ended.
    """

    value: bytes
    fast: bool = False
    classic: int = 0
    restarts: int = 0
    deaf: bool = False
    later: bytes | None = None
    proposer_id: int | None = None


@dataclass(frozen=True)
class Scenario:
    """`refusals` and `learning`: whether proposers hear rejections, and tell acceptors what was chosen.

    `late_answers`: whether an answer may arrive at any later time, also after its round. Otherwise it arrives at once
    or never, which loses no outcome of a driver that hears only answers to its last message: a proposer that hears a
    quorum later does no more than one whose next message travels longer.
    """

    acceptors: int
    actors: tuple[Actor, ...]
    refusals: bool = True
    learning: bool = True
    late_answers: bool = True
    recover: Callable[[AcceptorState | None], AcceptorState | None] = field(default=lambda state: state)


@dataclass(frozen=True)
class _Driver:
    """A proposer with what it may still do. `life` counts restarts: answers to an earlier life do not reach it."""

    proposer: Proposer
    life: int
    classic: int


@dataclass(frozen=True)
class _Column:
    """An acceptor and all votes that it ever cast."""

    state: AcceptorState | None
    votes: frozenset[Vote]


@dataclass(frozen=True)
class _Sent:
    actor: int
    life: int
    message: Message


@dataclass(frozen=True)
class _Answer:
    actor: int
    life: int
    reply: Reply


class _Interned(Generic[T]):
    """Numbers for values, so that states are tuples of small integers."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self.values: list[T] = []

    def number(self, value: T) -> int:
        if value not in self._numbers:
            self._numbers[value] = len(self.values)
            self.values.append(value)
        return self._numbers[value]


Columns = tuple[tuple[int, int], ...]
State = tuple[int, tuple[int, ...], Columns]
"""(messages sent, as bits; driver numbers; per acceptor its column number and its answers under way, as bits)."""


class Explorer:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._names = tuple(f"a{number}" for number in range(scenario.acceptors))
        self._instance = Instance("chunk", 0, Config(1, self._names))
        self._drivers: _Interned[_Driver] = _Interned()
        self._columns: _Interned[_Column] = _Interned()
        self._sent: _Interned[_Sent] = _Interned()
        self._answers: _Interned[_Answer] = _Interned()
        self._views: _Interned[Hashable] = _Interned()
        self._memo: dict[tuple[object, ...], tuple[int, ...]] = {}
        self._chosen_memo: dict[tuple[int, ...], frozenset[bytes]] = {}
        wishes = [(actor.value, actor.later) for actor in scenario.actors]
        self._wishes = {wish for pair in wishes for wish in pair if wish is not None}

    def explore(self, limit: int = 10_000_000) -> int:
        """Visit every reachable state; return how many there are. More than `limit` is an error: not exhaustive."""
        first = self._first()
        parents: dict[State, tuple[State, str] | None] = {first: None}
        queue = deque([first])
        while queue:
            state = queue.popleft()
            try:
                for action, after in self._successors(state):
                    if after not in parents:
                        parents[after] = (state, action)
                        queue.append(after)
            except ViolationError as violation:
                raise ViolationError(f"{violation}\n{self._trace(parents, state)}") from None
            assert len(parents) <= limit, "the scenario has more states than its limit"
        return len(parents)

    # -- the transitions ------------------------------------------------------------------------------------------

    def _first(self) -> State:
        sent, drivers = 0, []
        for number, actor in enumerate(self._scenario.actors):
            proposer = Proposer(self._instance, actor.value, self._proposer_id(number))
            if actor.fast:
                proposer, effect = proposer.start_fast()
                sent |= self._send(number, 0, effect)
            drivers.append(self._drivers.number(_Driver(proposer, 0, actor.classic)))
        nothing = (self._columns.number(_Column(None, frozenset())), 0)
        return self._canonical(sent, tuple(drivers), (nothing,) * len(self._names))

    def _successors(self, state: State) -> Iterator[tuple[str, State]]:
        sent, drivers, columns = state
        for index, (column, answers) in enumerate(columns):
            if (column, answers) in columns[:index] and self._alike(drivers, index, columns):
                continue
            for number in _bits(sent):
                yield from self._takes(state, index, number)
            recovered = self._crash(column)
            if recovered != column:
                changed = (*columns[:index], (recovered, answers), *columns[index + 1 :])
                yield f"{self._names[index]} crashes", self._canonical(sent, drivers, changed)
            for number in _bits(answers):
                yield from self._hears(sent, drivers, columns, index, number)
        for actor, driver in enumerate(drivers):
            for action, after, message in self._moves(actor, driver):
                moved = (*drivers[:actor], after, *drivers[actor + 1 :])
                more = sent | 1 << message if message >= 0 else sent
                yield f"proposer {actor} {action}", self._canonical(more, moved, columns)

    def _takes(self, state: State, index: int, number: int) -> Iterator[tuple[str, State]]:
        """An acceptor takes a message."""
        sent, drivers, columns = state
        column, answers = columns[index]
        after, answer = self._deliver(index, column, number)
        late = answers | 1 << answer if answer >= 0 and self._scenario.late_answers else answers
        changed = (*columns[:index], (after, late), *columns[index + 1 :])
        if after != column:
            self._check(changed)
        if (after, late) != (column, answers):
            action = f"{self._names[index]} takes {self._sent.values[number]}"
            yield action, self._canonical(sent, drivers, changed)
        if answer >= 0 and not self._scenario.late_answers:
            yield from self._hears(sent, drivers, changed, index, answer)

    def _hears(
        self, sent: int, drivers: tuple[int, ...], columns: Columns, index: int, number: int
    ) -> Iterator[tuple[str, State]]:
        """A proposer hears an answer."""
        answer = self._answers.values[number]
        after, message = self._receive(drivers[answer.actor], index, number, columns)
        if after != drivers[answer.actor]:
            moved = (*drivers[: answer.actor], after, *drivers[answer.actor + 1 :])
            more = sent | 1 << message if message >= 0 else sent
            action = f"proposer {answer.actor} hears {answer.reply} of {self._names[index]}"
            yield action, self._canonical(more, moved, columns)

    def _deliver(self, index: int, column: int, number: int) -> tuple[int, ...]:
        """(column after, answer or -1) of an acceptor that takes a message."""
        key = ("deliver", column, number)
        if key not in self._memo:
            before, sent = self._columns.values[column], self._sent.values[number]
            after, reply = acceptor.step(self._names[index], before.state, sent.message)
            _check_promises(before.state, after)
            votes = before.votes
            if isinstance(reply, Accepted) and isinstance(sent.message, Accept):
                votes = votes | {(sent.message.ballot, sent.message.value)}
            deaf = self._scenario.actors[sent.actor].deaf and not isinstance(reply, Promise)
            refused = isinstance(reply, Rejected) and not self._scenario.refusals
            unheard = isinstance(sent.message, Learn) or deaf or refused
            answer = -1 if unheard else self._answers.number(_Answer(sent.actor, sent.life, reply))
            self._memo[key] = (self._columns.number(_Column(after, votes)), answer)
        return self._memo[key]

    def _crash(self, column: int) -> int:
        key = ("crash", column)
        if key not in self._memo:
            before = self._columns.values[column]
            recovered = replace(before, state=self._scenario.recover(before.state))
            self._memo[key] = (self._columns.number(recovered),)
        return self._memo[key][0]

    def _receive(self, driver: int, index: int, number: int, columns: Columns) -> tuple[int, int]:
        """(driver after, message sent or -1) of a proposer that hears an answer."""
        key = ("receive", driver, index, number)
        if key not in self._memo:
            before, answer = self._drivers.values[driver], self._answers.values[number]
            if answer.life != before.life:
                self._memo[key] = (driver, -1, -1)
            else:
                proposer, effect = before.proposer.receive(self._names[index], answer.reply)
                said = self._views.number(effect.value) if isinstance(effect, Chosen) else -1
                bit = self._send(answer.actor, before.life, effect)
                after = self._drivers.number(replace(before, proposer=proposer))
                self._memo[key] = (after, bit.bit_length() - 1, said)
        after, message, said = self._memo[key]
        if said >= 0:
            claimed = self._views.values[said]
            if claimed not in self._chosen(columns):
                raise ViolationError(f"honesty: a proposer says that {claimed!r} is chosen, which is not")
        return after, message

    def _moves(self, actor: int, driver: int) -> Iterator[tuple[str, int, int]]:
        """What a proposer may do of itself: (action, driver after, message sent or -1)."""
        before, plan = self._drivers.values[driver], self._scenario.actors[actor]
        if before.classic and before.proposer.phase is not Phase.DONE:
            proposer, effect = before.proposer.start_classic()
            message = self._send(actor, before.life, effect).bit_length() - 1
            yield (
                "begins",
                self._drivers.number(replace(before, proposer=proposer, classic=before.classic - 1)),
                message,
            )
        if before.life < plan.restarts:
            fresh = Proposer(self._instance, plan.later or plan.value, self._proposer_id(actor))
            yield "restarts", self._drivers.number(_Driver(fresh, before.life + 1, plan.classic)), -1

    def _send(self, actor: int, life: int, effect: Effect | None) -> int:
        """The bit of the message that an effect sends to every acceptor, 0 for none."""
        if isinstance(effect, Broadcast):
            return 1 << self._sent.number(_Sent(actor, life, effect.message))
        if isinstance(effect, Chosen) and self._scenario.learning:
            return 1 << self._sent.number(_Sent(actor, life, Learn(self._instance, effect.value)))
        return 0

    def _proposer_id(self, actor: int) -> int:
        shared = self._scenario.actors[actor].proposer_id
        return actor if shared is None else shared

    # -- the observer ---------------------------------------------------------------------------------------------

    def _chosen(self, columns: Columns) -> frozenset[bytes]:
        key = tuple(column for column, _ in columns)
        if key not in self._chosen_memo:
            votes = Counter(vote for column in key for vote in self._columns.values[column].votes)
            self._chosen_memo[key] = frozenset(
                value
                for (ballot, value), count in votes.items()
                if count >= (self._instance.config.fast_quorum if ballot == FAST_BALLOT else len(self._names) // 2 + 1)
            )
        return self._chosen_memo[key]

    def _check(self, columns: Columns) -> None:
        chosen = self._chosen(columns)
        if len(chosen) > 1:
            raise ViolationError(f"agreement: {sorted(chosen)} are both chosen")
        if not chosen <= self._wishes:
            raise ViolationError(f"validity: {sorted(chosen)} was never proposed")

    # -- one name for states that are alike -----------------------------------------------------------------------

    def _canonical(self, sent: int, drivers: tuple[int, ...], columns: Columns) -> State:
        """Answers that can change nothing any more are dropped, and acceptors sorted by all that tells them apart."""
        kept = [(column, self._telling(drivers, index, answers)) for index, (column, answers) in enumerate(columns)]
        seen = [self._view(driver) for driver in drivers]
        keys = [(*kept[index], *(view[index] for view in seen)) for index in range(len(kept))]
        order = sorted(range(len(kept)), key=keys.__getitem__)
        if order != list(range(len(kept))):
            drivers = tuple(self._renamed(driver, tuple(order)) for driver in drivers)
        return sent, drivers, tuple(kept[index] for index in order)

    def _telling(self, drivers: tuple[int, ...], index: int, answers: int) -> int:
        telling = answers
        for number in _bits(answers):
            driver = drivers[self._answers.values[number].actor]
            key = ("telling", driver, index, number)
            if key not in self._memo:
                before, answer = self._drivers.values[driver], self._answers.values[number]
                after, _ = before.proposer.receive(self._names[index], answer.reply)
                self._memo[key] = (answer.life == before.life and after != before.proposer,)
            if not self._memo[key][0]:
                telling &= ~(1 << number)
        return telling

    def _view(self, driver: int) -> tuple[int, ...]:
        """What a proposer holds of each acceptor, as numbers."""
        key = ("view", driver)
        if key not in self._memo:
            proposer = self._drivers.values[driver].proposer
            granted = dict(proposer.granted)
            self._memo[key] = tuple(
                self._views.number((granted.get(name), name in proposer.refused, name in proposer.lost))
                for name in self._names
            )
        return self._memo[key]

    def _renamed(self, driver: int, order: tuple[int, ...]) -> int:
        key = ("renamed", driver, order)
        if key not in self._memo:
            before = self._drivers.values[driver]
            names = {self._names[old]: self._names[new] for new, old in enumerate(order)}
            proposer = replace(
                before.proposer,
                granted=frozenset((names[name], reply) for name, reply in before.proposer.granted),
                refused=frozenset(names[name] for name in before.proposer.refused),
                lost=frozenset(names[name] for name in before.proposer.lost),
            )
            self._memo[key] = (self._drivers.number(replace(before, proposer=proposer)),)
        return self._memo[key][0]

    def _alike(self, drivers: tuple[int, ...], index: int, columns: Columns) -> bool:
        """Whether an earlier acceptor is the same in all, so that its steps stand for this one's."""
        seen = [self._view(driver) for driver in drivers]
        return any(
            columns[other] == columns[index] and all(view[other] == view[index] for view in seen)
            for other in range(index)
        )

    def _trace(self, parents: dict[State, tuple[State, str] | None], state: State) -> str:
        actions = []
        step = parents[state]
        while step is not None:
            actions.append(step[1])
            step = parents[step[0]]
        return "\n".join(reversed(actions))


def explore(scenario: Scenario, limit: int = 10_000_000) -> int:
    """The number of reachable states, all of which hold every property; ViolationError otherwise."""
    return Explorer(scenario).explore(limit)


def _check_promises(before: AcceptorState | None, after: AcceptorState | None) -> None:
    if before is None:
        return
    if after is None or after.promised < before.promised or after.promised < NO_BALLOT:
        raise ViolationError(f"promises: {before} became {after}")
    if before.learned and after.accepted_value != before.accepted_value:
        raise ViolationError(f"promises: the learned value of {before} became {after.accepted_value!r}")


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
