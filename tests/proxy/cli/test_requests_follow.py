"""Calls are told as they end: each once, through restarts of the proxy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from modelsplit_proxy.cli.output import CommandError, ExitCode
from modelsplit_proxy.cli.requests_follow import EVERY_S, Follower, follow


def call(name: str, outcome: str = "ok") -> dict[str, Any]:
    return {"request_id": name, "outcome": outcome}


def following(*looks: Any) -> tuple[Follower, list[list[str]]]:
    """A follower that sees these lists, newest first, one after the other; and what it tells."""
    told: list[list[str]] = []
    left = iter(looks)

    def latest() -> list[dict[str, Any]]:
        look = next(left)
        if isinstance(look, Exception):
            raise look
        return list(look)

    def tell(calls: Sequence[dict[str, Any]]) -> None:
        told.append([entry["request_id"] for entry in calls])

    return Follower(latest, tell), told


def ending_after(waits: int) -> Callable[[float], None]:
    """Waits so often, then Ctrl-C."""
    seen: list[float] = []

    def wait(seconds: float) -> None:
        seen.append(seconds)
        assert seconds == EVERY_S
        if len(seen) > waits:
            raise KeyboardInterrupt

    return wait


def test_each_call_is_told_once_when_it_has_ended() -> None:
    follower, told = following(
        [call("b", "running"), call("a")],
        [call("c"), call("b", "running"), call("a")],
        [call("c"), call("b", "E_TIMEOUT_LOCAL"), call("a")],
        [call("c"), call("b", "E_TIMEOUT_LOCAL"), call("a")],
    )
    with pytest.raises(KeyboardInterrupt):
        follow(follower, 10, ending_after(3))
    assert told == [["a"], ["c"], ["b"]]


def test_it_begins_with_the_last_ones() -> None:
    follower, told = following([call("c"), call("b"), call("a")], [call("d"), call("c"), call("b")])
    with pytest.raises(KeyboardInterrupt):
        follow(follower, 2, ending_after(1))
    assert told == [["c", "b"], ["d"]]


def test_a_proxy_that_restarts_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    away = CommandError("nothing answers", ExitCode.NOT_RUNNING)
    follower, told = following([call("a")], away, away, [call("b"), call("a")])
    with pytest.raises(KeyboardInterrupt):
        follow(follower, 10, ending_after(3))
    assert told == [["a"], ["b"]]
    assert capsys.readouterr().err == "modelsplit: nothing answers; waiting for it\n"


@pytest.mark.parametrize("looks", [0, 1])
def test_what_is_no_restart_ends_it(looks: int) -> None:
    wrong = CommandError("no such role", ExitCode.USAGE)
    follower, _ = following(*([[]] * looks), wrong)
    with pytest.raises(CommandError, match="no such role"):
        follow(follower, 10, ending_after(3))
