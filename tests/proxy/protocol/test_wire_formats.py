"""How each dialect writes, and that every dialect has its way."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol.error_body import Scene
from modelsplit_proxy.protocol.stream_end import LineKind
from modelsplit_proxy.protocol.wire_formats import ANTHROPIC, BY_DIALECT, OLLAMA, OPENAI
from support.endpoints import wire
from support.records import QUEUE_FULL


def test_every_dialect_has_one() -> None:
    assert {name: row.dialect for name, row in BY_DIALECT.items()} == {one: one for one in Dialect}


@pytest.mark.parametrize("dialect", Dialect)
def test_an_error_in_a_stream_is_a_line_of_that_stream(dialect: Dialect) -> None:
    row = wire(dialect)
    scene = Scene("req-1", model="m:1b")
    data = [row.data(line) for line in row.error_in_stream(QUEUE_FULL, scene).splitlines() if line]
    (words,) = [orjson.loads(line) for line in data if line is not None]
    assert words == orjson.loads(row.error_body(QUEUE_FULL, scene))


def test_the_object_with_the_end_is_known_by_its_kind() -> None:
    assert OLLAMA.kind({"done": True}) is LineKind.LAST
    assert OLLAMA.kind({"done": False}) is LineKind.OTHER
    assert OPENAI.kind({"choices": []}) is LineKind.PERHAPS
    assert OPENAI.kind({"type": "response.completed"}) is LineKind.LAST
    assert ANTHROPIC.kind({"type": "message_stop"}) is LineKind.LAST
    assert ANTHROPIC.kind({"type": "ping"}) is LineKind.OTHER


@pytest.mark.parametrize(
    ("dialect", "line"),
    [
        (Dialect.OLLAMA, b'{"done" : true}'),
        (Dialect.OPENAI, b"data: [DONE]"),
        (Dialect.OPENAI, b'data: {"choices":[{"finish_reason":"stop"}]}'),
        (Dialect.OPENAI, b'data: {"type":"response.completed"}'),
        (Dialect.ANTHROPIC, b'data: {"type":"message_stop"}'),
    ],
)
def test_the_mark_of_an_end_is_short_and_in_no_text(dialect: Dialect, line: bytes) -> None:
    mark = wire(dialect).end_mark
    found = mark.search(line)
    assert found is not None
    assert len(found[0]) <= 64
    assert mark.search(b'{"text":"%b"}' % line.replace(b'"', b'\\"')) is None or b"[DONE]" in line
