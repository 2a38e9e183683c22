"""Decrees: one meaning, one byte string."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstack.core.decree import Decree, Mode, Placement, VideoFacts, abort, digest
from vstack.core.paxos.messages import MAX_VALUE_BYTES
from vstack.errors import InvalidRequestError
from vstack.units import MAX_CHUNK_BYTES, MAX_TITLE_CHARS

SHA = hashlib.sha256(b"chunk").hexdigest()
ids = st.from_regex(r"[A-Za-z0-9_-]{1,50}", fullmatch=True)
pieces = st.builds(Placement, ids, st.just(SHA), st.integers(-1, 4))
decrees = st.builds(
    Decree,
    mode=st.sampled_from([Mode.REPLICATION, Mode.ERASURE_CODING]),
    video_id=ids,
    sequence_num=st.integers(0, 2**31 - 1),
    checksum=st.just(SHA),
    size_bytes=st.integers(1, MAX_CHUNK_BYTES),
    placements=st.lists(pieces, min_size=1, max_size=5, unique_by=lambda p: (p.fragment_index, p.node_id)).map(tuple),
    next_generation=st.integers(0, 2**31 - 1),
    title=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=MAX_TITLE_CHARS),
    last=st.booleans(),
)


@given(decree=decrees, data=st.data())
def test_the_order_of_placements_does_not_show(decree: Decree, data: st.DataObject) -> None:
    shuffled = replace(decree, placements=tuple(data.draw(st.permutations(decree.placements))))
    assert shuffled == decree
    assert shuffled.encode() == decree.encode()


@given(decree=decrees)
def test_encoding_is_lossless_and_fits_a_record(decree: Decree) -> None:
    encoded = decree.encode()
    assert len(encoded) <= MAX_VALUE_BYTES
    assert Decree.decode(encoded) == decree
    assert Decree.decode(encoded).encode() == encoded
    assert encoded.decode().isprintable() or not decree.title.isprintable()


def test_the_largest_decree_that_the_limits_allow_fits() -> None:
    widest = Decree(
        mode=Mode.ERASURE_CODING,
        video_id="v" * 50,
        sequence_num=2**31 - 1,
        checksum=SHA,
        size_bytes=MAX_CHUNK_BYTES,
        placements=tuple(Placement(f"{index}" + "n" * 63, SHA, index) for index in range(5)),
        next_generation=2**31 - 1,
        title="\N{CLAPPER BOARD}" * MAX_TITLE_CHARS,
        created_at_ms=2**43,
        duration_ms=2**31 - 1,
        segment=2**31 - 1,
        init_size_bytes=2**31 - 1,
        last=True,
    )
    assert len(widest.encode()) <= MAX_VALUE_BYTES


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        replace(abort("v", 0, 1), title="x" * MAX_VALUE_BYTES).encode()


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        abort("v", 0, 1).encode().replace(b"abort", b"something else"),
        abort("v", 0, 1).encode().replace(b'"size_bytes":0', b'"size_bytes":"0"'),
    ],
)
def test_what_is_no_decree_is_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        Decree.decode(encoded)


def test_fields_of_a_later_release_are_ignored() -> None:
    encoded = abort("v", 0, 1).encode()
    assert Decree.decode(encoded[:-1] + b',"novelty":[1]}') == abort("v", 0, 1)


def test_the_decree_of_copies_is_the_same_whoever_makes_it() -> None:
    facts = {"sequence_num": 3, "checksum": SHA, "size_bytes": 5, "duration_ms": 1, "segment": 0, "init_size_bytes": 0}
    video = VideoFacts("video", "Title", 17, 4)
    made = [
        Decree.for_copies(nodes, video=video, last=False, **facts)  # type: ignore[arg-type]
        for nodes in (["a", "b", "c"], ("c", "a", "b"))
    ]
    assert made[0].encode() == made[1].encode()
    assert made[0].node_ids == ("a", "b", "c")
    assert digest(made[0].encode()) == digest(made[1].encode())


def test_the_encoding_is_fixed() -> None:
    """Acceptors keep it, receipts sign its digest: a release that encodes otherwise would contradict the one before."""
    decree = Decree(Mode.REPLICATION, "video", 3, "ab", 5, (Placement("n1", "cd"),), 7, title="T")
    assert decree.encode() == (
        b'{"mode":"replication","video_id":"video","sequence_num":3,"checksum":"ab","size_bytes":5,'
        b'"placements":[{"node_id":"n1","checksum":"cd","fragment_index":-1}],"next_generation":7,"title":"T",'
        b'"created_at_ms":0,"duration_ms":0,"segment":0,"init_size_bytes":0,"last":false}'
    )
