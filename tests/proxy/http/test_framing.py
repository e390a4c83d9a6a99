"""Where a body ends, however its bytes are cut, and when its framing is too much."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.http.framing import Chunks, Framing, FramingError, Length, merged
from support.hooks import Hook
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


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=300),
    cuts=st.lists(st.integers(0, 10_000), max_size=4),
)
def test_tiny_chunks_are_made_one_and_say_the_same(sizes: list[int], cuts: list[int]) -> None:
    """Their data may look like chunks, too."""
    contents = [(b"1\r\n\r\n" * 3)[:size] for size in sizes]
    wire = b"".join(chunk(content) for content in contents) + b"0\r\n\r\n"
    framing, fed = Chunks(), b""
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    for start, end in pairwise(places):
        piece = wire[start:end]
        assert framing.take(piece) == len(piece)
        fed += merged(piece, framing.runs)
    assert framing.ended
    assert len(fed) <= len(wire)
    assert unchunked(fed) == b"".join(contents)


def unchunked(wire: bytes) -> bytes:
    content = b""
    while wire != b"0\r\n\r\n":
        size, _, wire = wire.partition(b"\r\n")
        end = int(size, 16)
        assert wire[end : end + 2] == b"\r\n"
        content, wire = content + wire[:end], wire[end + 2 :]
    return content


@pytest.mark.parametrize(
    "size", [b"1", b"01", b"0000000000001", b"1;a", b"1;a=b;c", b"01;name=value"]
)
def test_forty_thousand_tiny_chunks_are_a_few_steps(size: bytes) -> None:
    """A client that sends its body byte by byte must not hold up everybody else."""
    wire = (size + b"\r\nx\r\n") * 40_000 + chunk(b"y" * 15) * 10
    calls = 0  # of Python functions

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event == "call"

    framing = Chunks()
    with Hook(count):
        assert framing.take(wire) == len(wire)
        fed = merged(wire, framing.runs)
    assert fed == chunk(b"x" * 40_000 + b"y" * 150)
    assert calls < 50


@pytest.mark.parametrize(
    "size", [b"1 ", b"1;", b"1;=", b"1;a=", b"1;a b", b"1;\0", b"1;" + b"a" * 40]
)
def test_what_the_parser_might_refuse_is_left_to_it(size: bytes) -> None:
    wire = (size + b"\r\nx\r\n") * 100
    framing = Chunks()
    assert framing.take(wire) == len(wire)
    assert framing.runs == []


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
