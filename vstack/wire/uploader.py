"""The uploader's messages."""

from typing import Final, Literal

from vstack.wire.common import Message

KEY_HEADER: Final = "Idempotency-Key"
"""A UUID that a client gives to one upload: sent again with it, the upload still becomes one video."""

UploadPhase = Literal[
    "uploading", "processing", "chunking", "registering", "uploading_chunks", "finalizing", "completed", "failed"
]


class Health(Message, frozen=True, kw_only=True):
    status: Literal["healthy", "unhealthy"]
    service: str
    active_uploads: int


class UploadAccepted(Message, frozen=True, kw_only=True):
    video_id: str
    upload_session_id: str
    title: str
    status: UploadPhase
    message: str
    status_url: str


class UploadStatus(Message, frozen=True, kw_only=True):
    """`progress` is 0 to 100 and only grows; 100 only when completed. `total_chunks` is null until known."""

    video_id: str
    title: str
    filename: str
    status: UploadPhase
    progress: int
    started_at: str
    total_chunks: int | None
    error: str | None
    chunks_committed: int = 0
    size_bytes: int = 0
