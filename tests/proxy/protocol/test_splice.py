"""One key more in the last object of a stream, however its bytes are cut, and nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol import splice
from modelsplit_proxy.protocol.splice import Splice, SplicedDown, spliced_whole
from support.endpoints import wire
from support.work import CountedPattern, Work, is_linear, work_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_proxy.http.request import AnswerSource
    from modelsplit_proxy.protocol.stream_end import Usage

KEY = b',"llm":{"x":"}"}'

TOKEN = b'{"model":"m","response":"\xe6\xbc\xa2 \\"done\\":true}","done":false}\n'
NDJSON = [
    TOKEN,
    b'{"message":{"tool_calls":[{"function":{"arguments":{"done":true}}}]},"done":false}\n',
    b'{"model":"m","response":"","done":true,"eval_count":7,"context":[1,2]^}\n',
]
OPENAI_TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n'
OPENAI = [
    OPENAI_TOKEN,
    b"\n",
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]^}\n',
    b"\n",
    b"data: [DONE]\n",
    b"\n",
]
OPENAI_WITH_USAGE = [
    *OPENAI[:2],
    OPENAI[2].replace(b"^", b""),
    b"\n",
    b": a comment\n",
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":7}^}\n',
    b"\n",
    b"data: [DONE]\n",
    b"\n",
]
RESPONSES = [
    b"event: response.created\n",
    b'data: {"response":{"status":"in_progress"},"type":"response.created"}\n',
    b"\n",
    b"event: response.completed\n",
    b'data: {"response":{"usage":{"output_tokens":7}},"type":"response.completed"^}\n',
    b"\n",
]
MESSAGES = [
    b"event: content_block_delta\n",
    b'data: {"type":"content_block_delta","delta":{"text":"message_stop"}}\n',
    b"\n",
    b"event: message_delta\n",
    b'data: {"type":"message_delta","usage":{"input_tokens":1,"output_tokens":7}}\n',
    b"\n",
    b"event: message_stop\n",
    b'data: {"type":"message_stop"^}\n',
    b"\n",
]
STREAMS = [
    (Dialect.OLLAMA, NDJSON),
    (Dialect.OPENAI, OPENAI),
    (Dialect.OPENAI, OPENAI_WITH_USAGE),
    (Dialect.OPENAI, RESPONSES),
    (Dialect.ANTHROPIC, MESSAGES),
]
TITLES = ["ndjson", "openai", "openai with usage", "responses", "messages"]
ALL = pytest.mark.parametrize(("dialect", "marked"), STREAMS, ids=TITLES)


class Spliced:
    """What came out of a splice, and what it was told of the stream's usage."""

    def __init__(self, dialect: Dialect) -> None:
        self.told: list[Usage] = []
        self._splice = Splice(wire(dialect), self._added)
        self.out: list[bytes] = []

    def _added(self, usage: Usage) -> bytes:
        self.told.append(usage)
        return KEY.removeprefix(b',"llm":')

    def feed(self, *pieces: bytes) -> bytes:
        """What passed on while these came."""
        new = [self._splice.feed(piece) for piece in pieces]
        self.out += new
        return b"".join(new)

    def finish(self) -> bytes:
        self.out.append(self._splice.finish())
        return self.out[-1]

    @property
    def whole(self) -> bytes:
        return b"".join(self.out)


def plain(lines: list[bytes]) -> list[bytes]:
    """The lines as the upstream writes them."""
    return [line.replace(b"^", b"") for line in lines]


def expected(lines: list[bytes]) -> bytes:
    return b"".join(lines).replace(b"^", KEY)


def cut(data: bytes, marks: list[int]) -> list[bytes]:
    ends = sorted({mark % (len(data) + 1) for mark in marks} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


@ALL
@given(marks=st.lists(st.integers(0, 10_000), max_size=60), crlf=st.booleans())
def test_however_the_bytes_are_cut_one_key_is_added(
    dialect: Dialect, marked: list[bytes], marks: list[int], *, crlf: bool
) -> None:
    ending = b"\r\n" if crlf else b"\n"
    lines = [line.replace(b"\n", ending) for line in marked]
    spliced = Spliced(dialect)
    spliced.feed(*cut(b"".join(plain(lines)), marks))
    assert spliced.finish() == b""
    assert spliced.whole == expected(lines)
    (usage,) = spliced.told
    if b"_tokens" in spliced.whole or b"_count" in spliced.whole:
        assert usage.output_tokens == 7


@ALL
def test_byte_by_byte(dialect: Dialect, marked: list[bytes]) -> None:
    spliced = Spliced(dialect)
    data = b"".join(plain(marked))
    spliced.feed(*(data[i : i + 1] for i in range(len(data))))
    spliced.finish()
    assert spliced.whole == expected(marked)


@ALL
def test_nothing_waits_but_a_line_that_may_be_the_last(
    dialect: Dialect, marked: list[bytes]
) -> None:
    """Fed line by line: what has come is out, up to the brace of the first possible last line."""
    spliced = Spliced(dialect)
    for number, line in enumerate(plain(marked)):
        passed = spliced.feed(line)
        if passed != line:
            assert b"}" in line, line
            held = line[line.rfind(b"}") :]
            assert passed == line.removesuffix(held) or KEY in passed
            break
        assert number < len(marked) - 1


def test_a_token_passes_byte_by_byte_as_it_comes() -> None:
    for dialect, token in ((Dialect.OLLAMA, TOKEN), (Dialect.OPENAI, OPENAI_TOKEN)):
        spliced = Spliced(dialect)
        for i in range(len(token)):
            assert spliced.feed(token[i : i + 1]) == token[i : i + 1]


def test_a_brace_inside_the_last_line_waits_one_byte_only() -> None:
    spliced = Spliced(Dialect.OLLAMA)
    assert spliced.feed(b'{"done":true,"message":{"a":{}') == b'{"done":true,"message":{"a":{'
    assert spliced.feed(b"}") == b"}"
    assert spliced.feed(b"}") == b"}"
    assert spliced.feed(b"\n") == KEY + b"}\n"


def test_a_whole_last_line_goes_out_in_one_piece() -> None:
    spliced = Spliced(Dialect.OLLAMA)
    line = b'{"done":true}\n'
    assert spliced.feed(TOKEN + line) == TOKEN + b'{"done":true' + KEY + b"}\n"


def test_a_last_line_without_its_line_break() -> None:
    spliced = Spliced(Dialect.OLLAMA)
    assert spliced.feed(b'{"done":true}') == b'{"done":true'
    assert spliced.finish() == KEY + b"}"


@pytest.mark.parametrize(
    ("dialect", "data"),
    [
        (Dialect.OLLAMA, TOKEN),
        (Dialect.OLLAMA, b'{"done":true,"cut'),
        (Dialect.OLLAMA, b'{"done":true}}\n'),
        (Dialect.OLLAMA, b'["done":true]\n'),
        (Dialect.OLLAMA, b'{"error":"m crashed"}\n'),
        (Dialect.OPENAI, b"".join(OPENAI[:4]).replace(b"^", b"")),
        (Dialect.OPENAI, b'data: {"choices":[],"x":{}'),
        (Dialect.OPENAI, b"data: [DONE]\n\n"),
        (Dialect.ANTHROPIC, b"event: error\ndata: {}\n\n"),
        (Dialect.ANTHROPIC, b'data: {"type":"message_delta"}\n\n'),
    ],
)
def test_a_stream_without_its_end_passes_unchanged(dialect: Dialect, data: bytes) -> None:
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        spliced = Spliced(dialect)
        spliced.feed(*pieces)
        spliced.finish()
        assert spliced.whole == data
        assert spliced.told == []


def test_two_choices_that_end_one_after_the_other() -> None:
    spliced = Spliced(Dialect.OPENAI)
    first = plain(OPENAI)[2]
    data = first + b"\n" + OPENAI_TOKEN + b"\n" + first + b"\ndata: [DONE]\n\n"
    spliced.feed(*data.splitlines(keepends=True))
    last = OPENAI[2].replace(b"^", KEY)
    assert spliced.whole == first + b"\n" + OPENAI_TOKEN + b"\n" + last + b"\ndata: [DONE]\n\n"


def test_what_is_too_long_for_a_last_line_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "_WAITING_MAX_BYTES", 100)
    spliced = Spliced(Dialect.OLLAMA)
    data = b'{"done":true,"response":"' + b"x" * 200 + b'"}\n'
    spliced.feed(*(data[i : i + 1] for i in range(len(data))))
    spliced.finish()
    assert spliced.whole == data


class Heard:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.sources: list[object] = []
        self.writing_paused = True

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def feed_from(self, source: AnswerSource | None) -> None:
        self.sources.append(source)


def test_it_stands_in_for_the_clients_end() -> None:
    heard = Heard()
    down = SplicedDown(heard, Splice(wire(Dialect.OLLAMA), lambda _: b"{}"))  # type: ignore[arg-type]
    down.feed_from(None)
    assert down.writing_paused
    for piece in (TOKEN, b'{"done":true', b"}"):
        down.write(piece)
    down.finish()
    down.finish()
    assert heard.pieces == [TOKEN, b'{"done":true', b',"llm":{}}']
    assert heard.sources == [None]


@pytest.mark.parametrize(
    ("body", "out"),
    [
        (b'{"a":1}', b'{"a":1,"llm":{"x":"}"}}'),
        (b'{"a":{}}\n', b'{"a":{},"llm":{"x":"}"}}\n'),
        (b"{ }", b'{ "llm":{"x":"}"}}'),
        (b"[1]", b"[1]"),
        (b"", b""),
        (b'"}', b'"}'),
    ],
)
def test_a_whole_answer(body: bytes, out: bytes) -> None:
    assert spliced_whole(body, b'{"x":"}"}') == out


# --- Work that grows no faster than what comes ------------------------------------------------

MARKED = {
    Dialect.OLLAMA: b'{"done":true,"response":"',
    Dialect.OPENAI: b'data: {"choices":[],"x":"',
    Dialect.ANTHROPIC: b'data: {"type":"message_stop","x":"',
}
PIECES = {
    "a line without an end": b"0123456789abcdef",
    "braces": b"0123456789abcde}",
    "one brace and blanks": b"                ",
    "blanks and braces": b"              } ",
    "half a mark": b'"done" "choices"',
    "carriage returns": b"\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r",
    "comments": b": 0123456789abc\n",
    "blank lines": b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
    "last lines": b'{"done":true}  \n',
    "lines of data": b'data: {"id":{}}\n',
}


def splice_work(dialect: Dialect, pieces: Iterable[bytes]) -> int:
    work = Work()
    spliced = Splice(wire(dialect), lambda _: b"{}")
    spliced._mark = CountedPattern(spliced._mark, work)  # type: ignore[assignment]
    return work_of(spliced.feed, pieces, work)


@pytest.mark.parametrize("begun", [b"", b"x", b"marked", b"marked}"])
@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("dialect", MARKED)
def test_many_small_pieces_take_no_more_work_than_their_bytes(
    dialect: Dialect, name: str, begun: bytes
) -> None:
    start = begun.replace(b"marked", MARKED[dialect]).replace(b"}", b'"}')

    def work_for(count: int) -> int:
        return splice_work(dialect, [start, *[PIECES[name]] * count])

    assert is_linear(work_for, 300)


@pytest.mark.parametrize("name", PIECES)
def test_a_pending_line_takes_no_more_work_for_what_follows_it(name: str) -> None:
    def work_for(count: int) -> int:
        pending = b'data: {"choices":[]}\n'
        return splice_work(Dialect.OPENAI, [pending, *[PIECES[name]] * count])

    assert is_linear(work_for, 300)


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("dialect", MARKED)
def test_one_large_piece_takes_no_more_work_than_its_bytes(dialect: Dialect, name: str) -> None:
    def work_for(count: int) -> int:
        return splice_work(dialect, [MARKED[dialect] + b'"}\n' + PIECES[name] * count])

    assert is_linear(work_for, 300)


def test_more_blanks_in_a_mark_than_anybody_writes_make_it_none() -> None:
    for blanks, key in ((16, KEY), (17, b"")):
        line = b'{"done"%b:true^}\n' % (b" " * blanks)
        for size in (1, 7, 100):
            spliced = Spliced(Dialect.OLLAMA)
            plain_line = line.replace(b"^", b"")
            spliced.feed(*(plain_line[i : i + size] for i in range(0, len(plain_line), size)))
            spliced.finish()
            assert spliced.whole == line.replace(b"^", key)
