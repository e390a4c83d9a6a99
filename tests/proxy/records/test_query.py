"""Words that say which calls are wanted."""

from __future__ import annotations

import pytest

from modelsplit_policy.vocabulary import JobState, Role
from modelsplit_proxy.records.query import (
    JOB_WORDS,
    WORDS,
    JobQuery,
    Query,
    only,
    read_job_query,
    read_number,
    read_query,
)
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.records.values import log_fields
from support.records import answered

NOW = 1795393743.0


def test_without_words_every_call_is_wanted() -> None:
    assert read_query({}, NOW) == Query()
    assert Query().where() == ("1", [])


def test_all_words_together() -> None:
    said = dict(zip(WORDS, ("planner", "qwen3:4b", "c", "j", "ok", "1", "1h", "30m"), strict=True))
    query = read_query(said, NOW)
    assert query == Query(
        role=Role.PLANNER,
        model="qwen3:4b",
        client="c",
        job="j",
        outcome="ok",
        failed=True,
        since_us=round((NOW - 3600) * 1e6),
        until_us=round((NOW - 1800) * 1e6),
    )
    text, values = query.where()
    assert text.count("?") == len(values) == 8


@pytest.mark.parametrize(
    ("said", "ago_s"),
    [("90s", 90), ("1.5h", 5400), ("7d", 604800), ("0s", 0), ("2026-11-23T00:28:43Z", 20)],
)
def test_since_is_a_time_ago_or_a_time(said: str, ago_s: float) -> None:
    assert read_query({"since": said}, NOW).since_us == round((NOW - ago_s) * 1e6)


def test_a_time_without_a_zone_is_utc() -> None:
    named = read_query({"since": "2026-11-23T01:28:43+01:00"}, NOW)
    assert named == read_query({"since": "2026-11-23T00:28:43"}, NOW)
    assert read_query({"since": "2026-11-23"}, NOW).since_us == 1795392000 * 10**6


@pytest.mark.parametrize("said", ["", "1", "1 h", "soon", "-1h", "2026-13-01", "0001-01-01T00:00"])
def test_a_time_that_is_none(said: str) -> None:
    if said == "0001-01-01T00:00":  # a time, if a silly one
        assert read_query({"since": said}, NOW).since_us is not None
        return
    with pytest.raises(QueryError, match="is neither a time ago"):
        read_query({"since": said}, NOW)


def test_a_running_call_has_not_failed() -> None:
    call = log_fields(answered())
    assert Query(failed=True).fits(call | {"outcome": "client_gone"})
    assert not Query(failed=True).fits(call | {"outcome": "running"})
    assert Query(outcome="running").fits(call | {"outcome": "running"})


def test_a_role_that_is_none_lists_the_known_ones() -> None:
    with pytest.raises(QueryError, match='role "boss" is unknown; the roles are PLANNER, EXECUTOR'):
        read_query({"role": "boss"}, NOW)


@pytest.mark.parametrize("said", ["ok", "client_gone", "running", "E_OVERLOAD_THROTTLED"])
def test_an_outcome_is_one_that_calls_have(said: str) -> None:
    assert read_query({"outcome": said}, NOW).outcome == said


def test_an_outcome_that_no_call_has() -> None:
    with pytest.raises(
        QueryError, match='outcome "E_NOPE" is unknown; use ok, client_gone, running or an'
    ):
        read_query({"outcome": "E_NOPE"}, NOW)


@pytest.mark.parametrize(("since", "until"), [("1h", "2h"), ("1h", "1h")])
def test_a_time_that_ends_before_it_begins(since: str, until: str) -> None:
    with pytest.raises(QueryError, match=f'since "{since}" is not before until "{until}"'):
        read_query({"since": since, "until": until}, NOW)


@pytest.mark.parametrize(("said", "means"), [("", True), ("TRUE", True), ("0", False)])
def test_failed_is_yes_or_no(said: str, means: bool) -> None:
    assert read_query({"failed": said}, NOW).failed is means


def test_failed_is_nothing_else() -> None:
    with pytest.raises(QueryError, match='failed "perhaps" is neither 1 nor 0'):
        read_query({"failed": "perhaps"}, NOW)


def test_a_mistyped_word_is_not_passed_over() -> None:
    only({"role": "PLANNER"}, WORDS)
    with pytest.raises(QueryError, match='"rol" is unknown here; use role, model, client'):
        only({"rol": "PLANNER"}, WORDS)


def test_numbers_have_an_end() -> None:
    assert read_number("limit", None, 100, 1000) == 100
    assert read_number("limit", "999999999999", 100, 1000) == 1000
    with pytest.raises(QueryError, match='limit "x" is not a number'):
        read_number("limit", "x", 100, 1000)


def test_nothing_is_older_than_the_clock() -> None:
    assert read_query({"since": "999999999d"}, NOW).since_us == 0


def test_words_that_say_which_jobs_are_wanted() -> None:
    assert read_job_query({}, NOW) == JobQuery()
    assert JobQuery().where() == ("1", [])
    query = read_job_query(dict(zip(JOB_WORDS, ("Failed", "1h", "30m"), strict=True)), NOW)
    since_us, until_us = round((NOW - 3600) * 1e6), round((NOW - 1800) * 1e6)
    assert query == JobQuery(JobState.FAILED, since_us, until_us)
    assert query.where() == (
        "state = ? AND last_us >= ? AND last_us < ?",
        ["failed", since_us, until_us],
    )
    assert query.fits(JobState.FAILED, since_us)
    assert not query.fits(JobState.FAILED, until_us)
    assert not query.fits(JobState.FAILED, since_us - 1)
    assert not query.fits(JobState.OPEN, since_us)
    assert JobQuery().fits(JobState.OPEN, 0)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"state": "done"}, 'state "done" is unknown; the states are open, ok, failed, expired'),
        ({"since": "soon"}, "is neither a time ago"),
        ({"since": "1h", "until": "2h"}, "no job is between them"),
    ],
)
def test_words_of_jobs_that_cannot_be_read(words: dict[str, str], error: str) -> None:
    with pytest.raises(QueryError, match=error):
        read_job_query(words, NOW)
