"""Failures as each client's library parses them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol import error_body
from modelsplit_proxy.protocol.error_body import Scene
from support.endpoints import wire

QUEUE_FULL = Failure(
    ErrorCode.OVERLOAD_THROTTLED,
    Reason.QUEUE_FULL,
    "role PLANNER is overloaded: its queue is full",
    "Queue Full",
    retry_after_s=4,
)
BAD_JSON = Failure(ErrorCode.BAD_REQUEST, Reason.BAD_JSON, "the body is empty", "Bad JSON")
SCENE = Scene("req-1", "PLANNER", "PLANNER", "LOCAL", "qwen3:4b", 1, fallback_used=False)
OURS = {
    "error_code": "E_OVERLOAD_THROTTLED",
    "error_context": "PLANNER",
    "error_provider": "LOCAL",
    "llm_context": "PLANNER",
    "llm_role": "PLANNER",
    "llm_provider": "LOCAL",
    "llm_model": "qwen3:4b",
    "llm_attempt": 1,
    "fallback_used": False,
    "request_id": "req-1",
    "reason": "queue_full",
}
OLLAMA = {"error": QUEUE_FULL.message, **OURS}
SDK = {
    "type": "error",
    "error": {
        "type": "overloaded_error",
        "message": QUEUE_FULL.message,
        "code": "E_OVERLOAD_THROTTLED",
        "param": None,
        **OURS,
    },
    "request_id": "req-1",
}


@pytest.mark.parametrize(
    ("dialect", "shape"),
    [(Dialect.OLLAMA, OLLAMA), (Dialect.OPENAI, SDK), (Dialect.ANTHROPIC, SDK)],
)
def test_a_body_is_one_line_in_the_clients_dialect(dialect: Dialect, shape: dict[str, Any]) -> None:
    body = error_body.body(dialect, QUEUE_FULL, SCENE)
    assert orjson.loads(body) == shape
    assert body.count(b"\n") == 1
    assert body.endswith(b"\n")


def test_in_an_ollama_stream_it_is_a_line() -> None:
    line = wire(Dialect.OLLAMA).error_in_stream(QUEUE_FULL, SCENE)
    assert line.splitlines(keepends=True) == [line]
    assert orjson.loads(line) == OLLAMA


@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.ANTHROPIC])
def test_in_an_event_stream_it_is_an_error_event(dialect: Dialect) -> None:
    event, data, *end = wire(dialect).error_in_stream(QUEUE_FULL, SCENE).split(b"\n")
    assert event == b"event: error"
    assert orjson.loads(data.removeprefix(b"data: ")) == SDK
    assert end == [b"", b""]


def test_before_anything_is_known_the_fields_are_all_there_and_empty() -> None:
    fields = error_body.fields(BAD_JSON, Scene("req-2"))
    assert list(fields) == list(OURS)
    known = {"error_code", "reason", "request_id", "llm_attempt", "fallback_used"}
    assert {name for name, value in fields.items() if value is None} == set(OURS) - known


def test_a_failure_that_waiting_cures_says_how_long() -> None:
    assert error_body.lines(QUEUE_FULL) == [b"Retry-After: 4\r\n"]


def test_a_failure_that_nothing_cures_says_so() -> None:
    assert error_body.lines(BAD_JSON) == [b"x-should-retry: false\r\n"]


@pytest.mark.parametrize("reason", [Reason.NO_KEY, Reason.WRONG_KEY])
def test_who_needs_a_key_is_told_how(reason: Reason) -> None:
    failure = Failure(ErrorCode.UNAUTHORIZED, reason, "a key is needed", "Key Needed")
    assert error_body.lines(failure) == [
        b"x-should-retry: false\r\n",
        b"WWW-Authenticate: Bearer\r\n",
    ]


def test_a_failure_that_may_pass_leaves_it_to_the_client() -> None:
    assert error_body.lines(Failure(ErrorCode.INTERNAL, Reason.BUG, "x", "X")) == []
