"""Breakers with a clock and a log: what a client is told, and what an operator reads."""

from __future__ import annotations

import logging

import pytest

from modelsplit_policy.blame import USUAL, Circumstances
from modelsplit_policy.breaker import Allowed, BreakerRules, Breakers, BreakerState
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.vocabulary import Host, Provider
from modelsplit_proxy.limits.breakers import BreakerKeeper

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


def made(**rules: float) -> tuple[BreakerKeeper, Hands]:
    clock = Hands()
    return BreakerKeeper(Breakers(BreakerRules(**rules)), clock), clock  # type: ignore[arg-type]


def admitted(breakers: BreakerKeeper, model: str = "m") -> Allowed:
    allowed = breakers.admit(LOCAL, model)
    assert isinstance(allowed, Allowed)
    return allowed


def end(
    breakers: BreakerKeeper, failure: Failure | None = None, model: str = "m", *, gone: bool = False
) -> None:
    """One call, from admission to its end."""
    allowed = admitted(breakers, model)
    completed = failure is None and not gone
    breakers.ended(allowed, failure, completed=completed)


def test_after_five_failures_calls_are_refused_with_the_reason() -> None:
    breakers, _ = made()
    for _ in range(4):
        end(breakers, BROKEN)
    assert breakers.check(LOCAL, "m") is None
    end(breakers, BROKEN)
    refused = breakers.check(LOCAL, "m")
    assert refused is not None
    assert (refused.code, refused.reason) == (ErrorCode.OVERLOAD_THROTTLED, Reason.BREAKER_OPEN)
    assert refused.phrase == "Breaker Open"
    assert refused.message == (
        "calls to LOCAL/m are stopped for now: 5 failures in a row, last: "
        "E_UPSTREAM_LOCAL status; retry in 1 s"
    )
    assert breakers.admit(LOCAL, "m") == refused
    assert breakers.check(LOCAL, "other") is None
    assert repr(breakers).startswith("<BreakerKeeper <Breakers LOCAL/m open")


def test_nobody_there_stops_calls_to_every_model() -> None:
    breakers, _ = made()
    for model in "abcde":
        end(breakers, AWAY, model)
    refused = breakers.check(LOCAL, "never asked for")
    assert refused is not None
    # Told as the last of them was: it is one outage.
    assert (refused.code, refused.reason) == (AWAY.code, AWAY.reason)
    assert (refused.message, refused.unsent) == ("refused; asked again in 1 s", True)


@pytest.mark.parametrize(
    ("open_s", "later", "told"),
    [(1.0, 0.0, 1), (1.0, 0.9, 1), (2.0, 0.0, 2), (2.5, 0.0, 3), (10.0, 0.0, 10), (99.0, 0.0, 30)],
)
def test_when_to_come_back_is_told_in_whole_seconds_never_too_few(
    open_s: float, later: float, told: int
) -> None:
    breakers, clock = made(open_s=open_s, open_max_s=100.0)
    for _ in range(5):
        end(breakers, BROKEN)
    clock.at += later
    refused = breakers.check(LOCAL, "m")
    assert refused is not None
    assert refused.retry_after_s == told


def test_after_its_time_exactly_one_call_goes_and_its_end_decides() -> None:
    breakers, clock = made()
    for _ in range(5):
        end(breakers, BROKEN)
    clock.at += 1.0
    trial = admitted(breakers)
    assert trial.trial
    assert isinstance(breakers.admit(LOCAL, "m"), Failure)
    breakers.ended(trial, None, completed=True)
    assert breakers.check(LOCAL, "m") is None
    assert breakers.snapshot() == ()


def test_a_provider_is_back_with_the_first_byte_of_its_trial() -> None:
    breakers, clock = made()
    for _ in range(5):
        end(breakers, AWAY)
    clock.at += 1.0
    trial = admitted(breakers)
    assert isinstance(breakers.admit(LOCAL, "other"), Failure)
    breakers.reached(trial)
    assert isinstance(breakers.admit(LOCAL, "other"), Allowed)


@pytest.mark.parametrize(
    ("failure", "circumstances"),
    [
        (None, USUAL),
        (LATE, Circumstances(deadline_was_clients=True)),
        (Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.UPSTREAM_BUSY, "", ""), USUAL),
        (Failure(ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED, "", ""), USUAL),
    ],
    ids=["left", "impatient", "busy", "not installed"],
)
def test_what_is_nobodys_failure_never_opens_anything(
    failure: Failure | None, circumstances: Circumstances
) -> None:
    breakers, _ = made()
    for _ in range(20):
        allowed = admitted(breakers)
        breakers.ended(allowed, failure, completed=False, circumstances=circumstances)
    assert breakers.snapshot() == ()


def test_timeouts_at_our_own_deadline_count() -> None:
    breakers, _ = made()
    for _ in range(5):
        end(breakers, LATE)
    [view] = breakers.snapshot()
    assert (str(view.key), view.state, view.failures) == ("LOCAL/m", BreakerState.OPEN, 5)


def test_an_outage_is_told_once_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    breakers, clock = made()
    for _ in range(5):
        end(breakers, BROKEN)
    for wait_s in (1.0, 2.0):
        clock.at += wait_s
        end(breakers, BROKEN)
    clock.at += 4.0
    end(breakers)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    cause = "in a row, last: E_UPSTREAM_LOCAL status"
    assert caplog.messages == [
        f"breaker LOCAL/m: closed -> open: 5 failures {cause}",
        (
            "breaker LOCAL/m: half_open -> closed: the trial succeeded "
            "(2 more steps since it was last told)"
        ),
    ]


def test_a_models_name_cannot_write_log_lines_or_sentences(
    caplog: pytest.LogCaptureFixture,
) -> None:
    breakers, _ = made()
    name = "m\nERROR everything is lost\x1b[31m" + "x" * 1000
    for _ in range(5):
        end(breakers, BROKEN, name)
    [line] = caplog.messages
    assert line.isprintable()
    assert len(line) < 200
    refused = breakers.check(LOCAL, name)
    assert refused is not None
    assert refused.message.isprintable()
    assert len(refused.message) <= 200
    assert "5 failures in a row" in refused.message


def test_a_call_that_may_go_to_several_hosts_is_refused_where_all_of_them_are_stopped() -> None:
    breakers, clock = made(failures=1, pairs=1)
    near, far = Host("near"), Host("far")
    for host in (near, far):
        assert breakers.check_all(LOCAL, "m", (near, far)) is None
        allowed = breakers.admit(LOCAL, "m", None, host)
        assert isinstance(allowed, Allowed)
        breakers.ended(allowed, BROKEN, completed=False)
        assert breakers.wait_s(LOCAL, "m", clock.now(), host) > 0
    refused = breakers.check_all(LOCAL, "m", (near, far))
    assert refused is not None
    assert "calls to LOCAL/m at near are stopped" in refused.message
    assert breakers.check_all(LOCAL, "m", ()) is None
    breakers.at(far).answered(LOCAL, returned=True)
    assert breakers.check_all(LOCAL, "m", (near, far)) is None
    assert breakers.wait_s(LOCAL, "m", clock.now(), far) == 0
