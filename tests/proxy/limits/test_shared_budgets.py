"""Budgets that several proxies count together, before a real Redis."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.limits.shared_link import SharedLink
from modelsplit_proxy.limits.shared_sums import TIMEOUT_S
from support.fake_time import passes
from support.ports import kept_port
from support.redis_server import DURABLE, FORGETFUL, Relay, redis_server
from support.sharing import PATIENT_S, TEN, TWO, are_open, is_open, is_told, of, sharing, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.budget_keepers import Held
    from support.harness import Overlay
    from support.redis_server import RedisServer

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


@asynccontextmanager
async def two_on_leases(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, Relay, Held, Held]]:
    """The server, a relay before it, who counts by way of that, and who counts directly."""
    async with (
        redis_server(tmp_path) as server,
        Relay(server.socket, tmp_path / "relay.sock") as relay,
        sharing(tmp_path, relay.url, "a", LEASED) as a,
        sharing(tmp_path, server.url, "b", LEASED) as b,
    ):
        yield server, relay, a, b


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
    async with two_on_leases(tmp_path) as (_, relay, a, b):
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
    async with two_on_leases(tmp_path) as (server, relay, a, b):
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
        # There is time for another question, which was answered as late.
        assert not charge.patience.is_over
        charge.patience.spend(TIMEOUT_S)
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


# -- whatever becomes of the others ---------------------------------------------------------------


async def test_machines_whose_clocks_differ_count_by_the_clock_of_the_server(
    tmp_path: Path,
) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a") as a,
        sharing(tmp_path, server.url, "b", fast_by=300.0) as b,
    ):
        b.clocks.set_wall(300.0)
        assert await b.sent() is None
        for held in (a, b):
            await of(held).look_after()
        # Neither takes the other for one that was not heard of for long, or is yet to come.
        assert [of(held).fields()["proxies"] for held in (a, b)] == [2, 2]
        assert [await a.sent(), await a.sent(), await b.sent()] == [None, "calls", "calls"]
        # Nor is what it writes anew put down to another time.
        client = server.client()
        await client.delete("{test}:state")
        assert [await a.sent(), await b.sent()] == ["ledger_unavailable"] * 2
        await are_open(a, b)
        frees = [round((of(held).sums["two"].frees_in_s or 0) / 60) for held in (a, b)]
        assert frees == [60, 60]
        assert [await a.sent(), await b.sent()] == ["calls", "calls"]
        await client.aclose()


@pytest.mark.fake_time
async def test_who_was_stopped_for_longer_than_the_lease_has_none_when_it_goes_on(
    tmp_path: Path,
) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a", LEASED) as a:
        assert await a.sent() is None
        await passes(3601.0)
        await server.kill()
        assert await a.sent() == "ledger_unavailable"
        assert of(a).leased == 0


async def test_who_lost_its_own_file_is_still_counted_by_the_server(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "b") as b:
        async with sharing(tmp_path, server.url, "a") as a:
            assert await a.sent() is None
        shutil.rmtree(tmp_path / "a")
        async with sharing(tmp_path, server.url, "a") as a:
            # It is another one, for the server and for those who know it.
            await of(b).look_after()
            assert of(b).fields()["proxies"] == 3
            assert [await a.sent(), await b.sent(), await a.sent()] == [None, "calls", "calls"]


async def test_two_policies_with_one_budget_each_hold_to_their_own_limit_of_what_all_sent(
    tmp_path: Path,
) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a") as a,
        sharing(tmp_path, server.url, "b", {"budgets": [{**TWO["budgets"][0], "calls": 4}]}) as b,
    ):
        assert [await b.sent(), await b.sent()] == [None, None]
        assert await a.sent() == "calls"
        assert [await b.sent(), await b.sent(), await b.sent()] == [None, None, "calls"]


async def test_a_policy_with_a_shorter_window_does_not_make_another_forget(tmp_path: Path) -> None:
    """As while a policy is rolled out, one proxy after the other."""
    minute: Overlay = {"budgets": [{**TWO["budgets"][0], "window": "1m"}]}
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a") as a,
        sharing(tmp_path, server.url, "b", minute) as b,
    ):
        assert [await a.sent(), await a.sent()] == [None, None]
        await is_told(a)
        assert await b.sent() == "calls"
        # As if two minutes had passed.
        client: Any = server.client()
        for member in await client.zrange("{test}:times:two", 0, -1):
            await client.zincrby("{test}:times:two", -120_000, member)
        assert [await b.sent(), await b.sent(), await b.sent()] == [None, None, "calls"]
        assert await a.sent() == "calls"
        for held in (a, b):
            await of(held).look_after()
        assert (of(a).sums["two"].calls, of(b).sums["two"].calls) == (4, 2)
        await client.aclose()


async def test_a_server_that_forgets_its_scripts_is_told_them_again(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a") as a:
        client = server.client()
        assert await a.sent() is None
        await is_told(a)
        await client.script_flush()
        assert [await a.sent(), await a.sent()] == [None, "calls"]
        assert of(a).error is None
        await client.aclose()


async def test_emptied_while_leases_are_out_it_is_closed_until_they_are_told(
    tmp_path: Path,
) -> None:
    async with two_on_leases(tmp_path) as (server, relay, a, b):
        assert [await a.sent(), await b.sent()] == [None, None]
        await of(b).look_after()
        cut(relay, a)
        client = server.client()
        await client.flushall()
        spent = [await b.sent() for _ in range(5)]
        await of(b).look_after()
        spent += [await b.sent() for _ in range(5)]
        # On their leases, both of them, and not more.
        assert spent.count(None) == 2
        assert [await a.sent() for _ in range(5)].count(None) == 2
        mend(relay, a)
        await are_open(a, b)
        spent = [await held.sent() for held in (a, b) for _ in range(6)]
        assert 2 + 2 + 2 + spent.count(None) == 10
        await client.aclose()


@pytest.mark.parametrize("home", ["empty", "behind"])
async def test_failed_over_to_a_server_that_has_not_all_nobody_is_served_before_all_have_written(
    tmp_path: Path, home: str
) -> None:
    """To one that is empty, or to a replica that has not had what the other said yes to last."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with kept_port() as port:
        async with (
            redis_server(tmp_path / "first", *DURABLE, "--port", str(port)) as first,
            redis_server(tmp_path / "second") as second,
            Relay(first.socket, tmp_path / "relay-a.sock") as relay_a,
            Relay(first.socket, tmp_path / "relay-b.sock") as relay_b,
            sharing(tmp_path, relay_a.url, "a") as a,
            sharing(tmp_path, relay_b.url, "b") as b,
        ):
            for held in (a, b):
                await of(held).look_after()
            client: Any = second.client()
            if home == "behind":
                await client.replicaof("127.0.0.1", port)
                while not await client.exists("{test}:state"):
                    pass
                await client.replicaof("NO", "ONE")
            assert await b.sent() is None
            await is_told(b)
            for relay in (relay_a, relay_b):
                relay.leads_to(second.socket)
            relay_b.cut()
            for _ in range(3):
                await of(a).look_after()
                # What b has sent is not known there.
                assert await a.sent() == "ledger_unavailable"
            assert "has not written its own anew" in str(of(a).error)
            relay_b.mend()
            await are_open(a, b)
            assert [await a.sent(), await a.sent(), await b.sent()] == [None, "calls", "calls"]
            await client.aclose()


# -- a copied state directory ---------------------------------------------------------------------


def copied(home: Path, name: str, copy: str) -> None:
    """Whether or not it runs, as a machine is cloned."""
    shutil.copytree(home / name, home / copy)


async def test_of_two_from_one_copied_directory_no_more_than_the_budget_leaves(
    tmp_path: Path,
) -> None:
    async with redis_server(tmp_path) as server:
        async with sharing(tmp_path, server.url, "a", TEN) as a:
            assert await a.sent() is None
        copied(tmp_path, "a", "b")
        async with (
            sharing(tmp_path, server.url, "a", TEN) as a,
            sharing(tmp_path, server.url, "b", TEN) as b,
        ):
            answers = [await held.sent() for _ in range(10) for held in (a, b)]
            # What was sent before it was copied counts twice: 1 + 8 + 1.
            assert answers.count(None) == 8
            assert await a.sent() == "calls"
            assert of(a)._name != of(b)._name


async def test_a_copy_of_one_that_goes_on_takes_another_name_and_both_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a", TEN) as a:
        assert await a.sent() is None
        copied(tmp_path, "a", "b")
        assert await a.sent() is None
        name = of(a)._name
        async with sharing(tmp_path, server.url, "b", TEN) as b:
            # What was counted since tells it from a restart.
            assert (of(a)._name, of(b)._was) == (name, name)
            answers = [await held.sent() for _ in range(10) for held in (a, b)]
            assert answers.count(None) == 10 - 2 - 1
            while not (of(a).copies and of(b).copies):
                for held in (a, b):
                    await of(held).look_after()
            [ours], [theirs] = of(a).fields()["copies"], of(b).fields()["copies"]
            assert "runs with a copy of this state directory" in ours
            assert f"has the name {name} in the shared Redis, from a copy" in theirs
            assert {f"shared budgets: {text}" for text in (ours, theirs)} <= set(caplog.messages)
            other = of(b)._name
        # Each keeps its own from then on.
        async with sharing(tmp_path, server.url, "b", TEN) as b:
            assert (of(b)._name, of(b).copies) == (other, ())
            assert [await a.sent(), await b.sent()] == ["calls", "calls"]


async def test_where_nothing_was_counted_since_the_other_one_takes_another_name(
    tmp_path: Path,
) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a", LEASED) as a:
        assert await a.sent() is None
        copied(tmp_path, "a", "b")
        name = of(a)._name
        async with sharing(tmp_path, server.url, "b", LEASED) as b:
            assert of(b)._name == name
            assert await b.sent() is None
            # Its lease is its successor's as well.
            assert await a.sent() == "ledger_unavailable"
            await are_open(a, b)
            assert of(a)._was == name
            assert of(a)._name != name
            answers = [await held.sent() for _ in range(12) for held in (a, b)]
            # One of before, twice, and one.
            assert answers.count(None) == 10 - 3


async def test_what_an_old_backup_does_not_know_stays_counted(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        async with sharing(tmp_path, server.url, "a", TEN) as a:
            assert await a.sent() is None
            copied(tmp_path, "a", "backup")
            assert [await a.sent() for _ in range(4)] == [None] * 4
        async with sharing(tmp_path, server.url, "backup", TEN) as restored:
            assert of(restored)._was
            assert [await restored.sent() for _ in range(5)] == [None] * 4 + ["calls"]


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_restart_keeps_its_name_also_where_its_claim_was_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    async with redis_server(tmp_path) as server:
        async with sharing(tmp_path, server.url, "a") as a:
            name = of(a)._name
            assert await a.sent() is None
        run = SharedLink.run

        async def breaks(link: SharedLink, script: str, keys: list[str], rest: list[Any]) -> Any:
            if is_done:
                await run(link, script, keys, rest)
            raise TimeoutError

        for _ in range(2):
            with monkeypatch.context() as broken:
                broken.setattr(SharedLink, "run", breaks)
                async with sharing(tmp_path, server.url, "a") as a:
                    assert await a.sent() == "ledger_unavailable"
        async with sharing(tmp_path, server.url, "a") as a:
            assert (of(a)._name, of(a).copies) == (name, ())
            assert [await a.sent(), await a.sent()] == [None, "calls"]
