"""Budgets that several proxies count together, before a real Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.limits.shared_sums import TIMEOUT_S
from support.fake_time import passes
from support.redis_server import FORGETFUL, Relay, redis_server
from support.sharing import PATIENT_S, TEN, TWO, are_open, is_open, is_told, of, sharing, until

if TYPE_CHECKING:
    from pathlib import Path

    from support.budget_keepers import Held
    from support.harness import Overlay

pytestmark = pytest.mark.tools("redis-server")


async def test_what_one_has_sent_is_counted_for_the_other(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a") as a,
        sharing(tmp_path, server.url, "b") as b,
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
        sharing(tmp_path, server.url, "a", TEN) as a,
        sharing(tmp_path, server.url, "b", TEN) as b,
        sharing(tmp_path, server.url, "c", TEN) as c,
    ):
        answers = await asyncio.gather(*(held.sent() for held in (a, b, c) for _ in range(40)))
        assert answers.count(None) == 10
        assert set(answers) == {None, "calls"}


async def test_what_was_not_computed_is_given_back_to_all(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a") as a,
        sharing(tmp_path, server.url, "b") as b,
    ):
        for _ in range(3):
            _, attempt, charge = a.attempt_charge()
            assert await charge.reserve() is None
            charge.close(attempt)  # which was never sent
        await a.sent()
        await is_told(a)
        assert [await b.sent(), await b.sent()] == [None, "calls"]


async def test_a_server_that_is_away_lets_nothing_through_and_nobody_wait(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a") as a:
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
        sharing(tmp_path, server.url, "a", timeout_s=TIMEOUT_S) as a,
    ):
        # A slow machine may be taken for a server that hangs, too.
        await is_open(a)
        server.hold_up()
        assert await a.sent() == "ledger_unavailable"
        server.go_on()
        await is_open(a)
        of(a)._link.timeout_s = PATIENT_S
        assert [await a.sent(), await a.sent(), await a.sent()] == [None, None, "calls"]


async def test_a_server_that_lost_everything_is_told_anew_by_each_before_anybody_is_served(
    tmp_path: Path,
) -> None:
    async with (
        redis_server(tmp_path, *FORGETFUL) as server,
        sharing(tmp_path, server.url, "a") as a,
        sharing(tmp_path, server.url, "b") as b,
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
        await of(a).look_after()
        assert [await a.sent(), await a.sent(), await b.sent()] == [None, "calls", "calls"]


async def test_who_shares_is_known_after_a_restart_of_everything(tmp_path: Path) -> None:
    async with redis_server(tmp_path, *FORGETFUL) as server:
        async with sharing(tmp_path, server.url, "a") as a, sharing(tmp_path, server.url, "b") as b:
            assert await b.sent() is None
            await of(a).look_after()
        await server.kill()
        await server.start()
        async with sharing(tmp_path, server.url, "a") as a:
            assert await a.sent() == "ledger_unavailable"
            async with sharing(tmp_path, server.url, "b"):
                await of(a).look_after()
                assert [await a.sent(), await a.sent()] == [None, "calls"]


async def test_a_durable_server_that_was_killed_has_lost_nothing_of_those_that_are_gone(
    tmp_path: Path,
) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a") as a:
        async with sharing(tmp_path, server.url, "b") as b:
            assert await b.sent() is None
            await of(a).look_after()
        await server.kill()
        await server.start()
        await a.sent()
        await of(a).look_after()
        assert [await a.sent(), await a.sent()] == [None, "calls"]


async def test_an_own_restart_counts_what_was_sent_before(tmp_path: Path) -> None:
    async with redis_server(tmp_path, *FORGETFUL) as server:
        async with sharing(tmp_path, server.url, "a") as a:
            assert await a.sent() is None
        await server.kill()
        await server.start()
        async with sharing(tmp_path, server.url, "a") as a:
            assert [await a.sent(), await a.sent()] == [None, "calls"]


async def test_a_server_out_of_memory_is_away(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a") as a:
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
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a") as a:
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
        async with sharing(tmp_path, server.url, "a") as a:
            assert await a.sent() == "ledger_unavailable"


# -- on a lease -----------------------------------------------------------------------------------


def cut(relay: Relay, held: Held) -> None:
    relay.cut()
    of(held)._link.timeout_s = 0.01


def mend(relay: Relay, held: Held) -> None:
    relay.mend()
    of(held)._link.timeout_s = PATIENT_S


# Two of the ten calls for each.
LEASED: Overlay = {"budgets": [{**TEN["budgets"][0], "lease": 0.2}]}


async def test_what_is_leased_to_one_is_not_spent_by_another(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a", LEASED) as a,
        sharing(tmp_path, server.url, "b", LEASED) as b,
    ):
        assert [await a.sent() for _ in range(9)] == [None] * 8 + ["calls"]
        # All ten are sent in the end: a lease is its holder's to spend.
        assert [await b.sent() for _ in range(3)] == [None, None, "calls"]
        assert await a.sent() == "calls"


async def test_a_partition_spends_no_more_than_the_budget(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        Relay(server.socket, tmp_path / "relay.sock") as relay,
        sharing(tmp_path, relay.url, "a", LEASED) as a,
        sharing(tmp_path, server.url, "b", LEASED) as b,
    ):
        assert [await a.sent(), await b.sent()] == [None, None]
        cut(relay, a)
        # The rest: two on the lease of a, and what is not leased to a at b.
        assert [await a.sent() for _ in range(4)] == [None, None, *["ledger_unavailable"] * 2]
        assert [await b.sent() for _ in range(8)] == [None] * 6 + ["calls"] * 2
        assert of(a).leased == 2
        # Back again, what was spent on the lease is everybody's.
        mend(relay, a)
        await is_open(a)
        assert [await a.sent(), await b.sent()] == ["calls", "calls"]
        for held in (a, b):
            await of(held).look_after()
            [standing] = held.budget_keeper.standing()
            assert (standing.calls, standing.calls_left) == (10, 0)


async def test_a_lease_that_is_over_is_spent_by_others_and_no_more_than_one_too_many(
    tmp_path: Path,
) -> None:
    """The bound on what can be overspent: one lease of each proxy that is away for so long."""
    async with (
        redis_server(tmp_path) as server,
        Relay(server.socket, tmp_path / "relay.sock") as relay,
        sharing(tmp_path, relay.url, "a", LEASED) as a,
        sharing(tmp_path, server.url, "b", LEASED) as b,
    ):
        cut(relay, a)
        spent = [await a.sent() for _ in range(5)]
        assert spent.count(None) == 2
        # As if the window had passed on the server, but not yet for what was sent at its end.
        client = server.client()
        await client.delete("{test}:leases:ten")
        await of(b).look_after()
        spent += [await b.sent() for _ in range(12)]
        assert spent.count(None) == 10 + 2
        mend(relay, a)
        await is_open(a)
        assert [await a.sent(), await b.sent()] == ["calls", "calls"]
        await client.aclose()


async def test_what_a_call_on_a_lease_did_not_need_is_there_again(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a", LEASED) as a:
        await server.kill()
        for _ in range(5):
            _, attempt, charge = a.attempt_charge()
            assert await charge.reserve() is None
            charge.close(attempt)  # which was never sent
        [standing] = a.budget_keeper.standing()
        assert standing.calls_left == 2


async def test_a_proxy_that_never_found_the_server_has_no_lease(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        await server.kill()
        async with sharing(tmp_path, server.url, "a", LEASED) as a:
            assert await a.sent() == "ledger_unavailable"


# -- whatever the server does ---------------------------------------------------------------------


@pytest.mark.parametrize("evicted", ["times", "costs", "both"])
async def test_a_budget_that_was_evicted_is_written_anew_by_all_before_anybody_is_served(
    tmp_path: Path, evicted: str
) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a") as a,
        sharing(tmp_path, server.url, "b") as b,
    ):
        assert [await a.sent(), await b.sent()] == [None, None]
        await of(a).look_after()
        client = server.client()
        names = ["times", "costs"] if evicted == "both" else [evicted]
        await client.delete(*(f"{{test}}:{name}:two" for name in names))
        assert await a.sent() == "ledger_unavailable"
        await of(a).look_after()
        assert await a.sent() == "ledger_unavailable"
        await are_open(a, b)
        assert [await a.sent(), await b.sent()] == ["calls", "calls"]
        await client.aclose()


async def test_one_who_leaves_while_being_counted_closes_nothing_for_others(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a") as a:
        server.hold_up()
        _, _, charge = a.attempt_charge()
        leaves = asyncio.create_task(charge.reserve())
        await until(lambda: of(a)._turns._value < 8)
        leaves.cancel()
        await asyncio.wait([leaves])
        server.go_on()
        assert [await a.sent(), await a.sent(), await a.sent()] == [None, None, "calls"]


@pytest.mark.fake_time
@pytest.mark.parametrize("calls", [1, 100])
async def test_whoever_finds_it_hanging_asks_once_and_waits_for_less_than_300_ms(
    tmp_path: Path, calls: int
) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a", timeout_s=TIMEOUT_S) as a,
    ):
        assert of(a).error is None
        # What was asked lately is not asked again.
        await passes(1.0)
        server.hold_up()
        asked = 0
        run = of(a)._link.run

        async def counted(script: str, keys: list[str], arguments: list[Any]) -> Any:
            nonlocal asked
            asked += 1
            return await run(script, keys, arguments)

        of(a)._link.run = counted  # type: ignore[method-assign]
        loop = asyncio.get_running_loop()
        began = loop.time()
        asks = asyncio.gather(*(a.sent() for _ in range(calls)))
        await until(lambda: asked == min(calls, 8))
        await passes(TIMEOUT_S - 0.01)
        assert not asks.done()
        await passes(0.08)
        assert await asks == ["ledger_unavailable"] * calls
        assert loop.time() - began < 0.3
        assert asked == min(calls, 8)
        # From then on nobody waits.
        assert await a.sent() == "ledger_unavailable"
        assert asked == min(calls, 8)
        server.go_on()


@pytest.mark.fake_time
async def test_one_that_answers_each_question_late_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a", timeout_s=TIMEOUT_S) as a,
    ):
        await passes(1.0)
        _, _, charge = a.attempt_charge()
        server.hold_up()
        check = asyncio.create_task(charge.check())
        await until(lambda: of(a)._turns._value < 8)
        await passes(TIMEOUT_S)
        server.go_on()
        assert await check is None
        assert charge.patience.is_over
        refused = await charge.reserve()
        assert refused is not None
        assert "it answers too slowly" in refused.message
        # It is there for others.
        assert of(a).error is None
        assert [await a.sent(), await a.sent()] == [None, None]


async def test_many_that_end_at_once_are_no_sign_that_it_is_away(tmp_path: Path) -> None:
    many: Overlay = {"budgets": [{**TWO["budgets"][0], "calls": 1000}]}
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a", many) as a:
        calls = [a.attempt_charge() for _ in range(60)]
        assert await asyncio.gather(*(charge.reserve() for _, _, charge in calls)) == [None] * 60
        for _, attempt, charge in calls:
            attempt.sent = True
            charge.close(attempt)
        await is_told(a)
        assert of(a)._leases.times_lost == 0
        await of(a).look_after()
        assert of(a).sums["two"].calls == 60


async def test_too_many_calls_at_once_are_no_sign_that_it_is_away(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a") as a:
        server.hold_up()
        asks = [asyncio.create_task(of(a).look(a.budget_keeper.all_claims())) for _ in range(8)]
        await until(of(a)._turns.locked)
        _, _, charge = a.attempt_charge()
        charge.patience.left_s = 1e-9
        refused = await charge.check()
        assert refused is not None
        assert "too many calls ask it at once" in refused.message
        assert of(a).error is None
        server.go_on()
        await asyncio.gather(*asks)


async def test_who_waits_for_a_turn_takes_what_another_was_told_meanwhile(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a") as a,
        sharing(tmp_path, server.url, "b") as b,
    ):
        assert [await a.sent(), await a.sent()] == [None, None]
        # That there was room a moment ago would do for a look.
        await of(b).look_after()
        client = server.client()
        before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        asks = [b.attempt_charge()[2].check() for _ in range(100)]
        refused = [failure.reason for failure in await asyncio.gather(*asks) if failure]
        assert refused == ["calls"] * 100
        after = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert 0 < after - before < 100
        await client.aclose()
