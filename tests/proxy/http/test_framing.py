"""Where a body ends, however its bytes are cut, and when its framing is too much."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.http.framing import Chunks, Framing, FramingError, Length
from support.raw import chunk

BEHIND = b"GET / HTTP/1.1\r\n\r\n"
CHUNKED = (
    chunk(b"hello") + b"A;name=value\r\n0123456789\r\n" + b"01 \r\nx\r\n" + b"0\r\nX-Sum: 1\r\n\r\n"
)


def taken(framing: Framing, wire: bytes, cuts: list[int]) -> int:
    """How much of ``wire``, cut there, belongs to the body."""
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    count = 0
    for start, end in pairwise(places):
        if framing.ended:
            break
        count += framing.take(wire[start:end])
    return count


@given(cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_a_chunked_body_ends_where_it_ends(cuts: list[int]) -> None:
    framing = Chunks()
    assert taken(framing, CHUNKED + BEHIND, cuts) == len(CHUNKED)
    assert framing.ended


@given(size=st.integers(0, 50), cuts=st.lists(st.integers(0, 10_000), max_size=10))
def test_a_body_of_known_length_ends_there(size: int, cuts: list[int]) -> None:
    framing = Length(size)
    assert framing.ended is (size == 0)
    assert taken(framing, b"x" * size + BEHIND, cuts) == size
    assert framing.ended


@given(body=st.binary(min_size=1, max_size=3000), step=st.integers(1, 20))
def test_good_chunks_are_never_too_much(body: bytes, step: int) -> None:
    pieces = [chunk(body[at : at + step]) for at in range(0, len(body), step)]
    wire = b"".join(pieces) + b"0\r\n\r\n"
    framing = Chunks()
    assert framing.take(wire) == len(wire)
    assert framing.ended


@pytest.mark.parametrize(
    "wire",
    [
        b"zz\r\n",
        b"\r\n",
        b"-1\r\nx\r\n",
        b"0x1\r\nx\r\n",
        b"11111111111111111\r\n",
        b"1;" + b"x" * 17_000,
        b"0" * 17_000,
        (b"1;" + b"x" * 1000 + b"\r\na\r\n") * 17,
        b"0\r\nX: " + b"x" * 17_000,
        b"0\r\n" + b"X: a\r\n" * 3000,
    ],
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_what_is_no_chunk_or_nothing_but_framing_is_refused(wire: bytes, step: int) -> None:
    framing = Chunks()
    with pytest.raises(FramingError):
        _ = [framing.take(wire[at : at + step]) for at in range(0, len(wire), step)]
