"""What a call says in headers."""

from __future__ import annotations

import pytest

from modelsplit_client import Purpose, Role
from modelsplit_client.calls import Call, CallOptions, headers, with_system
from modelsplit_policy import vocabulary
from modelsplit_proxy.http.headers import REQUEST_NAMES

ALL: CallOptions = {
    "model": "qwen3:4b",
    "purpose": Purpose.FAILURE_ANALYSIS,
    "escalate": "failure_analysis",
    "llm_context": "EXECUTOR",
    "fallback": False,
    "max_wait": 1.5,
    "timeout": 20,
    "request_id": "r1",
    "job_id": "j1",
    "headers": {"traceparent": "00-1-1-00"},
}


def test_a_call_says_its_role_and_wants_telemetry() -> None:
    assert headers(Call("PLANNER")) == {"X-LLM-Role": "PLANNER", "X-LLM-Telemetry": "body"}
    assert headers(Call("", options={"model": "m"})) == {"X-LLM-Telemetry": "body"}


def test_every_option_has_its_header() -> None:
    assert headers(Call(Role.HEAVY, retry_level=1, options=ALL)) == {
        "X-LLM-Telemetry": "body",
        "X-LLM-Role": "HEAVY",
        "X-LLM-Retry-Level": "1",
        "X-LLM-No-Fallback": "1",
        "X-LLM-Purpose": "failure_analysis",
        "X-LLM-Escalate": "failure_analysis",
        "X-LLM-Context": "EXECUTOR",
        "X-Request-Id": "r1",
        "X-LLM-Job-Id": "j1",
        "X-LLM-Max-Wait-Ms": "1500",
        "X-LLM-Timeout-Ms": "20000",
        "traceparent": "00-1-1-00",
    }


def test_every_request_header_of_modelsplits_can_be_sent() -> None:
    sent = headers(Call("HEAVY", retry_level=1, options=ALL)).keys()
    assert {name.decode() for name in REQUEST_NAMES} <= sent


def test_an_argument_that_no_call_has_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(TypeError, match=r"no argument 'temperature'. It has escalate, extra, .*"):
        Call("", options={"temperature": 0})  # type: ignore[typeddict-unknown-key]


def test_times_are_seconds_and_must_be_numbers() -> None:
    assert headers(Call("HEAVY", options={"max_wait": 0}))["X-LLM-Max-Wait-Ms"] == "0"
    assert headers(Call("HEAVY", options={"timeout": 0.0016}))["X-LLM-Timeout-Ms"] == "2"
    with pytest.raises(ValueError, match="NaN"):
        headers(Call("HEAVY", options={"timeout": float("nan")}))


def test_the_roles_are_modelsplits() -> None:
    assert [role.value for role in Role] == [role.value for role in vocabulary.Role]


def test_a_system_message_stands_first() -> None:
    said = [{"role": "user", "content": "hi"}]
    call = Call("CHAT", messages=said, options={"system": "be brief"})
    assert with_system(call, said) == [{"role": "system", "content": "be brief"}, *said]
    assert with_system(Call("CHAT"), said) == said


@pytest.mark.parametrize(("role", "whose"), [("CHAT", "CHAT"), ("chat", "chat"), ("", "a call")])
def test_a_call_for_which_nobody_names_a_model_is_told_so_before_it_is_sent(
    role: str, whose: str
) -> None:
    with pytest.raises(ValueError, match=f"^{whose}.* has no model of its own: name one, as in"):
        headers(Call(role))
    for options in ({"model": "qwen3:4b"}, {"extra": {"model": "qwen3:4b"}}):
        headers(Call(role, options=options))  # type: ignore[arg-type]
    assert headers(Call("", options={"headers": {"x-llm-role": "PLANNER"}}))
