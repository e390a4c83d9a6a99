"""A job in words, and its waterfall in 80 columns."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.jobs import begun
from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.records import job_reader, job_text
from modelsplit_proxy.records.job_reader import KeptJob, ToldCall, ToldTool
from modelsplit_proxy.records.job_story import story
from modelsplit_proxy.records.values import log_fields
from support.records import answered, turned_away

SECOND = 1_000_000
STORY = """\
job        nightly-42
state      ok after 10.000 s
when       1970-01-01 00:00:00.000 UTC to 1970-01-01 00:00:10.000 UTC
calls      2, PLANNER 2, 1 failed
tools      1

               2.250 s   22%  # answering
               1.000 s   10%  + tools
               0.250 s    2%  = loading
               2.500 s   25%  . in line
               4.000 s   40%    the rest

                            |0 s                             10.000 s|
PLANNER  qwen3:4b           |..=#########                            |   3.000 s
gap                         |            ____                        |   1.000 s
tool     grep failed        |                ++++                    |   1.000 s
gap                         |                    ____                |   1.000 s
PLANNER  qwen3:4b E_OVERLO… |                        ........        |   2.000 s
gap                         |                                ________|   2.000 s
"""


def attempts(record: Any) -> dict[str, Any]:
    from modelsplit_proxy.records import rows  # noqa: PLC0415

    return log_fields(record) | {"attempts": rows.attempts_fields(record)}


def nightly() -> dict[str, Any]:
    """A call, a tool that failed, a call that was turned away."""
    job = begun(0).start(0).finish(10 * SECOND, JobState.OK).ended([])
    sums = job_reader.nothing_yet() | {"calls": 2, "planner": 2, "failures": 1, "tools": 1}
    calls = [
        ToldCall(0, 3 * SECOND, attempts(answered())),
        ToldCall(6 * SECOND, 8 * SECOND, attempts(turned_away())),
    ]
    tools = [ToldTool("grep", 5 * SECOND, SECOND, ok=False)]
    return story(KeptJob("nightly-42", job, sums), calls, tools, 0)


def test_the_whole_story() -> None:
    assert job_text.text(nightly()) == STORY


def test_a_list_has_a_head_and_a_line_for_each() -> None:
    job = nightly() | {"late": 2, "why": "no luck", "state": "failed", "running": 1}
    calm = job | {"job_id": "b", "state": "open", "job_e2e_latency_ms": None, "failures": 0}
    quiet = calm | {"running": 0, "late": 0, "why": None}
    assert job_text.listing([quiet, job | {"job_id": "a"}]) == (
        "LAST EVENT               STATE          TOOK  CALLS  FAILED  TOOLS  JOB\n"
        "1970-01-01 00:00:10 UTC  failed      10.00 s      3       1      1  a  1 running  2 late"
        "  (no luck)\n"
        "1970-01-01 00:00:10 UTC  open              -      2       -      1  b\n"
    )
    assert job_text.listing([]) == ""


def test_a_job_that_is_open_or_was_never_finished_is_told_so() -> None:
    job = begun(0)
    fields = story(KeptJob("j", job, job_reader.nothing_yet()), [], [], 5 * SECOND)
    assert "state      open for 5.000 s\n" in job_text.text(fields)
    finishing = job.finish(SECOND, JobState.OK)
    fields = story(KeptJob("j", finishing, job_reader.nothing_yet()), [], [], 5 * SECOND)
    assert "open for 5.000 s, told to end when its calls have\n" in job_text.text(fields)
    lapsed = job.expired(10**12, 1)
    fields = story(KeptJob("j", lapsed, job_reader.nothing_yet()), [], [], 0)
    assert "expired: nobody finished it; last heard of after 0.000 s" in job_text.text(fields)
    ended = begun(0).finish(SECOND, JobState.FAILED, "no\nluck").ended([])
    shown = job_text.text(story(KeptJob("j", ended, job_reader.nothing_yet()), [], [], 0))
    assert "failed after 1.000 s, its start was never told\nwhy        no\ufffdluck\n" in shown


def test_a_call_that_runs_has_a_plus() -> None:
    call = ToldCall(SECOND, None, attempts(answered()) | {"outcome": "running"})
    fields = story(KeptJob("j", begun(0), job_reader.nothing_yet()), [call], [], 9 * SECOND)
    assert "|  8.000 s+\n" in job_text.text(fields)


TIMES = st.integers(0, 20 * SECOND)


@given(
    tools=st.lists(
        st.builds(ToldTool, st.text(max_size=64), TIMES, TIMES, st.booleans()), max_size=5
    ),
    starts=st.lists(TIMES, max_size=4),
    end=TIMES,
    name=st.text(max_size=128),
)
def test_no_line_is_wider_than_a_terminal(
    tools: list[ToldTool], starts: list[int], end: int, name: str
) -> None:
    job = begun(0).finish(end, JobState.FAILED, name).ended([])
    calls = [
        ToldCall(at, at + 3 * SECOND, attempts(answered(requested_model=name))) for at in starts
    ]
    sums = job_reader.nothing_yet() | {"calls": 9, "tools": 9, "late": 3}
    shown = job_text.text(story(KeptJob(name, job, sums), calls, tools, 0))
    assert all(len(line) <= 80 and line.isprintable() for line in shown.split("\n"))


def test_of_thousands_of_rows_some_are_drawn() -> None:
    tools = [ToldTool("t", number * 1000, 5, ok=True) for number in range(1000)]
    job = begun(0).finish(SECOND, JobState.OK).ended([])
    sums = job_reader.nothing_yet() | {"tools": 1000}
    lines = job_text.text(story(KeptJob("j", job, sums), [], tools, 0)).splitlines()
    assert lines[-1] == "… and 800 more"
    assert len(lines) < 220
