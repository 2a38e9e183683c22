"""Videos: their rows, and the rules of their life.

uploading -> active      when chunks 0..n-1 are committed and the last one is marked; no chunk is added afterwards
uploading -> failed      given up by the uploader, or abandoned; its data is reaped, the row stays
any       -> deleting    invisible at once; the reaper removes data, then rows

Invariant: a video pins the generation it was created with; only one created before there was any node is pinned later.
"""

from dataclasses import dataclass
from datetime import datetime

from vstack import ids
from vstack.core.placement import Generation
from vstack.errors import ConflictError, NotFoundError, UnavailableError
from vstack.metadata.catalogue.generations import Generations
from vstack.metadata.postgres import database, statements
from vstack.metadata.postgres.connecting import Connection
from vstack.metadata.postgres.database import Database
from vstack.wire import metadata as wire
from vstack.wire.common import timestamp

_SQL = statements.load("videos")


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What decisions about a video need. `generation` 0 is not pinned yet; `restored` videos came from a rebuild."""

    video_id: str
    title: str
    status: wire.VideoStatus
    generation: int
    created_at: datetime
    restored: bool

    @property
    def created_at_ms(self) -> int:
        """As decrees carry it. Exact: the column holds whole milliseconds."""
        return round(self.created_at.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class VideoRow:
    """A video as it is listed. `total_chunks` counts what is committed until the number is known."""

    video_id: str
    title: str
    status: wire.VideoStatus
    created_at: datetime
    duration_ms: int
    total_chunks: int
    size_bytes: int
    view_count: int

    def to_wire(self) -> wire.Video:
        return wire.Video(
            video_id=self.video_id,
            title=self.title,
            duration_sec=self.duration_ms / 1000,
            total_chunks=self.total_chunks,
            status=self.status,
            created_at=timestamp(self.created_at),
            view_count=self.view_count,
            size_bytes=self.size_bytes,
        )


@dataclass(frozen=True, slots=True)
class Popularity:
    view_count: int
    override_mode: wire.ChunkMode | None


@dataclass(frozen=True, slots=True)
class Extent:
    """The committed chunks of a video: how many, the highest number, the number marked last (-1: none)."""

    chunks: int
    highest: int
    last: int
    last_marks: int
    duration_ms: int
    size_bytes: int

    @property
    def missing(self) -> str | None:
        """Why the video is not whole; None where it is."""
        if self.chunks == 0:
            return "no chunk is committed"
        if self.last_marks != 1 or self.last != self.highest:
            return "the last chunk is not marked or not committed"
        if self.chunks != self.last + 1:
            return f"{self.chunks} of {self.last + 1} chunks are committed"
        return None


@dataclass(frozen=True, slots=True)
class _Status:
    status: wire.VideoStatus


async def facts(db: Database, video_id: str) -> VideoFacts | None:
    """The video, whatever its status."""
    return await db.row(_SQL["facts"], VideoFacts, {"video_id": video_id})


async def create(db: Database, generations: Generations, request: wire.VideoCreate) -> tuple[VideoFacts, Generation]:
    """A new video pinned to the current generation. The same id and title again find the one made before."""
    video_id = request.video_id or ids.new_video_id()
    params = {
        "video_id": video_id,
        "title": request.title,
        "generation": (await generations.current()).number,
        "duration_ms": round(request.duration_sec * 1000),
    }
    created = await db.execute(_SQL["create"], params)
    video = await facts(db, video_id)
    if video is None:
        raise UnavailableError(f"video {video_id} was removed while it was created")
    if not created and (video.title != request.title or video.status in ("deleting", "failed")):
        raise ConflictError(f"video {video_id} exists already: {video.title!r}, {video.status}")
    return video, await pinned(db, generations, video)


async def pinned(db: Database, generations: Generations, video: VideoFacts) -> Generation:
    """The generation of a video. One that was created before there was any node is pinned to the current one now.

    That is safe: without acceptors nothing can have been decided for it.
    """
    if video.generation == 0:
        current = await generations.current()
        if current.number and not await db.execute(
            _SQL["pin"], {"video_id": video.video_id, "generation": current.number}
        ):
            again = await facts(db, video.video_id)  # another instance pinned it first
            return await generations.get(again.generation if again else 0)
        return current
    return await generations.get(video.generation)


async def get(db: Database, video_id: str) -> VideoRow:
    """NotFoundError where there is none, or it is being deleted."""
    row = await db.row(_SQL["get"], VideoRow, {"video_id": video_id})
    if row is None:
        raise _unknown(video_id)
    return row


async def page(db: Database, limit: int, offset: int) -> list[VideoRow]:
    """Videos that are not being deleted, the newest first."""
    return await db.rows(_SQL["page"], VideoRow, {"limit": limit, "offset": offset})


async def set_status(db: Database, video_id: str, change: wire.StatusChange) -> None:
    """The uploader's last word. ConflictError where the video is not whole, or has had its last word already."""
    async with db.transaction() as connection:
        row = await database.row(connection, _SQL["lock"], _Status, {"video_id": video_id})
        if row is None or row.status == "deleting":
            raise _unknown(video_id)
        if row.status not in ("uploading", change.status):
            raise ConflictError(f"video {video_id} is {row.status}")
        if change.status == "active":
            await _activate(connection, video_id, change)
        else:
            await connection.execute(_SQL["set_status"], {"video_id": video_id, "status": change.status})


async def extent(connection: Connection, video_id: str) -> Extent:
    """What is committed of a video."""
    found = await database.row(connection, _SQL["extent"], Extent, {"video_id": video_id})
    assert found is not None
    return found


async def delete(db: Database, video_id: str) -> None:
    """Make the video invisible, for good; NotFoundError where there is none. The reaper does the rest."""
    if not await db.execute(_SQL["delete"], {"video_id": video_id}):
        raise _unknown(video_id)


async def count_view(db: Database, video_id: str) -> None:
    if not await db.execute(_SQL["count_view"], {"video_id": video_id}):
        raise _unknown(video_id)


async def popularity(db: Database, video_id: str) -> Popularity:
    row = await db.row(_SQL["popularity"], Popularity, {"video_id": video_id})
    if row is None:
        raise _unknown(video_id)
    return row


async def override(db: Database, video_id: str, mode: wire.ChunkMode | None) -> None:
    """Set the redundancy mode of a video by hand; None gives the decision back to its popularity."""
    if not await db.execute(_SQL["override"], {"video_id": video_id, "mode": mode}):
        raise _unknown(video_id)


async def _activate(connection: Connection, video_id: str, change: wire.StatusChange) -> None:
    found = await extent(connection, video_id)
    if found.missing is not None:
        raise ConflictError(f"video {video_id} is not complete: {found.missing}")
    if change.total_chunks not in (None, found.chunks):
        raise ConflictError(f"video {video_id} has {found.chunks} chunks, not {change.total_chunks}")
    duration_ms = found.duration_ms if change.duration_sec is None else round(change.duration_sec * 1000)
    await connection.execute(
        _SQL["activate"],
        {
            "video_id": video_id,
            "total_chunks": found.chunks,
            "size_bytes": found.size_bytes,
            "duration_ms": duration_ms,
        },
    )


def _unknown(video_id: str) -> NotFoundError:
    return NotFoundError(f"no video {video_id}")
