"""Every code and reason has a row that says whose fault it is; these are all the rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.blame import CERTAIN, WHOSE, Blame, Circumstances, blame, pair_of
from modelsplit_policy.failures import ERRORS, ErrorCode, Failure, Reason

ROWS = [(code, reason) for code, spec in ERRORS.items() for reason in sorted(spec.reasons)]
# What may count against a provider or a model; nothing else does.
COUNTS = {
    "E_UNREACHABLE connect_refused": Blame.OUTAGE,
    "E_UNREACHABLE dns": Blame.OUTAGE,
    "E_UNREACHABLE reset": Blame.CUT,
    "E_UNREACHABLE protocol": Blame.BROKEN,
    "E_UNREACHABLE truncated": Blame.BROKEN,
    "E_UPSTREAM status": Blame.BROKEN,
    "E_UPSTREAM no_answer": Blame.BROKEN,
    "E_UPSTREAM unterminated": Blame.BROKEN,
    "E_UPSTREAM runner_failed": Blame.RUNNER,
    "E_STREAM_BROKEN reset": Blame.BROKEN,
    "E_STREAM_BROKEN protocol": Blame.BROKEN,
    "E_STREAM_BROKEN truncated": Blame.BROKEN,
    "E_STREAM_BROKEN unterminated": Blame.BROKEN,
    "E_STREAM_BROKEN error_line": Blame.BROKEN,
    "E_STREAM_BROKEN runner_failed": Blame.RUNNER,
    "E_TIMEOUT connect_timeout": Blame.OUTAGE,
    "E_TIMEOUT upstream_mute": Blame.OUTAGE,
    "E_TIMEOUT load_timeout": Blame.RUNNER,
    "E_TIMEOUT role_timeout": Blame.BROKEN,
    "E_TIMEOUT first_byte_timeout": Blame.BROKEN,
    "E_TIMEOUT stall": Blame.BROKEN,
}
AGAINST_SOMEBODY = {Blame.OUTAGE, Blame.CUT, Blame.RUNNER, Blame.BROKEN}


def failure(code: ErrorCode, reason: Reason) -> Failure:
    return Failure(code, reason, "it went wrong", "Wrong")


def test_the_table_has_a_row_for_every_code_and_reason_and_no_other() -> None:
    assert {(code, reason) for code, rows in WHOSE.items() for reason in rows} == set(ROWS)


@pytest.mark.parametrize(("code", "reason"), ROWS)
def test_what_counts_against_somebody_is_on_the_list(code: ErrorCode, reason: Reason) -> None:
    family = code.removesuffix("_LOCAL").removesuffix("_CLOUD")
    expected = COUNTS.get(f"{family} {reason}")
    whose = blame(failure(code, reason))
    assert (whose if whose in AGAINST_SOMEBODY else None) is expected


@pytest.mark.parametrize(("code", "reason"), ROWS)
def test_what_an_upstream_said_no_to_is_never_the_models(code: ErrorCode, reason: Reason) -> None:
    if reason is Reason.UPSTREAM_REJECTED:
        assert blame(failure(code, reason)) in {Blame.REQUEST, Blame.BUSY}


def test_what_no_request_can_cause() -> None:
    assert {Blame.OUTAGE, Blame.RUNNER} == CERTAIN


@pytest.mark.parametrize("code", [ErrorCode.TIMEOUT_LOCAL, ErrorCode.TIMEOUT_CLOUD])
def test_a_deadline_that_the_client_had_shortened_is_its_own_affair(code: ErrorCode) -> None:
    hasty = Circumstances(deadline_was_clients=True)
    assert blame(failure(code, Reason.ROLE_TIMEOUT), hasty) is Blame.NOBODY
    assert blame(failure(code, Reason.STALL), hasty) is Blame.BROKEN
    assert blame(failure(code, Reason.LOAD_TIMEOUT), hasty) is Blame.RUNNER


@pytest.mark.parametrize("code", [ErrorCode.TIMEOUT_LOCAL, ErrorCode.TIMEOUT_CLOUD])
def test_silence_while_an_answer_is_held_back_is_nobodys(code: ErrorCode) -> None:
    held = Circumstances(holds_back=True)
    assert blame(failure(code, Reason.STALL), held) is Blame.NOBODY
    assert blame(failure(code, Reason.ROLE_TIMEOUT), held) is Blame.BROKEN


@given(st.text(), st.binary(), st.text(), st.binary())
def test_a_pair_is_who_asked_and_what(one: str, body: bytes, other: str, more: bytes) -> None:
    assert pair_of(one, body) == pair_of(one, bytes(bytearray(body)))
    if (one, body) != (other, more) and not body.startswith(b"--") and not more.startswith(b"--"):
        assert pair_of(one, body) != pair_of(other, more)


def test_the_boundary_of_a_form_makes_no_other_pair() -> None:
    forms = [
        b"--%b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--%b--\r\n" % (word, word)
        for word in (b"5ca1ab1e", b"deadbeef")
    ]
    assert pair_of("a", forms[0]) == pair_of("a", forms[1])
