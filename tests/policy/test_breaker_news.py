"""An outage is told once, then counted; nothing that was told is left untrue for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.breaker import MODELS_MAX, BreakerKey, BreakerState, BreakerTransition
from modelsplit_policy.breaker_news import EVERY_S, BreakerNews
from modelsplit_policy.vocabulary import Provider

KEY = BreakerKey(Provider.LOCAL)
TRIP = BreakerTransition(KEY, BreakerState.CLOSED, BreakerState.OPEN, "5 failures in a row")
TRY = BreakerTransition(KEY, BreakerState.OPEN, BreakerState.HALF_OPEN, "trial")
FAIL = BreakerTransition(KEY, BreakerState.HALF_OPEN, BreakerState.OPEN, "the trial failed")
HEAL = BreakerTransition(KEY, BreakerState.HALF_OPEN, BreakerState.CLOSED, "the trial succeeded")


def test_an_outage_of_an_hour_is_about_a_line_a_minute() -> None:
    news, lines = BreakerNews(), [f"{TRIP.old} -> {TRIP.new}: {TRIP.why}"]
    assert news.of(TRIP, 0.0) == lines[0]
    for second in range(1, 3601):
        for step in (TRY, FAIL):
            line = news.of(step, float(second))
            lines += [] if line is None else [line]
    assert len(lines) == 61
    assert lines[1] == (
        "half_open -> open: the trial failed (59 more steps since it was last told)"
    )
    closed = news.of(HEAL, 3601.0)
    assert closed == "half_open -> closed: the trial succeeded"


def test_a_breaker_that_flaps_is_told_once_a_minute() -> None:
    news = BreakerNews()
    told = [news.of(step, float(at)) for at in range(0, 60, 3) for step in (TRIP, TRY, HEAL)]
    assert [line for line in told if line is not None] == [
        "closed -> open: 5 failures in a row",
        "half_open -> closed: the trial succeeded",
    ]
    assert news.of(TRIP, 60.0) == (
        "closed -> open: 5 failures in a row (38 more steps since it was last told)"
    )


def test_each_breaker_has_its_own_news_and_they_are_bounded() -> None:
    news = BreakerNews()
    for number in range(2 * MODELS_MAX):
        key = BreakerKey(Provider.LOCAL, f"m{number}")
        assert news.of(BreakerTransition(key, TRIP.old, TRIP.new, TRIP.why), 0.0)
    assert repr(news) == f"<BreakerNews of {MODELS_MAX + 1}>"


@given(st.lists(st.sampled_from([TRIP, TRY, FAIL, HEAL]), max_size=80), st.floats(0.1, 30))
def test_what_was_told_last_is_true_within_a_minute_of_steps(
    steps: list[BreakerTransition], every_s: float
) -> None:
    news, said, wrong_since, state = BreakerNews(), BreakerState.CLOSED, None, BreakerState.CLOSED
    for number, step in enumerate(step for step in steps if step.new is not BreakerState.HALF_OPEN):
        at = number * every_s
        if step.old is not BreakerState.HALF_OPEN and state is BreakerState.OPEN:
            continue
        state = step.new
        if news.of(step, at) is not None:
            said = step.new
        if said is state:
            wrong_since = None
        elif wrong_since is None:
            wrong_since = at
        assert wrong_since is None or at - wrong_since <= EVERY_S + every_s
