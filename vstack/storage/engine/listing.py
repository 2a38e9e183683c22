"""Listing what is stored, in the order of files and pages: footers say what there is, the index what of it is live.

A page of results is read off the event loop. What is there during the whole listing is listed exactly once: records do
not move, and a cursor is the place of the next one.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import structlog

from vstack.core.superblock.catalogue import Superblock
from vstack.core.superblock.entries import Entry
from vstack.core.superblock.layout import PAGE_BYTES
from vstack.core.superblock.record import Record
from vstack.core.superblock.walk import walk
from vstack.errors import InvalidRequestError
from vstack.storage.disk import File
from vstack.storage.engine import superblocks
from vstack.storage.engine.threads import Threads
from vstack.storage.engine.volume import Volume, read_header, reader

_CURSOR: Final = re.compile(r"([0-9a-f]{1,8})-([0-9a-f]{1,8})")

T = TypeVar("T")
log = structlog.get_logger()


class Lister:
    """Pages through the live records of a volume."""

    def __init__(self, volume: Volume, threads: Threads) -> None:
        self._volume = volume
        self._threads = threads

    async def page(
        self, after: str | None, limit: int, wanted: Callable[[Entry], bool], row: Callable[[Record], T]
    ) -> tuple[list[T], str | None]:
        """Up to `limit` rows of live records whose entry is wanted, and the cursor of the next page.

        Records that cannot be read now are left out. InvalidRequestError for a cursor that is none; DiskError.
        """
        slot, page = _parse(after)
        rows: list[T] = []
        room = max(1, limit)
        for slot in sorted(known for known in self._volume.catalogue.superblocks if known >= slot):
            entries = await self._live_entries(slot, page, wanted, room + 1)
            rows += [row(record) for record in await self._read(slot, entries[:room])]
            if len(entries) > room:
                return rows, f"{slot:x}-{entries[room].page:x}"
            room -= len(entries)
            page = 0
        return rows, None

    async def _live_entries(self, slot: int, page: int, wanted: Callable[[Entry], bool], limit: int) -> list[Entry]:
        """The first `limit` ones from a page on, in order of pages."""
        superblock = self._volume.catalogue.superblocks.get(slot)
        if superblock is None:
            return []
        if superblock.is_sealed:
            entries = await self._threads.io(_sealed_entries, self._volume.files[slot], superblock)
        else:
            entries = sorted(superblock.entries, key=lambda entry: entry.page)
        live: list[Entry] = []
        for entry in entries:
            if entry.page >= page and wanted(entry) and self._volume.catalogue.is_live(slot, entry):
                live.append(entry)
                if len(live) == limit:
                    break
        return live

    async def _read(self, slot: int, entries: Sequence[Entry]) -> list[Record]:
        """Their headers, as far as they can still be read: a record may have been deleted since."""
        if slot not in self._volume.catalogue.superblocks:
            return []
        with self._volume.pinned([entry.location(slot) for entry in entries]) as sources:
            records = await self._threads.io(lambda: [(source, read_header(source)) for source in sources])
        for source, record in records:
            if record is None:
                log.error("a record header is damaged", slot=slot, location=source.location)
        return [record for _, record in records if record is not None]


def _sealed_entries(file: File, superblock: Superblock) -> list[Entry]:
    footer = superblocks.read_footer(file, superblock.header)
    entries: Iterable[Entry]
    if footer is not None:
        entries = footer.entries
    else:
        found = walk(reader(file), superblock.header).records
        entries = (Entry.of(each.record, each.offset // PAGE_BYTES) for each in found)
    return sorted(entries, key=lambda entry: entry.page)


def _parse(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequestError("the cursor is none of this listing")
    return int(match[1], 16), int(match[2], 16)
