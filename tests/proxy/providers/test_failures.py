"""What a provider's refusals amount to, in our own words and without its key."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_proxy.http.upstream import Fault, UpstreamHead
from modelsplit_proxy.providers.answer import AnswerError
from modelsplit_proxy.providers.failures import (
    Named,
    ProviderError,
    broken,
    credential,
    no_answer,
    of_error,
    of_status,
    unreachable,
    untranslatable,
)

KEY = "sk-ant-0123456789"
NAMED = Named("anthropic", "claude-x", "$ANTHROPIC_API_KEY", KEY)
WALL = 1_700_000_000.0


def refused(status: int, message: str = "no", **headers: str) -> tuple[UpstreamHead, bytes]:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    body = orjson.dumps({"type": "error", "error": {"type": "x", "message": message}})
    return UpstreamHead(status, b"", given, None), body


@pytest.mark.parametrize(
    ("status", "code", "reason", "told"),
    [
        (400, ErrorCode.BAD_REQUEST, Reason.UPSTREAM_REJECTED, 400),
        (401, ErrorCode.UPSTREAM_CLOUD, Reason.PROVIDER_CREDENTIAL, 502),
        (402, ErrorCode.UPSTREAM_CLOUD, Reason.PROVIDER_CREDENTIAL, 502),
        (403, ErrorCode.UPSTREAM_CLOUD, Reason.PROVIDER_CREDENTIAL, 502),
        (404, ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED, 404),
        (413, ErrorCode.REQUEST_TOO_LARGE, Reason.UPSTREAM_REJECTED, 413),
        (422, ErrorCode.BAD_REQUEST, Reason.UPSTREAM_REJECTED, 422),
        (429, ErrorCode.OVERLOAD_THROTTLED, Reason.UPSTREAM_BUSY, 503),
        (500, ErrorCode.UPSTREAM_CLOUD, Reason.STATUS, 500),
        (503, ErrorCode.OVERLOAD_THROTTLED, Reason.UPSTREAM_BUSY, 503),
        (529, ErrorCode.OVERLOAD_THROTTLED, Reason.UPSTREAM_BUSY, 503),
        (302, ErrorCode.UPSTREAM_CLOUD, Reason.STATUS, 502),
    ],
)
def test_every_status_is_one_of_our_codes(
    status: int, code: ErrorCode, reason: Reason, told: int
) -> None:
    failure = of_status(*refused(status, f"{KEY} " * 30), NAMED, WALL)
    assert (failure.code, failure.reason, failure.status) == (code, reason, told)
    assert KEY not in failure.message
    assert len(failure.message) <= 200


def test_when_to_come_back_is_the_providers_and_never_less() -> None:
    assert of_status(*refused(429, retry_after="17"), NAMED, WALL).retry_after_s == 17
    assert of_status(*refused(529, retry_after="1"), NAMED, WALL).retry_after_s == 2
    assert of_status(*refused(529), NAMED, WALL).retry_after_s == 2


def test_which_key_is_wrong_is_told_and_not_to_try_again() -> None:
    failure = of_status(*refused(401, KEY), NAMED, WALL)
    assert failure.message == (
        "the key of anthropic from $ANTHROPIC_API_KEY is not accepted (401); "
        "replace it and restart modelsplit"
    )
    assert failure.should_retry is False
    assert credential("x").should_retry is False


def test_a_body_that_is_no_error_is_told_as_it_is() -> None:
    failure = of_status(UpstreamHead(502, b"", [], None), b"<h1>Bad\nGateway</h1>", NAMED, WALL)
    assert failure.message == "anthropic answered 502: <h1>Bad Gateway</h1>"
    assert "no explanation" in of_status(UpstreamHead(500, b"", [], None), b"", NAMED, WALL).message


@pytest.mark.parametrize(
    ("kind", "status"),
    [("overloaded_error", 503), ("authentication_error", 502), ("new_error", 500)],
)
def test_an_error_event_is_the_status_that_it_would_have_been(kind: str, status: int) -> None:
    assert of_error(AnswerError(kind, "no"), NAMED).status == status


def test_what_was_never_connected() -> None:
    late = unreachable(Fault.CONNECT_TIMEOUT, NAMED, "x")
    assert (late.code, late.reason) == (ErrorCode.TIMEOUT_CLOUD, Reason.CONNECT_TIMEOUT)
    away = unreachable(Fault.DNS, NAMED, f"x {KEY}")
    assert (away.code, away.reason) == (ErrorCode.UNREACHABLE_CLOUD, Reason.DNS)
    assert away.message == "anthropic cannot be reached: x ***; try `modelsplit doctor`"
    cut = unreachable(Fault.RESET, NAMED, "x")
    assert cut.message == "anthropic broke off before its answer: x; try `modelsplit doctor`"


def test_the_rest() -> None:
    assert broken(Reason.ERROR_LINE, NAMED, "x").code is ErrorCode.STREAM_BROKEN_CLOUD
    assert no_answer(NAMED, "nothing").reason is Reason.NO_ANSWER
    assert untranslatable(NAMED, "x").reason is Reason.UNTRANSLATABLE
    assert KEY not in repr(NAMED)
    assert Named("a", "m", "$K", "short").cleared("a short text") == "a short text"


def test_an_error_carries_its_failure() -> None:
    failure = no_answer(NAMED, "nothing")
    error = ProviderError(failure, status=200)
    assert (error.failure, error.status, error.is_sent) == (failure, 200, True)
    assert str(error) == failure.message
