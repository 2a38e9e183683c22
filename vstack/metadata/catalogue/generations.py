"""Generations: immutable, numbered node sets from which acceptors and replicas are drawn.

Invariants: a generation never changes once it has a row; numbers only rise and are never used twice; two instances that
need a new one at the same moment make one. Generation 0 is the empty set of a cluster without nodes and has no row.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
from psycopg.types.json import Jsonb

from vstack.core.placement import Generation, Node
from vstack.metadata.catalogue import nodes
from vstack.metadata.postgres import database, statements
from vstack.metadata.postgres.connecting import Connection
from vstack.metadata.postgres.database import Database
from vstack.metadata.postgres.locks import Lock

EMPTY: Final = Generation(number=0, nodes=())
MAX_CACHED: Final = 256

_SQL = statements.load("generations")


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    members: list[dict[str, object]]
    restored: bool

    def serves(self, members: tuple[Node, ...]) -> bool:
        """Whether a new video may pin it: the nodes and their failure domains are these, weights may have drifted."""
        return not self.restored and _domains(self.to_core().nodes) == _domains(members)

    def to_core(self) -> Generation:
        return Generation(self.number, msgspec.convert(self.members, tuple[Node, ...]))


class Generations:
    """The generations of one database. Read rows are kept: they cannot change."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._cache: dict[int, Generation] = {0: EMPTY}

    async def get(self, number: int) -> Generation:
        """The generation of this number, which some row refers to."""
        if number not in self._cache:
            row = await self._db.row(_SQL["get"], _Row, {"number": number})
            if row is None:
                raise LookupError(f"generation {number} has no row")
            self._keep(row.to_core())
        return self._cache[number]

    async def current(self) -> Generation:
        """The newest generation, made now if the set of nodes that are not down has changed since."""
        members = nodes.members(await nodes.all_nodes(self._db))
        if not members:
            return EMPTY
        latest = await self._db.row(_SQL["latest"], _Row)
        if latest is not None and latest.serves(members):
            return self._keep(latest.to_core())
        async with self._db.transaction() as connection:
            await database.hold(connection, Lock.GENERATION)
            return self._keep(await self._make(connection, members))

    async def _make(self, connection: Connection, members: tuple[Node, ...]) -> Generation:
        """Insert unless another instance was faster. The caller's transaction holds the lock."""
        latest = await database.row(connection, _SQL["latest"], _Row)
        if latest is not None and latest.serves(members):
            return latest.to_core()
        made = await database.row(connection, _SQL["insert"], _Row, {"members": Jsonb(msgspec.to_builtins(members))})
        assert made is not None
        return made.to_core()

    def _keep(self, generation: Generation) -> Generation:
        if len(self._cache) >= MAX_CACHED:
            self._cache = {0: EMPTY}
        self._cache[generation.number] = generation
        return generation


def _domains(members: Iterable[Node]) -> set[tuple[str, str, str]]:
    return {(node.node_id, node.host, node.zone) for node in members}
