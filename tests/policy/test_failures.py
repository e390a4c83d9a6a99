"""The error table as clients see it: statuses, types, advice, and reasons that belong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.failures import (
    ERRORS,
    MESSAGE_MAX,
    ErrorCode,
    Failure,
    Reason,
    fitted,
    for_provider,
    said_back,
)
from modelsplit_policy.vocabulary import Provider

STATUSES = {
    "E_BAD_REQUEST": 400,
    "E_UNAUTHORIZED": 401,
    "E_FORBIDDEN": 403,
    "E_ESCALATION_DENIED": 403,
    "E_BUDGET_NOT_APPROVED": 403,
    "E_MODEL_NOT_FOUND": 404,
    "E_REQUEST_TOO_LARGE": 413,
    "E_RATE_LIMITED": 429,
    "E_BUDGET_EXHAUSTED": 429,
    "E_OVERLOAD_THROTTLED": 503,
    "E_UNREACHABLE_LOCAL": 502,
    "E_UNREACHABLE_CLOUD": 502,
    "E_UPSTREAM_LOCAL": 502,
    "E_UPSTREAM_CLOUD": 502,
    "E_STREAM_BROKEN_LOCAL": 502,
    "E_STREAM_BROKEN_CLOUD": 502,
    "E_TIMEOUT_LOCAL": 504,
    "E_TIMEOUT_CLOUD": 504,
    "E_SCHEMA_INVALID": 502,
    "E_LOOP": 508,
    "E_CLIENT_GONE": 499,
    "E_INTERNAL": 500,
}
NEVER_AGAIN = {
    "E_BAD_REQUEST",
    "E_UNAUTHORIZED",
    "E_FORBIDDEN",
    "E_ESCALATION_DENIED",
    "E_BUDGET_NOT_APPROVED",
    "E_MODEL_NOT_FOUND",
    "E_REQUEST_TOO_LARGE",
    "E_BUDGET_EXHAUSTED",
    "E_LOOP",
}


def failure(code: ErrorCode) -> Failure:
    return Failure(code, min(ERRORS[code].reasons), "what happened", "Phrase")


def test_every_code_has_the_status_the_contract_gives_it() -> None:
    assert {code: failure(code).status for code in ErrorCode} == STATUSES


def test_retrying_is_advised_against_where_it_cannot_help_and_nowhere_else() -> None:
    assert {code for code in ErrorCode if failure(code).should_retry is False} == NEVER_AGAIN
    assert not any(failure(code).should_retry for code in ErrorCode)


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        # What Anthropic's and OpenAI's SDKs switch on.
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_the_type_follows_from_the_status_as_in_the_sdks(status: int, error_type: str) -> None:
    types = {failure(code).error_type for code in ErrorCode if failure(code).status == status}
    assert types == {error_type}


def test_overload_has_exactly_the_reasons_of_the_contract_and_two_of_the_door() -> None:
    words = ["queue_full", "queue_timeout", "shed", "upstream_busy", "breaker_open", "draining"]
    door = ["request_memory", "connections"]
    assert ERRORS[ErrorCode.OVERLOAD_THROTTLED].reasons == {*words, *door}


def test_a_failure_may_have_a_status_of_its_own() -> None:
    usual = Failure(ErrorCode.BAD_REQUEST, Reason.BAD_HTTP, "x", "X")
    own = Failure(ErrorCode.BAD_REQUEST, Reason.BAD_HTTP, "x", "X", own_status=505)
    assert (usual.status, own.status) == (400, 505)


def test_every_reason_belongs_to_some_code() -> None:
    assert {reason for spec in ERRORS.values() for reason in spec.reasons} == set(Reason)


def test_a_reason_of_another_code_is_our_bug() -> None:
    with pytest.raises(ValueError, match="queue_full is not a reason of E_LOOP"):
        Failure(ErrorCode.LOOP, Reason.QUEUE_FULL, "x", "X")


def test_a_failure_of_the_cloud_is_told_of_the_cloud() -> None:
    cloud = for_provider(ErrorCode.TIMEOUT_LOCAL, Provider.CLOUD)
    assert cloud is ErrorCode.TIMEOUT_CLOUD
    assert for_provider(ErrorCode.TIMEOUT_LOCAL, Provider.LOCAL) is ErrorCode.TIMEOUT_LOCAL
    assert for_provider(ErrorCode.MODEL_NOT_FOUND, Provider.CLOUD) is ErrorCode.MODEL_NOT_FOUND


@pytest.mark.parametrize("code", [code for code in ErrorCode if code.endswith("_LOCAL")])
def test_both_providers_share_status_type_and_reasons(code: ErrorCode) -> None:
    here, there = ERRORS[code], ERRORS[for_provider(code, Provider.CLOUD)]
    # Who asks a cloud needs a key.
    assert there.reasons - here.reasons <= {Reason.PROVIDER_CREDENTIAL}
    assert replace(there, reasons=here.reasons) == here
    assert for_provider(code, Provider.CLOUD) == code.replace("LOCAL", "CLOUD")


# --- Saying back what a client said -----------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("qwen3:4b", "qwen3:4b"),
        ("modèle 模型", "modèle 模型"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 39 + "…"),
        ("a\r\nX-Evil: 1", "a\ufffd\ufffdX-Evil: 1"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("byte \udcff", "byte \ufffd"),
    ],
)
def test_what_was_said_is_shown_short_and_printable(said: str, shown: str) -> None:
    assert said_back(said) == shown


@given(said=st.text(st.characters(), max_size=80))
def test_whatever_was_said_can_be_encoded_and_stays_on_one_line(said: str) -> None:
    shown = said_back(said)
    assert len(shown.encode().splitlines()) <= 1
    assert len(shown) <= 40


@pytest.mark.parametrize(
    ("said", "then"),
    [
        ("Ollama answered 500: x", "Ollama on big answered 500: x"),
        ("m was not done within 15 s", "host big: m was not done within 15 s"),
        (f"{'x' * 190}; ask again", f"host big: {'x' * 179}; ask again"),
        ("x" * 200, f"host big: {'x' * 190}"),
    ],
)
def test_a_failure_of_one_of_several_hosts_names_it_and_keeps_what_to_do(
    said: str, then: str
) -> None:
    failure = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, said, "Upstream Failed")
    assert failure.of_host("big").message == then
    assert len(then) <= MESSAGE_MAX


def test_of_a_message_that_is_too_long_the_step_stays() -> None:
    assert fitted("a", "b") == "a; b"
    assert fitted("a" * 300, "step") == f"{'a' * 194}; step"
    assert fitted("a", "b" * 300) == f"; {'b' * 198}"
