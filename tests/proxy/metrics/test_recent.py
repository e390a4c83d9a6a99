"""What became of calls lately, in time that the test tells."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.metrics.buckets import FINE_S
from modelsplit_proxy.metrics.calls import Totals
from modelsplit_proxy.metrics.families import KeptSeries
from modelsplit_proxy.metrics.recent import Recent, RoleRecently


class World:
    """A clock, and numbers that grow; a copy is kept every ten seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.at = 0.0
        self.calls: dict[str, int] = {}
        self.errors: dict[tuple[str, ...], int] = {}
        self.took = {role: KeptSeries(FINE_S) for role in Role}
        self.recent = Recent(self.totals, self.took, self)

    def now(self) -> float:
        return 1000.0 + self.at

    def wall(self) -> float:
        return 0.0

    def totals(self) -> Totals:
        answered = {role: tuple(series.counts) for role, series in self.took.items()}
        return Totals(dict(self.calls), dict(self.errors), answered)

    def answered(self, *took_s: float) -> None:
        """Answered planners."""
        for value in took_s:
            self.calls["PLANNER"] = self.calls.get("PLANNER", 0) + 1
            self.took[Role.PLANNER].observe(value)

    def failed(self, code: ErrorCode, reason: Reason, count: int = 1) -> None:
        key = ("PLANNER", code, reason)
        self.calls["PLANNER"] = self.calls.get("PLANNER", 0) + count
        self.errors[key] = self.errors.get(key, 0) + count

    def pass_to(self, at: float) -> None:
        while self.at < at:
            self.at = min(at, self.at + 10)
            self.recent.keep()

    @property
    def planner(self) -> RoleRecently:
        return self.recent.roles()[Role.PLANNER]


def test_before_the_first_call_there_is_nothing() -> None:
    world = World()
    assert world.planner == RoleRecently(0, {}, {}, 0, 0, None, None)
    assert world.planner.fields()["p50_ms"] is None


def test_a_young_process_says_how_far_back_it_looks() -> None:
    world = World()
    world.answered(3.25, 0.75, 2.5)
    world.at = 42.0
    assert world.recent.window_s == 42.0
    assert world.planner.calls == 3
    assert (world.planner.p50_s, world.planner.p95_s) == (2.5, 3.25)


def test_failures_are_told_by_reason_and_apart_from_what_clients_did() -> None:
    world = World()
    world.answered(1)
    world.failed(ErrorCode.OVERLOAD_THROTTLED, Reason.QUEUE_FULL, 2)
    world.failed(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT)
    world.failed(ErrorCode.BAD_REQUEST, Reason.BAD_HEADER)
    world.failed(ErrorCode.CLIENT_GONE, Reason.STREAMING)
    shown = world.planner
    assert (shown.calls, shown.left, shown.failed_now) == (6, 1, 3)
    assert shown.failed == {"queue_full": 2, "role_timeout": 1}
    assert shown.refused == {"bad_header": 1}
    fields = shown.fields()
    assert (fields["failed"], fields["reasons"]) == (3, {"queue_full": 2, "role_timeout": 1})


def test_after_a_minute_a_failure_is_not_of_now_and_after_five_it_is_forgotten() -> None:
    world = World()
    world.pass_to(10)
    world.failed(ErrorCode.OVERLOAD_THROTTLED, Reason.QUEUE_FULL)
    world.pass_to(60)
    assert world.planner.failed_now == 1
    world.pass_to(80)
    assert (world.planner.failed_now, world.planner.failed) == (0, {"queue_full": 1})
    world.pass_to(310)
    assert world.planner.failed == {"queue_full": 1}
    world.pass_to(330)
    assert (world.planner.calls, world.planner.failed) == (0, {})
    assert world.recent.window_s == 300.0


def test_of_a_shorter_time_what_was_before_is_left_out() -> None:
    world = World()
    world.failed(ErrorCode.OVERLOAD_THROTTLED, Reason.QUEUE_FULL, 2)
    world.pass_to(20)
    world.failed(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT)
    planner = world.recent.roles(10.0, 10.0)[Role.PLANNER]
    assert (planner.calls, planner.failed) == (1, {"role_timeout": 1})


def test_all_failures_are_counted_and_none_of_clients() -> None:
    world = World()
    world.failed(ErrorCode.OVERLOAD_THROTTLED, Reason.QUEUE_FULL, 2)
    world.failed(ErrorCode.BAD_REQUEST, Reason.BAD_HEADER)
    world.failed(ErrorCode.CLIENT_GONE, Reason.STREAMING)
    assert world.recent.failed() == 2


def test_what_was_refused_before_it_had_a_role_is_told_by_reason() -> None:
    world = World()
    world.errors["other", ErrorCode.BAD_REQUEST, Reason.BAD_JSON] = 2
    world.errors["other", ErrorCode.BAD_REQUEST, Reason.UNKNOWN_ROLE] = 1
    world.errors["other", ErrorCode.CLIENT_GONE, Reason.QUEUED] = 1
    assert world.recent.unrouted() == {"bad_json": 2, "unknown_role": 1}
    world.pass_to(400)
    assert world.recent.unrouted() == {}


def test_what_is_kept_does_not_grow() -> None:
    world = World()
    world.pass_to(3600)
    assert len(world.recent._copies) <= 32
