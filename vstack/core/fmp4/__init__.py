"""Fragmented MP4: reading boxes, finding random-access points, packing into chunks. Pure; no I/O."""

from vstack.core.fmp4.chunk import PackedChunk
from vstack.core.fmp4.packer import Limits
from vstack.core.fmp4.stream import Mp4Chunker

__all__ = ["Limits", "Mp4Chunker", "PackedChunk"]
