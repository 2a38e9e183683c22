"""What was asked of an engine, what it acknowledged, and whether a disk found later agrees with that.

A chunk id, or the acceptor states of a chunk, is a register: each event sets it to a value. After a cut, a register may
hold the value that was acknowledged last, or one whose event had begun and was not acknowledged. Nothing else.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.storage.engine.simulation import SimulatedDisk
from vstack.core.paxos.acceptor import AcceptorState, closes
from vstack.core.superblock.layout import MAX_RECORD_PAGES, PAGE_BYTES
from vstack.errors import CorruptionError
from vstack.storage.contract import Engine
from vstack.storage.directio import aligned_buffer
from vstack.storage.engine.identity import load_or_format
from vstack.storage.engine.recovery import recover
from vstack.storage.engine.volume import Volume, read_chunk, read_states

Value = bytes | frozenset[AcceptorState] | None
Register = tuple[str, str]


@dataclass
class Event:
    """`start` and `end` count changes of the disk; `end` is None while not acknowledged."""

    sets: dict[Register, Value]
    start: int
    end: int | None = None


@dataclass
class History:
    disk: SimulatedDisk
    events: list[Event] = field(default_factory=list)
    states: dict[str, frozenset[AcceptorState]] = field(default_factory=dict)

    async def put(self, engine: Engine, chunk_id: str, data: bytes, acceptance: AcceptorState | None = None) -> None:
        sets: dict[Register, Value] = {("chunk", chunk_id): data}
        if acceptance is not None:
            sets |= self._journalled([acceptance])
        async with engine.buffer() as buffer:
            buffer.payload[: len(data)] = data
            with self._event(sets):
                await engine.put(chunk_id, buffer, len(data), acceptance=acceptance)

    async def delete(self, engine: Engine, chunk_id: str) -> None:
        with self._event({("chunk", chunk_id): None}):
            assert await engine.delete(chunk_id)

    async def journal(self, engine: Engine, *states: AcceptorState) -> None:
        with self._event(self._journalled(states)):
            await engine.journal(states)

    def registers(self) -> set[Register]:
        return {register for event in self.events for register in event.sets}

    def allowed(self, register: Register, changes: int) -> list[Value]:
        """The values that a cut behind so many changes may leave."""
        values: list[Value] = [None if register[0] == "chunk" else frozenset()]
        for event in self.events:
            if register not in event.sets or event.start >= changes:
                continue
            if event.end is not None and event.end <= changes:
                values = [event.sets[register]]
            else:
                values.append(event.sets[register])
        return values

    def pending(self, changes: int) -> list[Event]:
        return [event for event in self.events if event.start < changes and (event.end is None or event.end > changes)]

    def _journalled(self, states: "list[AcceptorState] | tuple[AcceptorState, ...]") -> dict[Register, Value]:
        sets: dict[Register, Value] = {}
        for state in states:
            chunk_id, epoch = state.instance.chunk_id, state.instance.epoch
            kept = {
                known
                for known in self.states.get(chunk_id, frozenset())
                if known.instance.epoch != epoch and not closes(state, known.instance.epoch)
            }
            self.states[chunk_id] = frozenset(kept | {state})
            sets["states", chunk_id] = self.states[chunk_id]
        return sets

    @contextlib.contextmanager
    def _event(self, sets: dict[Register, Value]) -> Iterator[None]:
        event = Event(sets, len(self.disk.journal))
        self.events.append(event)
        yield
        event.end = len(self.disk.journal)


class Found:
    """What a disk holds when it is opened again."""

    def __init__(self, disk: SimulatedDisk) -> None:
        identity = load_or_format(disk, node_id="n", may_format=True)
        self.volume: Volume = recover(disk, identity, lambda: 0)
        self._buffer = aligned_buffer(MAX_RECORD_PAGES * PAGE_BYTES)

    def value(self, register: Register) -> Value:
        kind, chunk_id = register
        return self.chunk(chunk_id) if kind == "chunk" else self.acceptors(chunk_id)

    def chunk(self, chunk_id: str) -> bytes | None:
        """CorruptionError, DiskError."""
        catalogue = self.volume.catalogue
        with self.volume.pinned(catalogue.chunks.find(catalogue.hash(chunk_id))) as sources:
            for source in sources:
                record = read_chunk(source, chunk_id, self._buffer)
                if record is not None:
                    return bytes(self._buffer[PAGE_BYTES : PAGE_BYTES + record.body.payload_bytes])  # type: ignore[union-attr]
        return None

    def acceptors(self, chunk_id: str) -> frozenset[AcceptorState]:
        catalogue = self.volume.catalogue
        with self.volume.pinned(catalogue.acceptors.find(catalogue.hash(chunk_id))) as sources:
            return frozenset(read_states(sources, chunk_id))


def check(history: History, found: Found, changes: int, *, excused: bool = False) -> None:
    """Every register holds what it may. `excused` (bits rotted) lets it refuse or have lost the value, never invent."""
    values: dict[Register, Value] = {}
    for register in history.registers():
        allowed = history.allowed(register, changes)
        try:
            value = values[register] = found.value(register)
        except CorruptionError:
            assert excused, f"{register} is damaged"
            continue
        if excused and not value:
            continue
        assert value in allowed, f"{register} holds {describe(value)}, not {[describe(other) for other in allowed]}"
    if not excused:
        _check_batches(history, values, changes)


def _check_batches(history: History, values: dict[Register, Value], changes: int) -> None:
    """An event that was cut off is visible whole or not at all (where no other event blurs it)."""
    pending = history.pending(changes)
    for event in pending:
        if any(other is not event and event.sets.keys() & other.sets.keys() for other in pending):
            continue
        seen = {
            register: values[register] == value
            for register, value in event.sets.items()
            if history.allowed(register, changes)[0] != value
        }
        assert len(set(seen.values())) <= 1, f"a part of {event} is visible"


def describe(value: Value) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes {value[:8]!r}"
    return repr(value)
