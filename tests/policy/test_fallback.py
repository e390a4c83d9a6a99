"""Which failures the one fallback may answer for."""

from __future__ import annotations

import pytest

from modelsplit_policy.failures import ERRORS, ErrorCode, Failure, Reason
from modelsplit_policy.fallback import is_cause

MAY = {
    "E_UNREACHABLE_LOCAL",
    "E_UNREACHABLE_CLOUD",
    "E_UPSTREAM_LOCAL",
    "E_UPSTREAM_CLOUD",
    "E_MODEL_NOT_FOUND",
    "E_TIMEOUT_LOCAL",
    "E_TIMEOUT_CLOUD",
    "E_SCHEMA_INVALID",
}
# What the request did, and what the model said, is so with any model.
REQUESTS = {
    Reason.UPSTREAM_REJECTED,
    Reason.UNREADABLE_ANSWER,
    Reason.CUT,
    # The second model is behind the same silence.
    Reason.CONNECT_REFUSED,
    Reason.CONNECT_TIMEOUT,
    Reason.DNS,
    Reason.UPSTREAM_MUTE,
}


@pytest.mark.parametrize("code", sorted(set(ErrorCode) - {ErrorCode.OVERLOAD_THROTTLED}))
def test_the_code_decides(code: ErrorCode) -> None:
    for reason in ERRORS[code].reasons:
        may = code in MAY and reason not in REQUESTS
        assert is_cause(Failure(code, reason, "x", "X")) == may


@pytest.mark.parametrize("reason", sorted(ERRORS[ErrorCode.OVERLOAD_THROTTLED].reasons))
def test_a_busy_upstream_or_an_open_breaker_is_a_cause_but_our_own_line_is_not(
    reason: Reason,
) -> None:
    failure = Failure(ErrorCode.OVERLOAD_THROTTLED, reason, "x", "X", retry_after_s=1)
    assert is_cause(failure) == (reason in {Reason.UPSTREAM_BUSY, Reason.BREAKER_OPEN})
