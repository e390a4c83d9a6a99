"""Errors out of responses: the class by the family, the fields of every error."""

from __future__ import annotations

import json
import pickle
import traceback
from typing import Any

import pytest

import modelsplit_client
from modelsplit_client import CallError, ModelNotFoundError, OverloadThrottledError, UpstreamError
from modelsplit_client.errors import FAMILIES, Told, family, of_object, of_response
from modelsplit_policy.failures import ERRORS, ErrorCode, Failure
from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol import error_body
from modelsplit_proxy.protocol.error_body import Scene

SCENE = Scene("r1", "PLANNER", "PLANNER", "LOCAL", "qwen3:4b", 2, fallback_used=True)
REASONS = [
    pytest.param(code, reason, id=f"{code}-{reason}")
    for code, spec in ERRORS.items()
    for reason in sorted(spec.reasons)
]


def test_every_code_but_the_one_nobody_is_told_has_its_class() -> None:
    classes = {code: family(code) for code in ErrorCode}
    assert classes.pop(ErrorCode.CLIENT_GONE) is CallError
    assert set(classes.values()) == set(FAMILIES.values())
    assert {name for name in vars(modelsplit_client) if name.endswith("Error")} >= {
        kind.__name__ for kind in FAMILIES.values()
    }


def test_local_and_cloud_are_one_family() -> None:
    assert family("E_TIMEOUT_LOCAL") is family("E_TIMEOUT_CLOUD")
    assert family("E_OF_TOMORROW") is family(None) is CallError


@pytest.mark.parametrize("dialect", [Dialect.OLLAMA, Dialect.OPENAI])
@pytest.mark.parametrize(("code", "reason"), REASONS)
def test_all_fields_of_an_error_come_across(code: ErrorCode, reason: Any, dialect: Dialect) -> None:
    failure = Failure(code, reason, "what happened", "Phrase", retry_after_s=3)
    error = of_response(
        failure.status,
        {"retry-after": "3", "x-should-retry": "false"},
        error_body.body(dialect, failure, SCENE),
    )
    assert type(error) is family(code)
    assert str(error) == "what happened"
    told = error_body.fields(failure, SCENE)
    assert {name: getattr(error, name) for name in told} == told
    assert (error.status, error.retry_after, error.should_retry) == (failure.status, 3.0, False)


def test_ollamas_own_words_get_their_fields_from_the_headers() -> None:
    headers = {
        "x-request-id": "r1",
        "x-llm-role": "CHAT",
        "x-llm-context": "CHAT",
        "x-llm-provider": "LOCAL",
        "x-llm-model": "nope",
        "x-llm-attempt": "1",
        "x-llm-fallback-used": "false",
        "x-llm-error-code": "E_MODEL_NOT_FOUND",
    }
    error = of_response(404, headers, b'{"error":"model \'nope\' not found"}')
    assert isinstance(error, ModelNotFoundError)
    assert error.told == Told(
        error_code="E_MODEL_NOT_FOUND",
        error_context="CHAT",
        error_provider="LOCAL",
        llm_context="CHAT",
        llm_role="CHAT",
        llm_provider="LOCAL",
        llm_model="nope",
        request_id="r1",
        reason="not_installed",
        llm_attempt=1,
        fallback_used=False,
        status=404,
    )


@pytest.mark.parametrize(
    ("code", "advice", "reason"),
    [
        ("E_UPSTREAM_LOCAL", "false", "upstream_rejected"),
        ("E_UPSTREAM_CLOUD", "", None),
        ("E_OVERLOAD_THROTTLED", "", "upstream_busy"),
        ("E_BAD_REQUEST", "false", "upstream_rejected"),
    ],
)
def test_the_reason_of_ollamas_own_words_is_told_where_it_can_be_but_one(
    code: str, advice: str, reason: str | None
) -> None:
    headers = {"x-llm-error-code": code, "x-should-retry": advice}
    assert of_response(500, headers, b'{"error":"no"}').reason == reason


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "HTTP status 502"),
        (b"<html><body>Bad Gateway</body></html>", "HTTP status 502"),
        (b"no   such\n host", "no such host"),
        (b'["what"]', '["what"]'),
        (b'{"error":{"message":"the runner died"}}', "the runner died"),
        (b'{"error":{}}', "error"),
        (b'{"error":"busy","error_code":7,"llm_attempt":[1]}', "busy"),
        (b"[" * 100_000, "[" * 200),
    ],
)
def test_what_is_not_modelsplits_is_a_call_error_without_fields(body: bytes, sentence: str) -> None:
    error = of_response(502, {}, body)
    assert type(error) is CallError
    assert str(error) == sentence
    assert error.llm_attempt is None


def test_an_error_of_ollamas_inside_a_stream_is_a_broken_stream() -> None:
    error = of_object({"error": "oops"}, {"x-llm-provider": "CLOUD"}, text="so far")
    assert (error.error_code, error.reason) == ("E_STREAM_BROKEN_CLOUD", "error_line")
    assert (error.status, error.text) == (200, "so far")


def test_a_retry_after_that_is_no_number_of_seconds_is_none() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "x-llm-error-code": "E_RATE_LIMITED"}
    assert of_response(429, headers, b"{}").retry_after is None


def test_an_error_travels_between_processes() -> None:
    body = {"error": "full", "error_code": "E_OVERLOAD_THROTTLED", "reason": "queue_full"}
    error = of_response(503, {"x-request-id": "r1"}, json.dumps(body).encode())
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, OverloadThrottledError)
    assert (str(again), again.told) == (str(error), error.told)


def test_a_traceback_says_where_to_look() -> None:
    headers = {"x-request-id": "r1", "x-llm-error-code": "E_UPSTREAM_LOCAL"}
    error = of_response(500, headers, b'{"error":"boom"}')
    assert isinstance(error, UpstreamError)
    *_, last = traceback.format_exception_only(error)
    assert last == "E_UPSTREAM_LOCAL: modelsplit requests r1\n"
