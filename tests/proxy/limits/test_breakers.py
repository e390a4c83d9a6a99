"""Breakers with a clock and a log: what a client is told, and what an operator reads."""

from __future__ import annotations

import logging

import pytest

from modelsplit_policy.breaker import Allowed, BreakerRules, Breakers, State
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.limits.breakers import Fuses

LOCAL = Provider.LOCAL
BROKEN = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, "Ollama answered 500", "Failed")
AWAY = Failure(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, "refused", "Unreachable")
LATE = Failure(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT, "late", "Upstream Timeout")


class Hands:
    """A clock that somebody moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        raise AssertionError("breakers are of monotonic time")


def made(**rules: float) -> tuple[Fuses, Hands]:
    clock = Hands()
    return Fuses(Breakers(BreakerRules(**rules)), clock), clock  # type: ignore[arg-type]


def admitted(fuses: Fuses, model: str = "m") -> Allowed:
    allowed = fuses.admit(LOCAL, model)
    assert isinstance(allowed, Allowed)
    return allowed


def end(
    fuses: Fuses, failure: Failure | None = None, model: str = "m", *, gone: bool = False
) -> None:
    """One call, from admission to its end."""
    allowed = admitted(fuses, model)
    completed = failure is None and not gone
    fuses.ended(allowed, failure, completed=completed, deadline_was_clients=False)


def test_after_five_failures_calls_are_refused_with_the_reason() -> None:
    fuses, _ = made()
    for _ in range(4):
        end(fuses, BROKEN)
    assert fuses.check(LOCAL, "m") is None
    end(fuses, BROKEN)
    refused = fuses.check(LOCAL, "m")
    assert refused is not None
    assert (refused.code, refused.reason) == (ErrorCode.OVERLOAD_THROTTLED, Reason.BREAKER_OPEN)
    assert refused.phrase == "Breaker Open"
    assert refused.message == (
        "calls to LOCAL/m are stopped for now: 5 failures in a row, last: "
        "E_UPSTREAM_LOCAL status; retry in 1 s"
    )
    assert fuses.admit(LOCAL, "m") == refused
    assert fuses.check(LOCAL, "other") is None
    assert repr(fuses).startswith("<Fuses <Breakers LOCAL/m open")


def test_nobody_there_stops_calls_to_every_model() -> None:
    fuses, _ = made()
    for model in "abcde":
        end(fuses, AWAY, model)
    refused = fuses.check(LOCAL, "never asked for")
    assert refused is not None
    assert refused.message.startswith("calls to LOCAL are stopped for now: 5 failures in a row")


@pytest.mark.parametrize(
    ("open_s", "later", "told"),
    [(1.0, 0.0, 1), (1.0, 0.9, 1), (2.0, 0.0, 2), (2.5, 0.0, 3), (10.0, 0.0, 10), (99.0, 0.0, 30)],
)
def test_when_to_come_back_is_told_in_whole_seconds_never_too_few(
    open_s: float, later: float, told: int
) -> None:
    fuses, clock = made(open_s=open_s, open_max_s=100.0)
    for _ in range(5):
        end(fuses, BROKEN)
    clock.at += later
    refused = fuses.check(LOCAL, "m")
    assert refused is not None
    assert refused.retry_after_s == told


def test_after_its_time_exactly_one_call_goes_and_its_end_decides() -> None:
    fuses, clock = made()
    for _ in range(5):
        end(fuses, BROKEN)
    clock.at += 1.0
    trial = admitted(fuses)
    assert trial.trial
    assert isinstance(fuses.admit(LOCAL, "m"), Failure)
    fuses.ended(trial, None, completed=True, deadline_was_clients=False)
    assert fuses.check(LOCAL, "m") is None
    assert fuses.snapshot() == ()


def test_a_provider_is_back_with_the_first_byte_of_its_trial() -> None:
    fuses, clock = made()
    for _ in range(5):
        end(fuses, AWAY)
    clock.at += 1.0
    trial = admitted(fuses)
    assert isinstance(fuses.admit(LOCAL, "other"), Failure)
    fuses.reached(trial)
    assert isinstance(fuses.admit(LOCAL, "other"), Allowed)


@pytest.mark.parametrize(
    ("failure", "clients"),
    [
        (None, False),
        (LATE, True),
        (Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.UPSTREAM_BUSY, "", ""), False),
        (Failure(ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED, "", ""), False),
    ],
    ids=["left", "impatient", "busy", "not installed"],
)
def test_what_is_nobodys_failure_never_opens_anything(
    failure: Failure | None, *, clients: bool
) -> None:
    fuses, _ = made()
    for _ in range(20):
        fuses.ended(admitted(fuses), failure, completed=False, deadline_was_clients=clients)
    assert fuses.snapshot() == ()


def test_timeouts_at_our_own_deadline_count() -> None:
    fuses, _ = made()
    for _ in range(5):
        end(fuses, LATE)
    [view] = fuses.snapshot()
    assert (str(view.key), view.state, view.failures) == ("LOCAL/m", State.OPEN, 5)


def test_every_step_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    fuses, clock = made()
    for _ in range(5):
        end(fuses, BROKEN)
    clock.at += 1.0
    end(fuses, BROKEN)
    clock.at += 2.0
    end(fuses)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 5
    cause = "in a row, last: E_UPSTREAM_LOCAL status"
    assert caplog.messages == [
        f"breaker LOCAL/m: closed -> open: 5 failures {cause}",
        f"breaker LOCAL/m: open -> half_open: trial after 5 failures {cause}",
        f"breaker LOCAL/m: half_open -> open: the trial failed, 6 failures {cause}",
        f"breaker LOCAL/m: open -> half_open: trial after 6 failures {cause}",
        "breaker LOCAL/m: half_open -> closed: the trial succeeded",
    ]


def test_a_models_name_cannot_write_log_lines_or_sentences(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fuses, _ = made()
    name = "m\nERROR everything is lost\x1b[31m" + "x" * 1000
    for _ in range(5):
        end(fuses, BROKEN, name)
    [line] = caplog.messages
    assert line.isprintable()
    assert len(line) < 200
    refused = fuses.check(LOCAL, name)
    assert refused is not None
    assert refused.message.isprintable()
    assert len(refused.message) <= 200
    assert "5 failures in a row" in refused.message
