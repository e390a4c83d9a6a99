"""The request headers a client may send: read, or refused by name, never guessed at."""

from __future__ import annotations

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.vocabulary import Purpose
from modelsplit_proxy.protocol.request_headers import (
    NOTHING,
    Asked,
    AskedError,
    read_asked,
    request_id,
    trace_context,
)


def sent(**headers: str) -> CIMultiDictProxy[str]:
    """Headers by keyword, ``X_LLM_Role`` for ``X-LLM-Role``."""
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return CIMultiDictProxy(CIMultiDict(pairs))


def test_a_client_that_says_nothing_asks_for_nothing() -> None:
    assert read_asked(sent(Accept="*/*", X_Request_Id="r")) is NOTHING == Asked()


def test_everything_a_client_may_ask_for_in_any_case() -> None:
    asked = read_asked(
        sent(
            x_llm_role="heavy",
            X_LLM_CONTEXT="PLANNER",
            X_LLM_Retry_Level="1",
            X_LLM_Escalate="operator",
            X_LLM_Job_Id="job:1.2-3_x",
            X_LLM_Purpose="failure_analysis",
            X_LLM_Max_Wait_Ms="0",
            X_LLM_Timeout_Ms="2500",
            X_LLM_No_Fallback="1",
            X_LLM_Telemetry="Body",
        )
    )
    assert asked == Asked(
        role="heavy",
        context="PLANNER",
        retry_level=1,
        escalate="operator",
        job_id="job:1.2-3_x",
        purpose=Purpose.FAILURE_ANALYSIS,
        max_wait_ms=0,
        timeout_ms=2500,
        no_fallback=True,
        telemetry=True,
    )


def test_the_off_values_are_read_as_off() -> None:
    asked = read_asked(sent(X_LLM_Retry_Level="0", X_LLM_No_Fallback="0"))
    assert asked == Asked()


@pytest.mark.parametrize(
    ("name", "said", "advice"),
    [
        ("X-LLM-Retry-Level", "2", "send 0 or 1"),
        ("X-LLM-Telemetry", "1", "send body"),
        ("X-LLM-Retry-Level", "", "send 0 or 1"),
        ("X-LLM-No-Fallback", "true", "send 0 or 1"),
        ("X-LLM-Max-Wait-Ms", "-1", "send whole milliseconds"),
        ("X-LLM-Max-Wait-Ms", "1.5", "send whole milliseconds"),
        ("X-LLM-Max-Wait-Ms", "1e3", "send whole milliseconds"),
        ("X-LLM-Timeout-Ms", "5s", "send whole milliseconds, at least 1"),
        ("X-LLM-Timeout-Ms", "0", "send whole milliseconds, at least 1"),
        ("X-LLM-Timeout-Ms", "1_000", "send whole milliseconds, at least 1"),
        ("X-LLM-Timeout-Ms", "\u0663", "send whole milliseconds, at least 1"),
        ("X-LLM-Timeout-Ms", "1234567890", "send whole milliseconds, at least 1"),
        ("X-LLM-Job-Id", "", "send 1 to 128 letters, digits, '.', '_', ':' or '-'"),
        ("X-LLM-Purpose", "", "send failure_analysis or complex_output"),
        ("X-LLM-Purpose", "Failure_Analysis", "send failure_analysis or complex_output"),
        ("X-LLM-Purpose", "operator", "send failure_analysis or complex_output"),
        ("X-LLM-Job-Id", "a b", "send 1 to 128 letters, digits, '.', '_', ':' or '-'"),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused_by_name(
    name: str, said: str, advice: str
) -> None:
    with pytest.raises(AskedError) as refused:
        read_asked(CIMultiDictProxy(CIMultiDict({name: said})))
    failure = refused.value.failure
    assert (failure.code, failure.reason) == (ErrorCode.BAD_REQUEST, Reason.BAD_HEADER)
    assert failure.message == f'{name} "{said}" cannot be read; {advice}'


def test_a_header_sent_twice_must_say_one_thing() -> None:
    same = CIMultiDict([("X-LLM-Role", "HEAVY"), ("x-llm-role", "HEAVY")])
    assert read_asked(CIMultiDictProxy(same)).role == "HEAVY"
    torn = CIMultiDict([("X-LLM-Role", "PLANNER"), ("x-llm-role", "HEAVY")])
    with pytest.raises(AskedError) as refused:
        read_asked(CIMultiDictProxy(torn))
    assert refused.value.failure.message == (
        'X-LLM-Role "PLANNER, HEAVY" cannot be read; send it once'
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], {}),
        ([("traceparent", "00-1-2-01")], {"traceparent": "00-1-2-01"}),
        (
            [("TraceParent", "p"), ("tracestate", "a=1"), ("TraceState", "b=2")],
            {"traceparent": "p", "tracestate": "a=1,b=2"},
        ),
        ([("traceparent", "p"), ("traceparent", "q")], {}),
        ([("tracestate", "a=1")], {}),
    ],
)
def test_the_trace_context_is_one_parent_and_all_states(
    said: list[tuple[str, str]], kept: dict[str, str]
) -> None:
    assert trace_context(CIMultiDictProxy(CIMultiDict(said))) == kept


@given(said=st.text(st.characters(), max_size=300))
def test_any_job_id_is_taken_as_it_is_or_refused_in_words_that_can_be_sent(said: str) -> None:
    try:
        asked = read_asked(sent(X_LLM_Job_Id=said))
    except AskedError as refused:
        answer = refused.failure.message
    else:
        answer = asked.job_id or ""
        assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", answer)
    assert len(answer) <= 200
    orjson.dumps(answer)


@pytest.mark.parametrize("said", ["a\udcff", "x" * 5000, "tab\there"])
def test_a_value_that_cannot_be_said_back_is_shown_as_far_as_it_can(said: str) -> None:
    with pytest.raises(AskedError) as refused:
        read_asked(sent(X_LLM_Timeout_Ms=said))
    message = refused.value.failure.message
    orjson.dumps(message)
    assert message.isprintable() or "\ufffd" in message
    assert len(message) <= 200


def test_a_good_request_id_is_kept() -> None:
    assert request_id(sent(x_request_id="abc-1")) == "abc-1"


@pytest.mark.parametrize("said", ["a b", "x" * 129, "a\udcff", ""])
def test_a_bad_request_id_is_replaced(said: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", request_id(sent(X_Request_Id=said)))


def test_a_missing_request_id_is_made_anew_each_time() -> None:
    assert request_id(sent()) != request_id(sent())
