"""The objects that a decree places: whole copies under the chunk's id, fragments under ids of their own. Pure."""

from dataclasses import dataclass

from vstack import ids
from vstack.core.decree import Decree
from vstack.core.redundancy import fragment_bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """One object that one node should hold: `checksum` is hex SHA-256 of its bytes, fragment_index -1 a whole copy."""

    node_id: str
    object_id: str
    fragment_index: int
    checksum: str
    size_bytes: int

    @property
    def is_fragment(self) -> bool:
        return self.fragment_index >= 0


def of(chunk_id: str, decree: Decree) -> tuple[Piece, ...]:
    """Every object that the decree of a chunk places, in the decree's order."""
    return tuple(
        Piece(
            node_id=placement.node_id,
            object_id=chunk_id if placement.fragment_index < 0 else ids.fragment_id(chunk_id, placement.fragment_index),
            fragment_index=placement.fragment_index,
            checksum=placement.checksum,
            size_bytes=decree.size_bytes if placement.fragment_index < 0 else fragment_bytes(decree.size_bytes),
        )
        for placement in decree.placements
    )
