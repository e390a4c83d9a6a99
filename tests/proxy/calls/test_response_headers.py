"""The header lines that tell a client what was done for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.vocabulary import RouteReason
from modelsplit_proxy.calls import response_headers
from modelsplit_proxy.records.record import CallRecord
from support.records import QUEUE_FULL, answered, begun, fallen_back, routing, turned_away

Lines = dict[str, str]


def told(record: CallRecord, now: float = 103.5, *, total: bool = True) -> Lines:
    block = b"".join(response_headers.lines(record, now, total=total)).decode("ascii")
    assert block.endswith("\r\n")
    pairs = [line.split(": ", 1) for line in block.split("\r\n")[:-1]]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "a tag twice"
    return dict(pairs)


def test_an_answered_call_is_told_in_full() -> None:
    assert told(answered()) == {
        "X-Request-Id": "req-1",
        "request-id": "req-1",
        "X-LLM-Role": "PLANNER",
        "X-LLM-Context": "PLANNER",
        "X-LLM-Provider": "LOCAL",
        "X-LLM-Model": "qwen3:4b",
        "X-LLM-Requested-Model": "planner",
        "X-LLM-Attempt": "1",
        "X-LLM-Fallback-Used": "false",
        "X-LLM-Queue-Wait-Ms": "500.0",
        "X-LLM-Route-Reason": "alias",
        "Server-Timing": "queue;dur=500.0, load;dur=250.0, ttfb;dur=1000.0, total;dur=3500.0",
        "Via": "1.1 modelsplit",
    }


def test_a_stream_that_begins_has_no_total_yet() -> None:
    assert "total" not in told(answered(), total=False)["Server-Timing"]


def test_a_fallback_names_the_model_that_answered() -> None:
    lines = told(fallen_back())
    assert lines["X-LLM-Model"] == "qwen3:8b"
    assert lines["X-LLM-Requested-Model"] == "planner"
    assert (lines["X-LLM-Attempt"], lines["X-LLM-Fallback-Used"]) == ("2", "true")
    assert lines["X-LLM-Route-Reason"] == "fallback"


def test_a_call_that_began_at_the_fallback_is_on_its_first_attempt() -> None:
    record = answered()
    routing(record).starts_at_fallback = True
    routing(record).reason = RouteReason.FALLBACK
    lines = told(record)
    assert (lines["X-LLM-Attempt"], lines["X-LLM-Fallback-Used"]) == ("1", "true")
    assert lines["X-LLM-Route-Reason"] == "fallback"


def test_a_failure_names_its_code_and_no_time_that_never_was() -> None:
    lines = told(turned_away())
    assert lines["X-LLM-Error-Code"] == QUEUE_FULL.code
    assert lines["Server-Timing"] == "queue;dur=2000.0, total;dur=3500.0"


def test_a_call_refused_before_it_had_a_role_still_has_its_id() -> None:
    lines = told(begun())
    assert set(lines) == {
        "X-Request-Id",
        "request-id",
        "X-LLM-Queue-Wait-Ms",
        "Server-Timing",
        "Via",
    }


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("hf.co/org/Model-GGUF:Q4_K_M", "hf.co/org/Model-GGUF:Q4_K_M"),
        ("", ""),
        ("模", "%E6%A8%A1"),
        ("a\r\nSet-Cookie: x", "a%0D%0ASet-Cookie: x"),
        ("\x00\x7f", "%00%7F"),
        ("half \ud83d", "half %3F"),
        ("x" * 300, "x" * 256),
    ],
)
def test_a_model_name_is_told_in_what_a_header_can_carry(model: str, shown: str) -> None:
    record = answered()
    record.attempts[-1].model = model
    assert told(record)["X-LLM-Model"] == shown


@given(model=st.text(st.characters()))
def test_no_model_name_breaks_out_of_its_line(model: str) -> None:
    record = answered()
    record.requested_model = record.attempts[-1].model = model
    assert set(told(record)) >= set(told(answered())) - {"X-LLM-Requested-Model"}
    assert len(told(record)) <= len(told(answered()))
