"""Holding one call's answer to the form that its request asked for."""

from __future__ import annotations

import orjson

from modelsplit_proxy.calls.validation import Validation
from modelsplit_proxy.records.record import CallRecord
from support.bodies import fields_of
from support.records import begun

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


def checking(fields: dict[str, object]) -> tuple[CallRecord, Validation]:
    record = begun()
    return record, Validation(record, "qwen3:4b", fields_of(fields))


def chat(content: str) -> bytes:
    return orjson.dumps({"message": {"role": "assistant", "content": content}, "done": True})


def test_an_answer_that_fits_is_noted_and_passes() -> None:
    record, validation = checking({"format": SCHEMA})
    assert validation.wanted
    assert validation.whole(chat('{"n": 1}')) is None
    assert record.schema == "valid"


def test_one_that_does_not_is_a_failure_that_shows_nothing_of_it() -> None:
    record, validation = checking({"format": SCHEMA})
    failure = validation.whole(chat('{"n": "a secret"}'))
    assert failure is not None
    assert failure.code == "E_SCHEMA_INVALID"
    assert "secret" not in failure.message
    assert failure.message.startswith("qwen3:4b's answer does not fit the schema: ")
    assert record.schema == "invalid"


def test_a_stream_is_put_together_first() -> None:
    record, validation = checking({"format": SCHEMA})
    assert validation.stream(chat('{"n":') + b"\n" + chat(" 2}") + b"\n") is None
    assert record.schema == "valid"


def test_where_nothing_is_asked_nothing_is_checked() -> None:
    record, validation = checking({})
    assert not validation.wanted
    assert validation.whole(chat("anything")) is None
    assert record.schema is None


def test_a_schema_that_cannot_be_used_is_said_so_and_stops_nobody() -> None:
    record, validation = checking({"format": {"type": "no such type"}})
    assert not validation.wanted
    assert record.schema is not None
    assert record.schema.startswith("unchecked: ")


def test_a_tool_call_is_not_held_to_it() -> None:
    record, validation = checking({"format": SCHEMA})
    call = {"message": {"role": "assistant", "content": "", "tool_calls": [{}]}, "done": True}
    assert validation.whole(orjson.dumps(call)) is None
    assert record.schema == "unchecked: the answer holds no text"
