"""From a video file to chunks: look (`probe`), decide (`plan`), do (`chunk_stream`)."""

from vstack.uploader.media.chunking import chunk_stream
from vstack.uploader.media.model import MediaInfo, Plan, Stream, StreamKind, StreamPlan
from vstack.uploader.media.planning import plan
from vstack.uploader.media.probing import probe

__all__ = ["MediaInfo", "Plan", "Stream", "StreamKind", "StreamPlan", "chunk_stream", "plan", "probe"]
