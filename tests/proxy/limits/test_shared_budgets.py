"""Budgets that several proxies count together, before a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.limits.shared_budgets import TIMEOUT_S, SharedBudgets, _ping
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.runtime.tasks import Tasks
from support.budget_keepers import Clocks, Held, budget_keeper
from support.redis_server import FORGETFUL, redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from modelsplit_proxy.storage.writer import Store
    from support.harness import Overlay
    from support.redis_server import RedisServer

pytestmark = pytest.mark.tools("redis-server")

TWO: Overlay = {"budgets": [{"name": "two", "models": ["gpt-oss:20b"], "calls": 2, "window": "1h"}]}
TEN: Overlay = {"budgets": [{**TWO["budgets"][0], "name": "ten", "calls": 10}]}


@contextlib.asynccontextmanager
async def proxy(
    home: Path,
    server: RedisServer,
    name: str,
    overlay: Overlay = TWO,
    timeout_s: float = 600.0,
) -> AsyncIterator[Held]:
    """One of several, with a state file of its own; it has looked after the server once."""
    directory = home / name
    directory.mkdir(exist_ok=True)
    clocks, tasks = Clocks(), Tasks()

    def shared(store: Store) -> SharedBudgets:
        return SharedBudgets(server.url, "test", store, tasks, SystemClock(), timeout_s)

    async with budget_keeper(directory, clocks, overlay, shared=shared) as held:
        await of(held).look_after()
        try:
            yield held
        finally:
            await tasks.close()
            await of(held).close()


def of(held: Held) -> SharedBudgets:
    shared = held.budget_keeper._shared
    assert shared is not None
    return shared


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - nobody sets an event
        await asyncio.sleep(0)


async def is_open(held: Held) -> None:
    while of(held).error is not None:
        await of(held).look_after()


async def test_what_one_has_sent_is_counted_for_the_other(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        proxy(tmp_path, server, "a") as a,
        proxy(tmp_path, server, "b") as b,
    ):
        assert [await a.sent(), await b.sent(), await a.sent(), await b.sent()] == [
            None,
            None,
            "calls",
            "calls",
        ]
        [standing] = a.budget_keeper.standing()
        assert (standing.calls, standing.calls_left) == (2, 0)


async def test_of_many_calls_at_once_exactly_as_many_as_fit_are_sent(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        proxy(tmp_path, server, "a", TEN) as a,
        proxy(tmp_path, server, "b", TEN) as b,
        proxy(tmp_path, server, "c", TEN) as c,
    ):
        answers = await asyncio.gather(*(held.sent() for held in (a, b, c) for _ in range(40)))
        assert answers.count(None) == 10
        assert set(answers) == {None, "calls"}


async def test_what_was_not_computed_is_given_back_to_all(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        proxy(tmp_path, server, "a") as a,
        proxy(tmp_path, server, "b") as b,
    ):
        for _ in range(3):
            _, attempt, charge = a.attempt_charge()
            assert await charge.reserve() is None
            charge.close(attempt)  # which was never sent
        await a.sent()
        assert [await b.sent(), await b.sent()] == [None, "calls"]


async def test_a_server_that_is_away_lets_nothing_through_and_nobody_wait(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, proxy(tmp_path, server, "a") as a:
        assert await a.sent() is None
        await server.kill()
        assert await a.sent() == "ledger_unavailable"
        assert of(a).error is not None
        assert str(of(a).error).startswith("it is away: ")
        # Known to be away, it is not even asked.
        assert await a.sent() == "ledger_unavailable"
        await server.start()
        await of(a).look_after()
        assert of(a).error is None
        # The one that was sent is counted, those that were refused are not.
        assert [await a.sent(), await a.sent()] == [None, "calls"]


async def test_a_server_that_hangs_is_away(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        proxy(tmp_path, server, "a", timeout_s=TIMEOUT_S) as a,
    ):
        # A slow machine may be taken for a server that hangs, too.
        await is_open(a)
        server.hold_up()
        assert await a.sent() == "ledger_unavailable"
        server.go_on()
        await is_open(a)
        of(a)._redis.connection_pool.connection_kwargs |= {"socket_timeout": 600.0}
        assert [await a.sent(), await a.sent(), await a.sent()] == [None, None, "calls"]


async def test_a_server_that_lost_everything_is_told_anew_by_each_before_anybody_is_served(
    tmp_path: Path,
) -> None:
    async with (
        redis_server(tmp_path, *FORGETFUL) as server,
        proxy(tmp_path, server, "a") as a,
        proxy(tmp_path, server, "b") as b,
    ):
        assert await b.sent() is None
        # Each has heard of the other.
        await of(a).look_after()
        await server.kill()
        await server.start()
        assert await a.sent() == "ledger_unavailable"
        await of(a).look_after()
        # What b has sent is not known to the server yet.
        assert await a.sent() == "ledger_unavailable"
        error = of(a).error
        assert error is not None
        assert "has not written its own anew" in error
        assert await b.sent() == "ledger_unavailable"
        await of(b).look_after()
        assert [await a.sent(), await a.sent(), await b.sent()] == [None, "calls", "calls"]


async def test_who_shares_is_known_after_a_restart_of_everything(tmp_path: Path) -> None:
    async with redis_server(tmp_path, *FORGETFUL) as server:
        async with proxy(tmp_path, server, "a") as a, proxy(tmp_path, server, "b") as b:
            assert await b.sent() is None
            await of(a).look_after()
        await server.kill()
        await server.start()
        async with proxy(tmp_path, server, "a") as a:
            assert await a.sent() == "ledger_unavailable"
            async with proxy(tmp_path, server, "b"):
                assert [await a.sent(), await a.sent()] == [None, "calls"]


async def test_a_durable_server_that_was_killed_has_lost_nothing_of_those_that_are_gone(
    tmp_path: Path,
) -> None:
    async with redis_server(tmp_path) as server, proxy(tmp_path, server, "a") as a:
        async with proxy(tmp_path, server, "b") as b:
            assert await b.sent() is None
            await of(a).look_after()
        await server.kill()
        await server.start()
        await a.sent()
        await of(a).look_after()
        assert [await a.sent(), await a.sent()] == [None, "calls"]


async def test_an_own_restart_counts_what_was_sent_before(tmp_path: Path) -> None:
    async with redis_server(tmp_path, *FORGETFUL) as server:
        async with proxy(tmp_path, server, "a") as a:
            assert await a.sent() is None
        await server.kill()
        await server.start()
        async with proxy(tmp_path, server, "a") as a:
            assert [await a.sent(), await a.sent()] == [None, "calls"]


async def test_a_server_out_of_memory_is_away(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, proxy(tmp_path, server, "a") as a:
        client = server.client()
        await client.config_set("maxmemory", "1")
        # What a step has begun it may end; to begin with a write is what it may not.
        await a.sent()
        await until(lambda: of(a).error is not None)
        assert await a.sent() == "ledger_unavailable"
        await of(a).look_after()
        assert await a.sent() == "ledger_unavailable"
        await client.config_set("maxmemory", "0")
        await of(a).look_after()
        assert [await a.sent(), await a.sent()] == [None, "calls"]
        await client.aclose()


async def test_somebody_elses_keys_are_left_alone(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, proxy(tmp_path, server, "a") as a:
        client = server.client()
        await client.set("other", "theirs")
        assert await a.sent() is None
        await of(a).look_after()
        keys = {str(key) for key in await client.keys("*")}
        assert "other" in keys
        assert all(key.startswith("{test}:") for key in keys - {"other"})
        await client.aclose()


async def test_an_absent_server_does_not_keep_a_proxy_from_its_start(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        await server.kill()
        async with proxy(tmp_path, server, "a") as a:
            assert await a.sent() == "ledger_unavailable"


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("redis://u:secret@10.0.0.5:6380/0", "redis-cli -h 10.0.0.5 -p 6380 ping"),
        ("rediss://cache", "redis-cli -h cache -p 6379 --tls ping"),
        ("unix:///run/redis.sock", "redis-cli -s /run/redis.sock ping"),
    ],
)
def test_the_next_step_is_to_ask_it_without_a_password(url: str, command: str) -> None:
    assert _ping(url) == command
