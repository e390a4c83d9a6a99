"""Who waits and who runs, as statistics and people see it; nothing is decided with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_policy.tickets import Hold
    from modelsplit_policy.vocabulary import Host, Role


@dataclass(frozen=True, slots=True)
class Waiter:
    """One call in line, as statistics show it. Seconds.

    ``place``: in its role's line, 1 is the next. ``expected_s``: how long it is expected to
    wait from now on; None: too little is known.
    """

    request_id: str
    role: Role
    model: str
    client: str
    waited_s: float
    hold: Hold
    place: int
    expected_s: float | None


@dataclass(frozen=True, slots=True)
class Runner:
    """One call that has its seat. ``host`` None: none of ours. ``overdue``: started late."""

    request_id: str
    role: Role
    model: str
    client: str
    host: Host | None
    running_s: float
    overdue: bool


def shown(waiters: list[Waiter]) -> Iterator[dict[str, object]]:
    """Waiters as plain values, for JSON."""
    for waiter in waiters:
        expected_s = waiter.expected_s
        yield {
            "request_id": waiter.request_id,
            "llm_role": waiter.role,
            "model": waiter.model,
            "client": waiter.client,
            "waited_ms": round(waiter.waited_s * 1000, 1),
            "hold": waiter.hold,
            "place": waiter.place,
            "expected_wait_ms": None if expected_s is None else round(expected_s * 1000, 1),
        }


def shown_running(runners: list[Runner]) -> Iterator[dict[str, object]]:
    """Runners as plain values, for JSON."""
    for runner in runners:
        yield {
            "request_id": runner.request_id,
            "llm_role": runner.role,
            "model": runner.model,
            "client": runner.client,
            "host": runner.host,
            "running_ms": round(runner.running_s * 1000, 1),
            "overdue": runner.overdue,
        }
