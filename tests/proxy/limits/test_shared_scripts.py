"""Each step as Redis does it, against the same budgets in one process."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.budgets import Budgets, Charge, Exhausted
from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.limits import shared_scripts
from support.harness import policy
from support.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

pytestmark = pytest.mark.tools("redis-server")

HOUR_MS = 3_600_000
PLACES = ["{t}:times", "{t}:costs"]
OWN = ["{t}:state", "{t}:owners"]
NAMES = [*OWN, "{t}:expected", "{t}:seeded", "{t}:changes", *PLACES, "{t}:leases"]


@contextlib.asynccontextmanager
async def server(home: Path) -> AsyncIterator[tuple[Redis, str]]:
    """A client, and the epoch that holds."""
    async with redis_server(home) as running:
        client = running.client()
        epoch = f"{(await client.info('server'))['run_id']}:1"
        await client.hset("{t}:state", "", epoch)
        await client.hset("{t}:owners", mapping={"a": "t", "b": "t"})
        seed = client.register_script(shared_scripts.SEED)
        assert await seed(keys=[*OWN, *PLACES], args=[epoch, "a", "t", "b", HOUR_MS, ""]) == "done"
        try:
            yield client, epoch
        finally:
            await client.aclose()


async def count(
    client: Redis, epoch: str, charge: str, *limits: int, lease: tuple[int, int] = (0, 0)
) -> list[Any]:
    """``limits``: window in ms, most calls, most cost, cost of this one."""
    script = client.register_script(shared_scripts.COUNT)
    me = charge.partition(":")[0]
    own = [epoch, me, "t"]
    arguments: list[str | int] = [*own, charge, "count", "b", *limits, *lease, "", limits[0]]
    said, *rows = await script(keys=NAMES, args=arguments)
    return [said, *([*map(int, row[:5])] for row in rows)]


async def test_money_is_summed_settled_and_given_back(tmp_path: Path) -> None:
    async with server(tmp_path) as (client, epoch):
        limits = (HOUR_MS, -1, 100)
        assert (await count(client, epoch, "a:1", *limits, 60))[0] == "free"
        said, [calls, cost, _, calls_wait, money_wait] = await count(
            client, epoch, "b:1", *limits, 50
        )
        assert (said, calls, cost, calls_wait) == ("full", 1, 60, 0)
        assert 0 < money_wait <= HOUR_MS
        settle = client.register_script(shared_scripts.SETTLE)
        await settle(keys=[*OWN, *PLACES], args=[epoch, "a", "t", "a:1", 20])
        assert (await count(client, epoch, "b:1", *limits, 50))[0] == "free"
        assert await client.hget("{t}:costs", "") == "70"
        await settle(keys=[*OWN, *PLACES], args=[epoch, "b", "t", "b:1"])
        assert await client.hgetall("{t}:costs") == {"": "20", "*": "1", "a:1": "20"}
        # More than the budget has in all never fits.
        [said, row] = await count(client, epoch, "b:2", *limits, 101)
        assert (said, row[4]) == ("full", -1)


async def test_what_is_older_than_the_window_is_let_go(tmp_path: Path) -> None:
    async with server(tmp_path) as (client, epoch):
        seed = client.register_script(shared_scripts.SEED)
        rows: list[str | int] = ["a:1", HOUR_MS + 1000, 5, "a:2", 1000, 7]
        arguments = [epoch, "a", "t", "b", HOUR_MS, "", *rows]
        assert await seed(keys=[*OWN, *PLACES], args=arguments) == "done"
        said, row = await count(client, epoch, "a:3", HOUR_MS, 2, -1, 0)
        assert (said, row[:2]) == ("free", [1, 7])
        assert await client.zrange("{t}:times", 0, -1) == ["a:2", "a:3"]


async def test_another_epoch_or_another_run_of_the_server_counts_nothing(tmp_path: Path) -> None:
    async with server(tmp_path) as (client, epoch):
        assert await count(client, "other:1", "a:1", HOUR_MS, 1, -1, 0) == ["lost"]
        await client.hset("{t}:state", "", "0" * 40 + ":1")
        assert await count(client, "0" * 40 + ":1", "a:1", HOUR_MS, 1, -1, 0) == ["lost"]
        await client.delete("{t}:state")
        assert await count(client, epoch, "a:1", HOUR_MS, 1, -1, 0) == ["lost"]


async def test_it_decides_as_the_budgets_of_one_process_do(tmp_path: Path) -> None:
    budget = {"name": "b", "models": ["m"], "calls": 12, "usd": 1e-7, "window": "1h"}
    here = Budgets(policy({"budgets": [budget]}).policy.budgets)
    dice = random.Random(7)
    async with server(tmp_path) as (client, epoch):
        settle = client.register_script(shared_scripts.SETTLE)
        for number in range(200):
            cost = dice.choice((0, 1, 7, 20, 60))
            charge = Charge(canonical("m"), Role.CHAT, Provider.LOCAL, cost)
            decided = here.reserve(0.0, charge)
            name = f"a:{number}"
            said, row = await count(client, epoch, name, HOUR_MS, 12, 100, cost)
            [standing] = here.standing(0.0)
            assert (said == "full") == isinstance(decided, Exhausted)
            if isinstance(decided, Exhausted):
                assert row[:2] == [standing.calls, standing.nano_usd]
                continue
            keys, real = [*OWN, *PLACES], dice.choice((None, 0, 3))
            if real is None:
                here.give_back(decided)
                await settle(keys=keys, args=[epoch, "a", "t", name])
            else:
                here.settle(decided, real)
                await settle(keys=keys, args=[epoch, "a", "t", name, real])


async def test_a_name_is_its_last_claimants_and_of_no_file_that_knows_less(tmp_path: Path) -> None:
    async with server(tmp_path) as (client, epoch):
        script = client.register_script(shared_scripts.CLAIM)

        async def claim(token: str, last: int, *earlier: str) -> str:
            return str(await script(keys=["{t}:owners"], args=["a", token, last, *earlier, token]))

        assert await claim("u", 0) == "copied"
        # A restart presents a token of before, and again where nobody heard the answer.
        assert [await claim("u", 0, "t"), await claim("u", 0, "t")] == ["ours", "ours"]
        # Who had it counts nothing, nor does a copy of its file get it back.
        assert await count(client, epoch, "a:1", HOUR_MS, 9, -1, 0) == ["copied"]
        assert await claim("v", 0, "t") == "copied"
        assert await claim("t", 0, "u") == "ours"
        assert (await count(client, epoch, "a:7", HOUR_MS, 9, -1, 0))[0] == "free"
        assert [await claim("w", 6, "t"), await claim("w", 7, "t")] == ["copied", "ours"]
        await client.delete("{t}:owners")
        assert await count(client, epoch, "a:8", HOUR_MS, 9, -1, 0) == ["lost"]
