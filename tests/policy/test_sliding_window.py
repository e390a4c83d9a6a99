"""A window of amounts answers as a plain list would, and does not grow slower with it."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.sliding_window import SlidingWindow
from support.hooks import Hook

MANY = 100_000

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.integers(0, 50)),
        st.tuples(st.just("change"), st.integers(0, 120), st.integers(0, 50)),
        st.tuples(st.just("remove"), st.integers(0, 120), st.just(0)),
        st.tuples(st.just("expire"), st.integers(0, 60), st.just(0)),
    ),
    max_size=150,
)


def test_a_window_counts_sums_and_forgets() -> None:
    window = SlidingWindow()
    for key, (at, amount) in enumerate([(1.0, 5), (2.0, 0), (4.0, 7)]):
        window.add(key, at, amount)
    assert (window.count, window.total, window.oldest_at) == (3, 12, 1.0)
    window.expire(1.0)
    window.change(2, 8)
    assert (window.count, window.total, window.oldest_at) == (2, 8, 2.0)
    window.remove(1)
    window.expire(9.0)
    assert (window.count, window.total, window.oldest_at) == (0, 0, None)
    assert repr(window) == "<SlidingWindow 0 entries, 0 in all>"


def test_when_room_comes() -> None:
    window = SlidingWindow()
    for key, (at, amount) in enumerate([(1.0, 5), (2.0, 0), (4.0, 7)]):
        window.add(key, at, amount)
    assert [window.nth_at(n) for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert [window.freed_at(amount) for amount in (1, 5, 6, 12)] == [1.0, 1.0, 4.0, 4.0]


@given(OPERATIONS)
def test_it_answers_as_a_list_does(operations: list[tuple[str, int, int]]) -> None:
    window, model, now = SlidingWindow(), dict[int, tuple[float, int]](), 0
    for key, (what, number, amount) in enumerate(operations):
        match what:
            case "add":
                now += number
                window.add(key, now, amount)
                model[key] = (now, amount)
            case "change":
                window.change(number, amount)
                if number in model:
                    model[number] = (model[number][0], amount)
            case "remove":
                window.remove(number)
                model.pop(number, None)
            case _:
                window.expire(number)
                model = {k: entry for k, entry in model.items() if entry[0] > number}
        agrees(window, list(model.values()))


def agrees(window: SlidingWindow, entries: list[tuple[float, int]]) -> None:
    assert (window.count, window.total) == (len(entries), sum(amount for _, amount in entries))
    assert window.oldest_at == (entries[0][0] if entries else None)
    assert [window.nth_at(n + 1) for n in range(len(entries))] == [at for at, _ in entries]
    left = 0
    for at, amount in entries:
        if amount:
            assert window.freed_at(left + 1) == window.freed_at(left + amount) == at
        left += amount


def lines_run(ask: Callable[[], Any]) -> int:
    """How many lines of Python ``ask`` runs: a measure of work that no machine changes."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        del frame, arg
        count += event == "line"
        return trace

    with Hook(trace, lines=True):
        ask()
    return count


def used(entries: int) -> SlidingWindow:
    """A window through which as many entries have gone as it holds."""
    window = SlidingWindow()
    for key in range(2 * entries):
        window.add(key, float(key), 1)
    window.expire(float(entries - 1))
    return window


def test_many_entries_cost_a_question_little_more_than_few() -> None:
    few, many = used(MANY // 100), used(MANY)

    def asked(window: SlidingWindow) -> int:
        half = window.count // 2
        return lines_run(
            lambda: (window.nth_at(half), window.freed_at(half), window.oldest_at, window.total)
        )

    assert many.count == MANY
    assert asked(many) < 2 * asked(few)
