"""Where the time of a job went: each moment once, all of it together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.job_time import Part, Span, attempt_spans, gaps, parts, timeline

if TYPE_CHECKING:
    from typing import Any


def taken(**us: int) -> dict[Part, int]:
    return dict.fromkeys(Part, 0) | {Part(name): value for name, value in us.items()}


def attempt(*moments: int | None, **durations: int | None) -> list[Span]:
    known: dict[str, Any] = {"load_us": None, "upstream_wait_us": None} | durations
    asked, seated, dispatched, ended = moments
    assert ended is not None
    return list(attempt_spans(asked, seated, dispatched, ended, **known))


def test_an_attempt_waits_in_line_then_inside_ollama_then_loads_then_answers() -> None:
    spans = attempt(0, 10, 12, 100, load_us=30, upstream_wait_us=20)
    assert spans == [
        Span(Part.QUEUE, 0, 10),
        Span(Part.UPSTREAM_WAIT, 12, 32),
        Span(Part.LOAD, 32, 62),
        Span(Part.LLM, 62, 100),
    ]
    assert parts(0, 100, spans) == taken(queue=10, upstream_wait=20, load=30, llm=38, rest=2)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        (attempt(0, None, None, 50), taken(queue=50)),
        (attempt(0, 0, 0, 50, load_us=500), taken(load=50)),
        (attempt(0, 0, 0, 50, load_us=40, upstream_wait_us=40), taken(load=10, upstream_wait=40)),
        (attempt(0, 0, None, 50), taken(rest=50)),
        (attempt(0, 60, 60, 50), taken(queue=50)),
        ([], taken(rest=50)),
    ],
)
def test_what_never_came_or_cannot_be(spans: list[Span], expected: dict[Part, int]) -> None:
    assert parts(0, 50, spans) == expected


def test_of_what_happens_at_once_work_counts_before_waiting() -> None:
    spans = [
        Span(Part.QUEUE, 0, 100),
        Span(Part.TOOLS, 20, 60),
        Span(Part.LLM, 50, 70),
        Span(Part.LLM, 55, 65),
    ]
    assert parts(0, 100, spans) == taken(queue=50, tools=30, llm=20)


def test_what_lies_outside_the_job_is_none_of_its_time() -> None:
    assert parts(100, 200, [Span(Part.TOOLS, 0, 150), Span(Part.LLM, 190, 900)]) == taken(
        tools=50, llm=10, rest=40
    )
    assert parts(200, 100, [Span(Part.LLM, 0, 900)]) == taken()


def test_the_timeline_has_no_hole() -> None:
    spans = [Span(Part.LLM, 10, 20), Span(Part.LLM, 30, 40)]
    assert list(timeline(0, 50, spans)) == [
        Span(Part.REST, 0, 10),
        Span(Part.LLM, 10, 20),
        Span(Part.REST, 20, 30),
        Span(Part.LLM, 30, 40),
        Span(Part.REST, 40, 50),
    ]


def test_gaps_are_where_nothing_ran() -> None:
    assert gaps(0, 100, [(60, 70), (10, 20), (15, 30), (65, 68)]) == [(0, 10), (30, 60), (70, 100)]
    assert gaps(0, 100, []) == [(0, 100)]
    assert gaps(0, 100, [(0, 100)]) == gaps(0, 100, [(-5, 500)]) == gaps(5, 5, []) == []
    assert gaps(0, 100, [(200, 300)]) == [(0, 100)]


MOMENTS = st.integers(-1000, 5000)
SPANS = st.lists(st.builds(Span, st.sampled_from(Part), MOMENTS, MOMENTS), max_size=12)


@given(spans=SPANS, ends=st.tuples(MOMENTS, MOMENTS).map(sorted), data=st.data())
def test_the_parts_add_up_to_the_whole_whatever_overlaps(
    spans: list[Span], ends: list[int], data: st.DataObject
) -> None:
    began, ended = ends
    counted = parts(began, ended, spans)
    assert sum(counted.values()) == ended - began
    assert all(value >= 0 for value in counted.values())
    assert parts(began, ended, data.draw(st.permutations(spans))) == counted
    assert parts(began, ended, [*spans, *spans]) == counted, "each moment once"


@given(busy=st.lists(st.tuples(MOMENTS, MOMENTS).map(sorted), max_size=12))
def test_a_moment_is_busy_or_in_a_gap(busy: list[list[int]]) -> None:
    spans = [(since, until) for since, until in busy]
    idle = gaps(0, 1000, spans)
    counted = parts(0, 1000, [Span(Part.LLM, *span) for span in spans])
    assert sum(until - since for since, until in idle) == counted[Part.REST]
    assert all(0 <= since < until <= 1000 for since, until in idle)
