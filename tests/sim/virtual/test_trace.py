"""The reader of traces: what it takes, and what it says of what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_sim.replay.recorded import TraceError
from modelsplit_sim.replay.trace import read

CALL: dict[str, Any] = {
    "trace": 2,
    "arrived": 1000.5,
    "route": "/api/chat",
    "llm_role": "PLANNER",
    "requested_model": "planner",
    "llm_model": "qwen3:4b",
    "stream": False,
    "outcome": "ok",
    "prompt_tokens": 20,
    "output_tokens": 36,
    "call_e2e_latency_ms": 728.7,
    "attempts": [
        {
            "model": "qwen3:4b",
            "outcome": "ok",
            "asked_ms": 0.3,
            "seated_ms": 0.4,
            "dispatched_ms": 0.5,
            "first_ms": 728.3,
            "ended_ms": 728.6,
            "load_ms": 1.3,
            "prompt_ms": 69.1,
            "eval_ms": 651.6,
            "prompt_tokens": 20,
            "output_tokens": 36,
        }
    ],
}


def test_a_call_is_read_with_all_that_is_said_of_it() -> None:
    [call] = read([(1, CALL)])
    assert (call.arrived, call.role, call.requested_model) == (1000.5, "PLANNER", "planner")
    assert (call.latency_ms, call.output_tokens, call.ok, call.left) == (728.7, 36, True, False)
    [attempt] = call.attempts
    assert (attempt.eval_ms, attempt.upstream_wait_ms, attempt.ok) == (651.6, None, True)


def test_what_its_client_asked_for_and_why_attempts_failed_is_read() -> None:
    asked = {"asked_max_wait_ms": 0, "asked_timeout_ms": 4500, "asked_no_fallback": True}
    asked |= {"asked_retry_level": 1, "schema_asked": True}
    attempt = {"model": "qwen3:4b", "outcome": "E_TIMEOUT_LOCAL", "reason": "role_timeout"}
    [call] = read([(1, CALL | asked | {"attempts": [attempt]})])
    assert (call.max_wait_ms, call.timeout_ms) == (0, 4500)
    assert (call.no_fallback, call.retry_level, call.schema_asked) == (True, 1, True)
    assert call.attempts[0].reason == "role_timeout"


def test_of_older_traces_it_is_unknown() -> None:
    [call] = read([(1, CALL)])
    assert (call.max_wait_ms, call.timeout_ms, call.schema_asked) == (None, None, None)
    assert (call.no_fallback, call.retry_level, call.attempts[0].reason) == (False, 0, None)


def test_calls_are_in_order_of_arrival_whatever_the_order_of_lines() -> None:
    later = CALL | {"arrived": 2000.0}
    assert [call.arrived for call in read([(1, later), (2, CALL)])] == [1000.5, 2000.0]


def test_what_is_missing_is_unknown() -> None:
    [call] = read([(1, {"arrived": 1, "outcome": "E_CLIENT_GONE"})])
    assert (call.role, call.requested_model, call.attempts) == (None, "", ())
    assert (call.route_reason, call.client_retry, call.left) == (None, None, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arrived": None}, "line 7: arrived is missing"),
        ({"arrived": "now"}, "line 7: arrived is of the wrong kind: now"),
        ({"started_at": "yesterday"}, 'line 7: started_at "yesterday" is no time'),
        ({"started_at": 5}, "line 7: started_at is of the wrong kind: 5"),
        ({"outcome": None}, "line 7: outcome is missing"),
        ({"llm_role": "BOSS"}, 'line 7: llm_role "BOSS" is unknown'),
        ({"asked_max_wait_ms": "1"}, "line 7: asked_max_wait_ms is of the wrong kind: 1"),
        ({"asked_timeout_ms": -1}, "line 7: asked_timeout_ms cannot be -1"),
        ({"schema_asked": 1}, "line 7: schema_asked is of the wrong kind: 1"),
        ({"output_tokens": 3.5}, "line 7: output_tokens is of the wrong kind: 3.5"),
        ({"output_tokens": -1}, "line 7: output_tokens cannot be -1"),
        ({"stream": 1}, "line 7: stream is of the wrong kind: 1"),
        ({"attempts": [1]}, "line 7: an attempt is no object"),
        ({"attempts": [{}, {}, {}]}, "line 7: 3 attempts; a call makes two at most"),
        ({"attempts": [{"model": "m"}]}, "line 7: outcome is missing"),
        ({"call_e2e_latency_ms": float("nan")}, "line 7: call_e2e_latency_ms cannot be nan"),
    ],
)
def test_what_is_of_the_wrong_kind_is_an_error_with_its_line(
    change: dict[str, Any], says: str
) -> None:
    with pytest.raises(TraceError) as error:
        read([(7, CALL | change)])
    assert str(error.value) == says
    assert error.value.line == 7


def test_no_call_at_all_is_an_error() -> None:
    with pytest.raises(TraceError, match="there is no call in it"):
        read([])
