"""Budgets at work: counted in memory at once, on disk before the call, and never twice."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_policy.budgets import nano
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.limits.budgets import BudgetKeeper
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.records.values import log_fields
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.bodies import fields_of
from support.budget_keepers import HEAVY, NOON, OPUS, Clocks, Held, budget_keeper
from support.harness import policy
from support.records import routing
from support.stores import execute, locked, locked_out

DAY = 86_400.0
TWO = {"budgets": [{"name": "two", "models": ["gpt-oss:20b"], "calls": 2, "window": "1h"}]}
SHADOW = {"budgets": [{**TWO["budgets"][0], "shadow": True}]}
TWO_OF_ALL = {
    "budgets": [*TWO["budgets"], {"name": "all", "provider": "CLOUD", "calls": 9, "window": "1d"}]
}


def rows(directory: Path) -> list[tuple[Any, ...]]:
    return execute(directory, "SELECT id, nano_usd, settled FROM budget_charges ORDER BY id")


def approve(directory: Path, usd: float = 5.0, days: float = 7.0) -> int:
    """As another process does, while the proxy runs."""
    change = Change(
        0, NOON, NOON, ApprovalAction.APPROVE, "kim", "a trial", nano(usd), NOON + days * DAY
    )
    return written(directory, change)


def revoke(directory: Path, approval: int) -> None:
    written(
        directory, Change(0, NOON, NOON, ApprovalAction.REVOKE, "kim", "enough", target=approval)
    )


def written(directory: Path, change: Change) -> int:
    with closing(sqlite3.connect(directory / FILE_NAME)) as db, db:
        return budget_store.add_change(db, change)


# -- calls ----------------------------------------------------------------------------------------


async def test_what_no_budget_looks_at_is_charged_nothing(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        record, _, _ = held.attempt_charge()
        routing(record).role = Role.CHAT
        other = held.budget_keeper.attempt_charge(record, routing(record), OPUS, fields_of({}), 10)
        assert other is None
        assert held.budget_keeper.header_lines(record) == []
    assert rows(tmp_path) == []


async def test_a_call_is_on_disk_before_it_may_be_sent_and_settled_after(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        record, attempt, attempt_charge = held.attempt_charge()
        assert await attempt_charge.check() is None
        assert rows(tmp_path) == []
        assert await attempt_charge.reserve() is None
        assert rows(tmp_path) == [(1, 0, 0)]
        attempt.sent = True
        attempt_charge.close(attempt)
        held.store.catch_up(3600)
        assert rows(tmp_path) == [(1, 0, 1)]
        (standing,) = record.budgets.values()
        assert (standing.name, standing.calls, standing.max_calls) == ("heavy-20b", 1, 10)


async def test_two_hundred_at_once_are_ten(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        reasons = await asyncio.gather(*(held.sent() for _ in range(200)))
        assert (reasons.count(None), reasons.count("calls")) == (10, 190)
    assert len(rows(tmp_path)) == 10


async def test_a_refusal_says_which_budget_when_and_how(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path, overlay=TWO) as held:
        for _ in range(2):
            assert await held.sent() is None
            held.clocks.wait(60.0)
        record, _, attempt_charge = held.attempt_charge()
        failure = await attempt_charge.check()
        assert failure is not None
        assert failure.message == (
            'budget "two" is used up: 2 of 2 calls in 1h; the next one is free in 58 min, '
            "at 13:00 UTC; budgets in the policy can allow more"
        )
        assert (failure.status, failure.phrase) == (429, "Budget Exhausted")
        assert failure.retry_after_s is None
        assert failure.should_retry is False
        assert held.budget_keeper.header_lines(record) == [
            b'RateLimit-Policy: "two";q=2;w=3600\r\nRateLimit: "two";r=0;t=3480\r\n'
        ]
        assert record.budget_refused == "two"
        assert held.budget_keeper.refusals.refused == {"two": 1}


async def test_what_was_not_sent_is_given_back(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        _, attempt, attempt_charge = held.attempt_charge()
        assert await attempt_charge.reserve() is None
        attempt_charge.close(attempt)
        attempt_charge.close(attempt)
        (heavy, _) = held.budget_keeper.standing()
        assert heavy.calls == 0
    assert rows(tmp_path) == []


async def test_a_call_cancelled_while_it_is_written_down_does_not_count(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        _, _, attempt_charge = held.attempt_charge()
        with locked(tmp_path):
            waiting = asyncio.get_running_loop().create_task(attempt_charge.reserve())
            await asyncio.sleep(0)
            assert held.budget_keeper.standing()[0].calls == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert held.budget_keeper.standing()[0].calls == 0
    assert rows(tmp_path) == []


async def test_a_shadow_budget_refuses_nothing_and_tells_what_it_would_have(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path, overlay=SHADOW) as held:
        for _ in range(5):
            assert await held.sent() is None
        (standing,) = held.budget_keeper.standing()
        assert standing.calls == 5
        assert held.budget_keeper.refusals.shadow == {"two": 3}
        record, _, attempt_charge = held.attempt_charge()
        assert await attempt_charge.reserve() is None
        assert log_fields(record)["budgets"][0]["shadow"] is True
        assert held.budget_keeper.header_lines(record) == []
    assert len(rows(tmp_path)) == 6


# -- disk -----------------------------------------------------------------------------------------


async def test_with_a_locked_file_what_must_be_counted_is_refused(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        with locked_out(held.store):
            _, _, attempt_charge = held.attempt_charge()
            failure = await attempt_charge.reserve()
        assert failure is not None
        assert (failure.code, failure.reason) == ("E_BUDGET_EXHAUSTED", "ledger_unavailable")
        assert failure.phrase == "Budget Ledger Unavailable"
        assert "database is locked" in failure.message
        assert str(tmp_path) not in failure.message
        assert held.budget_keeper.standing()[0].calls == 0
        assert await held.sent() is None
    assert rows(tmp_path) == [(2, 0, 1)]


async def test_that_a_call_cannot_be_counted_is_foreseen_too(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        with locked_out(held.store):
            _, _, attempt_charge = held.attempt_charge()
            told = await attempt_charge.reserve()
            assert held.budget_keeper.foresee(Role.HEAVY, HEAVY, Provider.LOCAL) == told
            uncounted = HEAVY._replace(model="qwen3:8b")
            assert held.budget_keeper.foresee(Role.HEAVY, uncounted, Provider.LOCAL) is None
        assert await held.sent() is None
        assert held.budget_keeper.foresee(Role.HEAVY, HEAVY, Provider.LOCAL) is None


async def test_with_a_locked_file_a_shadow_budget_lets_everything_through(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path, overlay=SHADOW) as held:
        with locked_out(held.store):
            assert await held.sent() is None
        held.store.catch_up(3600)
        assert len(rows(tmp_path)) == 1


async def test_nothing_that_counts_is_sent_before_the_file_is_read(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        fresh = Held(
            BudgetKeeper(
                policy().policy, held.budget_keeper._prices, held.store, held.budget_keeper._time
            ),
            held.store,
            held.clocks,
        )
        assert await fresh.sent() == "ledger_unavailable"
        assert await fresh.sent(OPUS) == "ledger_unavailable"
        _, _, attempt_charge = fresh.attempt_charge()
        assert (await attempt_charge.reserve()) is not None
        await fresh.budget_keeper.open()
        assert await fresh.sent() is None


# -- restarts -------------------------------------------------------------------------------------


async def test_an_earlier_process_is_counted_and_its_numbers_are_not_reused(tmp_path: Path) -> None:
    clocks = Clocks()
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() is None
    clocks.wait(600.0)
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() is None
        assert await held.sent() == "calls"
        clocks.wait(2999.0)
        assert await held.sent() == "calls"
        clocks.wait(1.0)
        assert await held.sent() is None
    assert [row[0] for row in rows(tmp_path)] == [1, 2, 3]


async def test_what_was_in_flight_when_the_process_was_killed_stays_counted(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path, overlay=TWO) as held:
        assert await held.sent() is None
        _, _, attempt_charge = held.attempt_charge()
        assert await attempt_charge.reserve() is None
    async with budget_keeper(tmp_path, overlay=TWO) as held:
        assert await held.sent() == "calls"


@pytest.mark.parametrize("jump", [-DAY, DAY])
async def test_the_wall_clock_opens_nothing(tmp_path: Path, jump: float) -> None:
    """Put a day back or forward: while it runs, between two starts, and before a reboot."""
    clocks = Clocks()
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() is None
        assert await held.sent() is None
        clocks.set_wall(jump)
        assert await held.sent() == "calls"
    clocks.set_wall(jump)
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() == "calls"
    clocks.wait(60.0)
    clocks.reboot("boot-2", 30.0)
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() == "calls"
        clocks.wait(3600.0)
        assert await held.sent() is None


@pytest.mark.parametrize("boot", [None, "boot-1"])
async def test_an_hour_is_an_hour_whoever_tells_the_boot(tmp_path: Path, boot: str | None) -> None:
    clocks = Clocks(boot)
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() is None
        assert await held.sent() is None
    clocks.wait(3599.0)
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() == "calls"
    clocks.wait(1.0)
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() is None


async def test_a_process_that_came_later_is_the_only_one_that_charges(tmp_path: Path) -> None:
    clocks = Clocks()
    async with budget_keeper(tmp_path, clocks, TWO) as old:
        assert await old.sent() is None
        async with budget_keeper(tmp_path, clocks, TWO) as new:
            assert await old.sent() == "ledger_unavailable"
            assert await new.sent() is None
            assert await new.sent() == "calls"
            assert new.budget_keeper.error is None
    assert len(rows(tmp_path)) == 2


async def test_that_another_process_charges_now_is_noticed_without_a_call_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with budget_keeper(tmp_path, overlay=TWO) as old:
        await old.budget_keeper.look()
        assert old.budget_keeper.error is None
        async with budget_keeper(tmp_path, overlay=TWO):
            await old.budget_keeper.look()
            assert old.budget_keeper.error == (
                "another modelsplit has opened the state file; calls that budgets count are "
                "refused here"
            )
            await old.budget_keeper.look()
            assert await old.sent() == "ledger_unavailable"
            assert await old.sent(OPUS) == "ledger_unavailable"
            _, _, attempt_charge = old.attempt_charge()
            failure = await attempt_charge.reserve()
            assert failure is not None
            assert "another modelsplit has opened it" in failure.message
    assert caplog.text.count("refused here") == 1


# -- lost counts ----------------------------------------------------------------------------------


async def test_lost_counts_are_taken_as_used_up_across_restarts(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    clocks = Clocks()
    for _ in range(2):
        async with budget_keeper(tmp_path, clocks, TWO) as held:
            assert await held.sent() == "counts_lost"
            record, _, attempt_charge = held.attempt_charge()
            failure = await attempt_charge.check()
            assert failure is not None
            assert "sooner with: modelsplit budget reset --reason WHY" in failure.message
            assert b'RateLimit: "two";r=0;t=' in held.budget_keeper.header_lines(record)[0]
        clocks.wait(60.0)
    clocks.wait(3600.0)
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() is None


async def test_an_operator_may_say_that_lost_counts_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    async with budget_keeper(tmp_path, overlay=TWO) as held:
        assert await held.sent() == "counts_lost"
        written(tmp_path, Change(0, NOON, NOON, ApprovalAction.RESET, "kim", "I have the log"))
        assert await held.sent() is None


# -- the cloud ------------------------------------------------------------------------------------


async def test_the_cloud_needs_an_approval_and_sees_one_at_once(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        assert await held.sent(OPUS) == "no_approval"
        approval = approve(tmp_path)
        assert await held.sent(OPUS) is None
        revoke(tmp_path, approval)
        assert await held.sent(OPUS) == "approval_revoked"
        approve(tmp_path, days=1)
        held.clocks.wait(DAY)
        assert await held.sent(OPUS) == "approval_expired"


async def test_an_approval_revoked_in_the_last_moment_sends_nothing(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        approval = approve(tmp_path)
        _, _, attempt_charge = held.attempt_charge(OPUS)
        assert await attempt_charge.check() is None
        revoke(tmp_path, approval)
        failure = await attempt_charge.reserve()
        assert failure is not None
        assert failure.reason == "approval_revoked"
        assert failure.message == (
            "the approval of the cloud by kim was revoked; "
            "approve with: modelsplit budget approve --usd 5 --days 7 --reason WHY"
        )
        assert held.budget_keeper.standing()[1].calls == 0
    assert rows(tmp_path) == []


async def test_money_is_reserved_at_the_most_and_settled_with_the_truth(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        approve(tmp_path, usd=0.2)
        _, attempt, attempt_charge = held.attempt_charge(OPUS, {"max_tokens": 1000}, size=1000)
        assert await attempt_charge.check() is None
        assert await attempt_charge.reserve() is None
        most = nano(1000 * 15e-6 + 1000 * 75e-6)
        assert rows(tmp_path) == [(1, most, 0)]
        assert held.budget_keeper.approved()[1] == pytest.approx(0.11)
        attempt.sent, attempt.usage = True, Usage(prompt_tokens=200, output_tokens=100)
        attempt_charge.close(attempt)
        cost = nano(200 * 15e-6 + 100 * 75e-6)
        assert held.budget_keeper.standing()[1].nano_usd == cost
        assert held.budget_keeper.approved()[1] == pytest.approx(0.2 - 0.0105)
    assert rows(tmp_path) == [(1, cost, 1)]


async def test_what_it_cost_is_unknown_so_the_most_stays_charged(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        approve(tmp_path)
        _, attempt, attempt_charge = held.attempt_charge(OPUS, {"max_tokens": 1000}, size=1000)
        assert await attempt_charge.check() is None
        assert await attempt_charge.reserve() is None
        attempt.sent = True
        attempt_charge.close(attempt)
    assert rows(tmp_path) == [(1, nano(0.09), 1)]


async def test_what_the_upstream_turned_away_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        approve(tmp_path)
        _, attempt, attempt_charge = held.attempt_charge(OPUS)
        assert await attempt_charge.check() is None
        assert await attempt_charge.reserve() is None
        attempt.sent, attempt.upstream_status = True, 404
        attempt_charge.close(attempt)
        assert held.budget_keeper.standing()[1].calls == 0
    assert rows(tmp_path) == []


async def test_an_approval_does_not_cover_what_is_not_left_of_it(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        approve(tmp_path, usd=0.01)
        _, _, attempt_charge = held.attempt_charge(OPUS, {"max_tokens": 1000}, size=1000)
        failure = await attempt_charge.check()
        assert failure is not None
        assert failure.reason == "approval_spent"
        assert failure.message == (
            "0.01 of the approved 0.01 USD are left, and claude-3-opus may cost 0.09 for this "
            "call; approve with: modelsplit budget approve --usd 5 --days 7 --reason WHY"
        )


async def test_the_approval_that_is_asked_for_covers_the_call_by_itself(tmp_path: Path) -> None:
    dear = {"models": {"claude-3-opus": {"price": {"input": 0, "output": 6400}}}, "budgets": []}
    async with budget_keeper(tmp_path, overlay=dear) as held:
        _, _, attempt_charge = held.attempt_charge(OPUS, {"max_tokens": 1000}, size=1000)
        for _ in range(2):
            failure = await attempt_charge.check()
            assert failure is not None
            assert "modelsplit budget approve --usd 7 --days 7 " in failure.message
            approve(tmp_path, usd=5)
        approve(tmp_path, usd=7)
        assert await attempt_charge.check() is None


async def test_a_model_without_a_price_is_not_sent(tmp_path: Path) -> None:
    overlay = {"models": {"claude-3-opus": {"price": None}}}
    async with budget_keeper(tmp_path, overlay=overlay) as held:
        approve(tmp_path)
        assert await held.sent(OPUS) == "price_unknown"


async def test_what_was_spent_of_an_approval_is_remembered(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path) as held:
        approve(tmp_path, usd=0.5)
        assert await held.sent(OPUS) is None
    async with budget_keeper(tmp_path) as held:
        assert await held.sent(OPUS) == "approval_spent"


async def test_nine_a_day_however_much_money_is_approved(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path, overlay={"budgets": TWO_OF_ALL["budgets"]}) as held:
        approve(tmp_path, usd=1000.0)
        reasons = [await held.sent(OPUS) for _ in range(11)]
        assert reasons == [None] * 9 + ["calls"] * 2


# -- upkeep ---------------------------------------------------------------------------------------


async def test_a_wall_clock_that_was_set_is_written_down(tmp_path: Path) -> None:
    """Else a reboot after it would take the jump for time that passed."""
    clocks = Clocks()
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() is None
        assert await held.sent() is None
        clocks.set_wall(DAY)
        held.budget_keeper.look_at_the_clock()
        held.store.catch_up(3600)
        held.budget_keeper._is_open = False  # killed: nothing is written at the end
    clocks.wait(60.0)
    clocks.reboot("boot-2", 30.0)
    async with budget_keeper(tmp_path, clocks, TWO) as held:
        assert await held.sent() == "calls"


async def test_room_is_looked_at_without_counting(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path, overlay=TWO) as held:
        assert held.budget_keeper.has_room("gpt-oss:20b", Role.HEAVY, Provider.LOCAL)
        await held.sent()
        await held.sent()
        assert not held.budget_keeper.has_room("GPT-OSS:20b", Role.HEAVY, Provider.LOCAL)
        assert held.budget_keeper.has_room(HEAVY.model + "-small", Role.HEAVY, Provider.LOCAL)
    assert len(rows(tmp_path)) == 2


# -- what cannot be written, and numbers that are none ---------------------------------------------

PRICED = {
    "models": {"gpt-oss:20b": {"price": {"input": 1.0, "output": 1.0}, "max_output_tokens": 1000}},
    "budgets": [{"name": "money", "models": ["gpt-oss:20b"], "usd": 5.0, "window": "1h"}],
}
RESERVED = 1_100_000  # billionths, for 100 bytes and 1000 tokens


@pytest.mark.parametrize(
    "usage", [Usage(), Usage(1, None), Usage(2**53 - 1, 2**53 - 1), Usage(-(2**40), 5)]
)
async def test_a_cost_that_is_none_leaves_what_was_reserved(tmp_path: Path, usage: Usage) -> None:
    """However such numbers came here: no sum grows by them, and none shrinks."""
    async with budget_keeper(tmp_path, overlay=PRICED) as held:
        _, attempt, attempt_charge = held.attempt_charge()
        assert await attempt_charge.reserve() is None
        attempt.sent, attempt.usage = True, usage
        attempt_charge.close(attempt)
        assert held.store.catch_up(3600)
        assert rows(tmp_path) == [(1, RESERVED, 1)]
        assert held.budget_keeper.standing()[0].nano_usd == RESERVED
        assert held.budget_keeper.writes_lost == 0


@pytest.mark.parametrize(
    ("model", "error"), [("a\ud800", "UnicodeEncodeError"), (object(), "Error")]
)
async def test_a_charge_that_cannot_be_written_refuses_its_call_and_no_other(
    tmp_path: Path, model: Any, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with budget_keeper(tmp_path, overlay=TWO) as held:
        charges = [held.attempt_charge()[2] for _ in range(3)]
        charges[1].charge = replace(charges[1].charge, model=model)
        for budget in held.budget_keeper._budgets._windows:
            budget._models = None
        refused = await asyncio.gather(*(charge.reserve() for charge in charges[:2]))
        assert [None if one is None else one.reason for one in refused] == [
            None,
            "ledger_unavailable",
        ]
        assert await charges[2].reserve() is None
        assert held.store.catch_up(3600)
        assert [row[0] for row in rows(tmp_path)] == [1, 3]
        assert held.budget_keeper.standing()[0].calls == 2
        assert held.budget_keeper.writes_lost == 0
    assert caplog.text.count("the charge of req-1 cannot be written") == 1
    assert error in caplog.text


async def test_a_cost_that_cannot_be_written_is_counted_told_and_still_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settle = budget_store.settle

    def poisoned(db: sqlite3.Connection, keeper: str, number: int, nano_usd: int) -> None:
        settle(db, keeper, number, 2**64 if number == 1 else nano_usd)

    monkeypatch.setattr(budget_store, "settle", poisoned)
    async with budget_keeper(tmp_path, overlay=PRICED) as held:
        for _ in range(2):
            _, attempt, attempt_charge = held.attempt_charge()
            assert await attempt_charge.reserve() is None
            attempt.sent, attempt.usage = True, Usage(7, 7)
            attempt_charge.close(attempt)
        assert held.store.catch_up(3600)
        assert rows(tmp_path) == [(1, RESERVED, 0), (2, 14_000, 1)]
        assert held.budget_keeper.standing()[0].nano_usd == 28_000
        assert held.budget_keeper.writes_lost == 1
    assert "the cost of req-1 cannot be written: OverflowError" in caplog.text


async def test_a_shadow_charge_that_cannot_be_written_is_counted_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise LookupError

    async with budget_keeper(tmp_path, overlay=SHADOW) as held:
        monkeypatch.setattr(budget_store, "reserve", fails)
        assert await held.attempt_charge()[2].reserve() is None
        assert held.store.catch_up(3600)
        assert (held.budget_keeper.standing()[0].calls, held.budget_keeper.writes_lost) == (1, 1)


async def test_less_than_nothing_in_an_older_file_is_no_credit(tmp_path: Path) -> None:
    clocks = Clocks()
    async with budget_keeper(tmp_path, clocks, PRICED) as held:
        assert await held.sent() is None
    execute(tmp_path, "UPDATE budget_charges SET nano_usd = -5000000000, approval = 1")
    async with budget_keeper(tmp_path, clocks, PRICED) as held:
        assert held.budget_keeper.standing()[0].nano_usd == 0
        assert held.budget_keeper._approvals.spent == {1: 0}
