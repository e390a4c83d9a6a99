"""The trace that a simulator replays: its fields are a promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.vocabulary import Purpose
from modelsplit_proxy.protocol.request_headers import Asked
from modelsplit_proxy.records import trace
from modelsplit_proxy.records.query import Query
from modelsplit_proxy.records.recorder import Recorder
from support.records import fallen_back, turned_away
from support.stores import opened

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_proxy.records.record import CallRecord


def traced(directory: Path, record: CallRecord) -> dict[str, Any]:
    with opened(directory) as store:
        recorder = Recorder(store)
        recorder.call_ended(record)
        [[call]] = recorder.reader.in_order(Query())
    return call


def test_one_line_of_the_trace(tmp_path: Path) -> None:
    assert traced(tmp_path, fallen_back(job_id="job-1", streamed=True)) == {
        "trace": 2,
        "arrived": 1795393743.25,
        "started_at": "2026-11-23T00:29:03.250Z",
        "request_id": "req-1",
        "job_id": "job-1",
        "purpose": None,
        "client": "127.0.0.1",
        "route": "/api/chat",
        "llm_role": "PLANNER",
        "route_reason": "alias",
        "requested_model": "planner",
        "llm_model": "qwen3:8b",
        "stream": True,
        "client_retry": False,
        "outcome": "ok",
        "status": 200,
        "reason": None,
        "fallback_used": True,
        "prompt_tokens": None,
        "output_tokens": None,
        "llm_queue_wait_ms": 250.0,
        "llm_latency_ms": 2750.0,
        "ttfb_ms": 2000.0,
        "call_e2e_latency_ms": 4000.0,
        "cost_usd": None,
        "upstream_wait_ms": None,
        "schema_asked": False,
        "schema": None,
        "asked_max_wait_ms": None,
        "asked_timeout_ms": None,
        "asked_no_fallback": None,
        "asked_retry_level": None,
        "service_ms": 3750.0,
        "attempts": [
            {
                "model": "qwen3:4b",
                "outcome": "E_UNREACHABLE_LOCAL",
                "reason": "connect_refused",
                "asked_ms": 0.0,
                "seated_ms": 0.0,
                "dispatched_ms": 0.0,
                "first_ms": None,
                "ended_ms": 1000.0,
                "load_ms": None,
                "prompt_ms": None,
                "eval_ms": None,
                "upstream_wait_ms": None,
                "prompt_tokens": None,
                "output_tokens": None,
            },
            {
                "model": "qwen3:8b",
                "outcome": "ok",
                "reason": None,
                "asked_ms": 1000.0,
                "seated_ms": 1250.0,
                "dispatched_ms": 1250.0,
                "first_ms": 2000.0,
                "ended_ms": 4000.0,
                "load_ms": None,
                "prompt_ms": None,
                "eval_ms": None,
                "upstream_wait_ms": None,
                "prompt_tokens": None,
                "output_tokens": None,
            },
        ],
    }


def test_what_the_client_asked_for_is_in_the_trace(tmp_path: Path) -> None:
    asked = Asked(max_wait_ms=0, timeout_ms=4000, no_fallback=True, retry_level=1)
    call = traced(tmp_path, fallen_back(asked=asked, schema_asked=True, schema="valid"))
    assert {name: call[name] for name in call if "asked" in name or name == "schema"} == {
        "schema_asked": True,
        "schema": "valid",
        "asked_max_wait_ms": 0,
        "asked_timeout_ms": 4000,
        "asked_no_fallback": True,
        "asked_retry_level": 1,
    }


def test_a_line_of_the_first_version_is_read_by_renaming() -> None:
    first = b'{"trace":1,"request_id":"r","job_e2e_latency_ms":4000.0,"llm_queue_wait_ms":1.0}'
    assert trace.read(first) == {
        "trace": 2,
        "request_id": "r",
        "call_e2e_latency_ms": 4000.0,
        "llm_queue_wait_ms": 1.0,
    }


def test_a_line_is_read_as_it_was_written(tmp_path: Path) -> None:
    call = traced(tmp_path, fallen_back(purpose=Purpose.COMPLEX_OUTPUT))
    assert call["purpose"] == "complex_output"
    [line] = trace.lines([call]).splitlines()
    assert trace.read(line) == call


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "{}", '{"trace":3}', '{"trace":true}', '{"trace":"1"}', '{"trace":[]}']
)
def test_what_is_no_line_of_a_known_version_is_refused(line: str) -> None:
    with pytest.raises(trace.TraceError, match=r"the line is (no |of trace version 3)"):
        trace.read(line)


def test_a_call_that_never_had_a_seat_was_not_served(tmp_path: Path) -> None:
    call = traced(tmp_path, turned_away())
    assert (call["service_ms"], call["reason"], call["llm_queue_wait_ms"]) == (
        None,
        "queue_full",
        2000.0,
    )
