"""Who waits and who runs, as plain values."""

from __future__ import annotations

from modelsplit_policy.queue_view import Runner, Waiter, shown, shown_running
from modelsplit_policy.tickets import Hold
from modelsplit_policy.vocabulary import DEFAULT_HOST, Role


def test_a_call_in_line() -> None:
    waiter = Waiter("r", Role.PLANNER, "m", "c", 1.23456, Hold.TURN, 2, 3.0)
    assert list(shown([waiter])) == [
        {
            "request_id": "r",
            "llm_role": "PLANNER",
            "model": "m",
            "client": "c",
            "waited_ms": 1234.6,
            "hold": "turn",
            "place": 2,
            "expected_wait_ms": 3000.0,
        }
    ]


def test_a_wait_of_which_too_little_is_known_is_null() -> None:
    waiter = Waiter("r", Role.CHAT, "m", "c", 0.0, Hold.ROLE_CAP, 1, None)
    assert [row["expected_wait_ms"] for row in shown([waiter])] == [None]


def test_a_call_that_runs() -> None:
    runners = [
        Runner("r", Role.CHAT, "m", "c", DEFAULT_HOST, 0.5, overdue=True),
        Runner("s", Role.CLOUD, "n", "d", None, 2.0, overdue=False),
    ]
    first, second = shown_running(runners)
    assert first == {
        "request_id": "r",
        "llm_role": "CHAT",
        "model": "m",
        "client": "c",
        "host": "default",
        "running_ms": 500.0,
        "overdue": True,
    }
    assert (second["host"], second["overdue"]) == (None, False)
