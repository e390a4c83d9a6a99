"""Approvals that hold on every proxy: given on one, used up once, taken back everywhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_proxy.limits.shared_approvals import FORGOTTEN_S, name_of, news, over, texts
from support.budget_keepers import OPUS
from support.redis_server import FORGETFUL, redis_server
from support.sharing import approve, are_open, is_told, of, revoke, sharing

if TYPE_CHECKING:
    from pathlib import Path

    from support.budget_keepers import Held
    from support.harness import Overlay

# Each call of 100 bytes may cost one dollar; what refuses is the approval.
CLOUD: Overlay = {
    "budgets": [{"name": "cloud", "provider": "CLOUD", "usd": 1000.0, "window": "1d"}],
    "models": {"claude-3-opus": {"price": {"input": 10000.0, "output": 0.0}}},
}
LEASED: Overlay = {**CLOUD, "budgets": [{**CLOUD["budgets"][0], "lease": 0.5}]}

given = Change(1, 50.0, 1050.0, ApprovalAction.APPROVE, "kim", "a trial", 7, 100.0, uid="u1")
taken = Change(2, 60.0, 1060.0, ApprovalAction.REVOKE, "ann", "enough", target=1, uid="u2")


# -- as they are told -----------------------------------------------------------------------------


def pairs(told: list[str]) -> list[tuple[str, str]]:
    return [*zip(told[::2], told[1::2], strict=True)]


def test_what_is_told_is_heard_in_the_times_of_another_machine() -> None:
    told = pairs(texts([given, taken], 70.0, 1070.0))
    assert [name for name, _ in told] == ["approve:u1", "revoke:u1"]
    approvals, revocations = news(told, [], 5.0, 1072.0)
    [approval], [(uid, revocation)] = approvals, revocations
    assert (approval.uid, approval.at, approval.until) == ("u1", -17.0, 33.0)
    assert (approval.by, approval.reason, approval.nano_usd) == ("kim", "a trial", 7)
    assert (uid, revocation.action, revocation.by) == ("u1", ApprovalAction.REVOKE, "ann")
    # Once known, it is no news.
    assert news(told, [given, taken], 70.0, 1070.0) == ([], [])
    assert news(told, [given], 70.0, 1070.0)[1][0][0] == "u1"


def test_what_is_over_is_not_told_and_not_heard() -> None:
    assert texts([given, taken], 100.0, 1100.0) == []
    told = pairs(texts([given, taken], 99.0, 1099.0))
    assert news(told, [], 0.0, 1100.0) == ([], [])
    assert over(told, 1101.0) == []
    assert over(told, 1101.0 + FORGOTTEN_S) == ["u1"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "7",
        "[" * 100_000,
        '{"wall": 1, "until": 2000, "nano_usd": -1, "by": "", "reason": ""}',
    ],
)
def test_what_makes_no_sense_is_left_out(text: str) -> None:
    assert news([("approve:u9", text), ("approve:", text)], [], 0.0, 1000.0) == ([], [])


# -- several proxies ------------------------------------------------------------------------------


async def cloud_calls(held: Held, count: int) -> list[str | None]:
    return [await held.sent(OPUS) for _ in range(count)]


async def test_given_on_one_it_holds_on_all_and_is_used_up_once(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a", CLOUD) as a,
        sharing(tmp_path, server.url, "b", CLOUD) as b,
    ):
        assert await b.sent(OPUS) == "no_approval"
        approve(a, usd=5.0)
        await of(a).look_after()
        # Nobody has told b, who asks when it has none.
        assert await cloud_calls(b, 3) == [None] * 3
        assert await cloud_calls(a, 3) == [None, None, "approval_spent"]
        assert await b.sent(OPUS) == "approval_spent"
        for held in (a, b):
            [approval], left = held.budget_keeper.approved()
            assert (approval.by, approval.reason, left) == ("kim", "a trial", 0.0)


async def test_of_many_calls_at_once_no_more_are_sent_than_are_approved(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a", CLOUD) as a,
        sharing(tmp_path, server.url, "b", CLOUD) as b,
    ):
        approve(a, usd=3.0)
        approve(b, usd=4.0, days=14.0)
        for held in (a, b, a):
            await of(held).look_after()
        answers = await asyncio.gather(*(held.sent(OPUS) for held in (a, b) for _ in range(20)))
        assert answers.count(None) == 7
        assert set(answers) == {None, "approval_spent"}


async def test_taken_back_on_one_it_is_taken_back_everywhere(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a", CLOUD) as a,
        sharing(tmp_path, server.url, "b", CLOUD) as b,
    ):
        number = approve(a)
        await of(a).look_after()
        assert await b.sent(OPUS) is None
        revoke(a, number)
        await of(a).look_after()
        # b has not been told: it finds out when it counts.
        assert await b.sent(OPUS) == "approval_revoked"
        assert [change.action for change in await b.budget_keeper.changes()] == [
            ApprovalAction.APPROVE,
            ApprovalAction.REVOKE,
        ]


async def test_a_server_that_forgot_is_told_of_approvals_and_of_what_was_spent(
    tmp_path: Path,
) -> None:
    async with (
        redis_server(tmp_path, *FORGETFUL) as server,
        sharing(tmp_path, server.url, "a", CLOUD) as a,
        sharing(tmp_path, server.url, "b", CLOUD) as b,
    ):
        approve(a, usd=3.0)
        number = approve(a, usd=100.0)
        revoke(a, number)
        await of(a).look_after()
        assert [await a.sent(OPUS), await b.sent(OPUS)] == [None, None]
        await is_told(a)
        await server.kill()
        await server.start()
        assert await a.sent(OPUS) == "ledger_unavailable"
        assert await b.sent(OPUS) == "ledger_unavailable"
        await are_open(a, b)
        assert [await a.sent(OPUS), await b.sent(OPUS)] == [None, "approval_spent"]


async def test_the_file_keeps_what_was_approved_elsewhere(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        async with (
            sharing(tmp_path, server.url, "a", CLOUD) as a,
            sharing(tmp_path, server.url, "b", CLOUD) as b,
        ):
            approve(a)
            await of(a).look_after()
            await of(b).look_after()
        async with sharing(tmp_path, server.url, "b", CLOUD) as b:
            [approval], _ = b.budget_keeper.approved()
            assert approval.uid
            assert await b.sent(OPUS) is None


async def test_away_the_cloud_is_closed_or_has_the_lease_of_its_budgets(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        sharing(tmp_path, server.url, "a", CLOUD) as a,
        sharing(tmp_path, server.url, "b", LEASED) as b,
    ):
        approve(a, usd=5.0)
        for held in (a, b, b):
            await of(held).look_after()
        await server.kill()
        assert await a.sent(OPUS) == "ledger_unavailable"
        # Half of 5 dollars.
        assert await cloud_calls(b, 3) == [None, None, "ledger_unavailable"]
        await server.start()
        await are_open(a, b)
        # The rest is leased to b again.
        assert await a.sent(OPUS) == "approval_spent"
        assert await cloud_calls(b, 4) == [None, None, None, "approval_spent"]


async def test_approvals_that_are_long_over_are_forgotten(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, sharing(tmp_path, server.url, "a", CLOUD) as a:
        approve(a)
        await of(a).look_after()
        [approval], _ = a.budget_keeper.approved()
        assert await a.sent(OPUS) is None
        await of(a)._forget([approval.uid])
        client = server.client()
        assert await client.hgetall("{test}:changes") == {}
        assert not [key for key in await client.keys("*") if name_of(approval.uid) in str(key)]
        await client.aclose()
