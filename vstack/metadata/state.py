"""What the handlers of one metadata instance work with."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from vstack.metadata.catalogue.generations import Generations
from vstack.metadata.deciding.commit import Committer
from vstack.metadata.deciding.consensus import Consensus
from vstack.metadata.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Metadata:
    """One instance's parts. `popularity_threshold` is in views."""

    db: Database
    generations: Generations
    consensus: Consensus
    committer: Committer
    popularity_threshold: int


METADATA: Final[web.AppKey[Metadata]] = web.AppKey("metadata", Metadata)
