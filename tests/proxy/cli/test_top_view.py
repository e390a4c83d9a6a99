"""What a viewer of ``modelsplit top`` sees after each key, without a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_proxy.cli.top_view import KEYS, ORDERS, Key, Row, View, keys, pressed, rows, shown

RUNNING = {
    "request_id": "run-1",
    "llm_role": "PLANNER",
    "model": "qwen3:4b",
    "client": "10.0.0.1",
    "state": "streaming",
    "age_ms": 1500.0,
    "silent_ms": None,
    "tokens_per_s": 14.2,
}
WAITER = {
    "request_id": "wait-1",
    "llm_role": "EXECUTOR",
    "model": "qwen3:8b",
    "client": "10.0.0.2",
    "waited_ms": 9000.0,
    "hold": "role_cap",
    "place": 3,
    "expected_wait_ms": 2500.0,
}
FAILED = {
    "request_id": "fail-1",
    "ts": "2026-11-23T01:02:03.456Z",
    "llm_role": None,
    "llm_model": None,
    "requested_model": "nobody:1b",
    "client": "10.0.0.3",
    "call_e2e_latency_ms": 4.0,
    "outcome": "E_MODEL_NOT_FOUND",
    "reason": "not_installed",
}
STATS: dict[str, Any] = {
    "running": [RUNNING, RUNNING | {"request_id": "line-1", "state": "queued"}],
    "waiters": [WAITER],
}
ROWS = rows(STATS, [FAILED])


def after(*sent: str, view: View | None = None) -> View:
    view = view or View()
    for key in sent:
        view = pressed(view, key, shown(ROWS, view))
    return view


def test_who_runs_comes_first_then_who_waits_then_who_failed() -> None:
    running, waiting, failed = ROWS
    assert running == Row(
        "run-1", "running", "streaming", "PLANNER", "qwen3:4b", "10.0.0.1", 1500.0, 14.2, ""
    )
    assert (waiting.state, waiting.age_ms) == ("waits, place 3", 9000.0)
    assert waiting.note.endswith(", about 2.5 s more")
    assert (failed.state, failed.role, failed.model) == ("failed 01:02:03 UTC", "-", "nobody:1b")
    assert failed.note == "not_installed E_MODEL_NOT_FOUND"


def test_a_call_that_has_no_answer_yet_says_so() -> None:
    [row] = rows({"running": [RUNNING | {"silent_ms": 300.0}], "waiters": []}, [])
    assert row.note == "no answer yet"
    loading = RUNNING | {"silent_ms": 300.0, "state": "loading"}
    [row] = rows({"running": [loading], "waiters": []}, [])
    assert row.note == "loading its model"


def test_sorting_goes_through_every_order_and_begins_anew() -> None:
    view, firsts = View(), []
    for _ in ORDERS:
        firsts.append(shown(ROWS, view)[0].id)
        view = after("s", view=view)
    assert view == View()
    assert firsts == ["run-1", "wait-1", "fail-1", "fail-1", "run-1"]


def test_a_filter_is_typed_and_holds_until_escape() -> None:
    typing = after("/", *"qwen3:8X", Key.BACKSPACE, "b")
    assert (typing.typing, typing.words) == (True, "qwen3:8b")
    # Keys that do something else in the list are letters here.
    assert after("/", *"qs?").words == "qs?"
    kept = after(Key.ENTER, view=typing)
    assert not kept.typing
    assert [row.id for row in shown(ROWS, kept)] == ["wait-1"]
    assert after(Key.ESCAPE, view=kept) == View()
    assert after(Key.ESCAPE, view=typing) == View()
    assert len(after("/", *"x" * 500).words) == 60


def test_rows_are_chosen_within_those_that_are_shown() -> None:
    assert after(Key.UP).chosen == 0
    assert after(*[Key.DOWN] * 9).chosen == 2
    assert after(Key.PAGE_DOWN, Key.UP).chosen == 1
    nothing = View(words="no such call")
    assert pressed(nothing, Key.DOWN, []).chosen == 0
    assert pressed(nothing, Key.ENTER, []).opened is None


@pytest.mark.parametrize("enter", [Key.ENTER, "\n"])
def test_the_chosen_call_is_opened_scrolled_and_closed(enter: str) -> None:
    opened = after(Key.DOWN, enter)
    assert opened.opened == "wait-1"
    assert after(Key.UP, Key.DOWN, Key.PAGE_DOWN, Key.SPACE, view=opened).scroll == 21
    for key in (Key.ESCAPE, "q", Key.ENTER):
        closed = after(key, view=opened)
        assert (closed.opened, closed.leaving, closed.chosen) == (None, False, 1)


def test_it_pauses_helps_and_leaves() -> None:
    assert after(" ").paused
    assert after(" ", " ") == View()
    assert after("?").helping
    assert after("?", "q") == View()
    assert after("q").leaving
    assert after("x", "\x01", "\x1b[H") == View()
    assert {name for name, _ in KEYS} >= {"q", "space", "s", "/", "enter", "?"}


def test_what_a_terminal_sends_at_once_is_several_keys() -> None:
    assert keys("/ab\r\x1b[A\x1b[6~\x1bOBq\x1b") == [
        *("/", "a", "b", "\r", "\x1b[A", "\x1b[6~", "\x1bOB", "q", "\x1b"),
    ]
    assert keys("") == []
