"""How fast one client may send, in a loop whose time is a number."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.config.model import ClientsPolicy
from modelsplit_proxy.limits import arrival_limit
from modelsplit_proxy.limits.arrival_limit import ArrivalLimit

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Stopped(asyncio.SelectorEventLoop):
    now = 1000.0

    def time(self) -> float:
        return self.now


def limit_of(rate_per_s: float | None, burst: int) -> ArrivalLimit:
    return ArrivalLimit(ClientsPolicy(rate_per_s=rate_per_s, burst=burst))


def at_will(scenario: Coroutine[Any, Any, list[int | None]]) -> list[int | None]:
    with asyncio.Runner(loop_factory=Stopped) as runner:
        return runner.run(scenario)


def advance(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Stopped)
    loop.now += seconds


def test_without_a_rate_everything_passes() -> None:
    async def flood() -> list[int | None]:
        limit = limit_of(None, 1)
        return [await limit.take("a") for _ in range(1000)]

    assert set(at_will(flood())) == {None}


def test_a_burst_passes_then_one_call_per_interval() -> None:
    async def calls() -> list[int | None]:
        limit = limit_of(2.0, 3)
        out = [await limit.take("a") for _ in range(4)]
        advance(0.5)
        out += [await limit.take("a"), await limit.take("a")]
        advance(60.0)
        return out + [await limit.take("a") for _ in range(4)]

    assert at_will(calls()) == [None, None, None, 1, None, 1, None, None, None, 1]


def test_a_slow_rate_says_how_long_until_the_next_call() -> None:
    async def calls() -> list[int | None]:
        limit = limit_of(0.3, 1)
        return [await limit.take("a"), await limit.take("a")]

    assert at_will(calls()) == [None, 4]


def test_being_refused_costs_nothing() -> None:
    async def calls() -> list[int | None]:
        limit = limit_of(1.0, 1)
        out = [await limit.take("a") for _ in range(50)]
        advance(1.0)
        return [out[0], out[-1], await limit.take("a")]

    assert at_will(calls()) == [None, 1, None]


def test_clients_do_not_pay_for_each_other() -> None:
    async def calls() -> list[int | None]:
        limit = limit_of(1.0, 1)
        return [await limit.take(client) for client in ("a", "b", "a", "b", "c")]

    assert at_will(calls()) == [None, None, 1, 1, None]


def test_a_client_may_have_a_limit_of_its_own() -> None:
    async def calls() -> list[int | None]:
        own = {"fast": ClientsPolicy(rate_per_s=2.0, burst=3), "free": ClientsPolicy()}
        limit = ArrivalLimit(ClientsPolicy(rate_per_s=0.25), own)
        assert limit.text("fast") == "2/s, 3 at once"
        clients = ["fast"] * 4 + ["free"] * 4 + ["other"] * 2
        return [await limit.take(client) for client in clients]

    assert at_will(calls()) == [None, None, None, 1, None, None, None, None, None, 4]


def test_of_too_many_clients_the_one_longest_silent_starts_afresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrival_limit, "_MAX_CLIENTS", 2)

    async def calls() -> list[int | None]:
        limit = limit_of(1.0, 1)
        return [await limit.take(client) for client in ("a", "b", "a", "c", "a", "b")]

    #                         a     b     a  c     a  b, forgotten for c
    assert at_will(calls()) == [None, None, 1, None, 1, None]


@pytest.mark.parametrize(("per_s", "text"), [(2.0, "2/s, 5 at once"), (0.25, "0.25/s, 5 at once")])
def test_the_limit_can_be_told(per_s: float, text: str) -> None:
    assert limit_of(per_s, 5).text("a") == text


@pytest.mark.parametrize("rate_per_s", [5e-324, 1e-300, 2.0**53 - 1])
def test_a_rate_at_the_end_of_what_there_is_is_a_rate(rate_per_s: float) -> None:
    async def calls() -> list[int | None]:
        limit = limit_of(rate_per_s, 1)
        return [await limit.take("a") for _ in range(2)]

    assert at_will(calls()) == [None, 30 if rate_per_s < 1 else 1]
