"""The erasure codec: a chunk as five fragments, any three of which give it back.

Systematic Reed-Solomon over GF(2^8) by zfec: fragments 0, 1 and 2 are the chunk cut in three, the last one padded with
zeros; 3 and 4 are parity. All fragments of a chunk are equally long, `fragment_bytes(size)`. The same bytes always give
the same fragments, so a lost one can be made again and keeps its checksum. Both directions release the GIL.
"""

from collections.abc import Mapping
from typing import Final

import zfec

from vstack.core.redundancy import fragment_bytes
from vstack.units import DATA_SHARDS, TOTAL_SHARDS

_PARITY_INDEXES: Final = tuple(range(DATA_SHARDS, TOTAL_SHARDS))
_ENCODER: Final = zfec.Encoder(DATA_SHARDS, TOTAL_SHARDS)
_DECODER: Final = zfec.Decoder(DATA_SHARDS, TOTAL_SHARDS)


def encode(chunk: bytes | memoryview) -> tuple[bytes, ...]:
    """The TOTAL_SHARDS fragments of a chunk of at least one byte, by fragment index."""
    if not chunk:
        raise ValueError("an empty chunk has no fragments")
    length = fragment_bytes(len(chunk))
    data = tuple(bytes(chunk[start : start + length]).ljust(length, b"\0") for start in _starts(length))
    return (*data, *_ENCODER.encode(data, _PARITY_INDEXES))


def decode(fragments: Mapping[int, bytes], size_bytes: int) -> bytes:
    """The chunk of `size_bytes` from at least DATA_SHARDS of its fragments, by index; ValueError where they cannot be.

    Nothing here notices a fragment with wrong bytes: check each against its checksum first, or all with `consistent`.
    """
    length = fragment_bytes(size_bytes)
    if any(index not in range(TOTAL_SHARDS) for index in fragments):
        raise ValueError(f"fragment indexes are 0 to {TOTAL_SHARDS - 1}, not {sorted(fragments)}")
    if any(len(fragment) != length for fragment in fragments.values()):
        raise ValueError(f"every fragment of {size_bytes} bytes has {length}")
    used = sorted(fragments)[:DATA_SHARDS]  # the lowest indexes: data as far as there is any, which costs nothing
    if len(used) < DATA_SHARDS:
        raise ValueError(f"{len(used)} fragments do not make a chunk, {DATA_SHARDS} do")
    data = _DECODER.decode(tuple(fragments[index] for index in used), tuple(used))
    return b"".join(data)[:size_bytes]


def consistent(fragments: Mapping[int, bytes], size_bytes: int) -> bool:
    """Whether all these fragments are of one and the same chunk of `size_bytes`. Errors as of `decode`."""
    again = encode(decode(fragments, size_bytes))
    return all(again[index] == fragment for index, fragment in fragments.items())


def _starts(length: int) -> range:
    return range(0, DATA_SHARDS * length, length)
