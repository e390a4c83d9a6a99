"""Made once for all who ask within a moment."""

from __future__ import annotations

import asyncio

import pytest

from modelsplit_proxy.admin.shared_answers import SharedAnswers
from support.fake_time import LoopClock, clock, passes, turns

pytestmark = pytest.mark.fake_time


def shared_answers() -> SharedAnswers:
    time = clock()
    assert isinstance(time, LoopClock)
    return SharedAnswers(time)


async def at_once() -> bytes:
    return b"x"


async def test_those_who_ask_at_once_share_one_and_later_ones_while_it_is_young() -> None:
    ready, shared = asyncio.Event(), shared_answers()

    async def made() -> bytes:
        await ready.wait()
        return b"x"

    asked = asyncio.gather(*(shared.get("a", 5, made) for _ in range(20)))
    await turns()
    ready.set()
    assert [*await asked] == [b"x"] * 20
    assert shared.made == 1
    await passes(4)
    await shared.get("a", 5, made)
    assert shared.made == 1
    await passes(1)
    await shared.get("a", 5, made)
    assert shared.made == 2


async def test_one_that_fails_is_told_and_made_anew() -> None:
    async def broken() -> bytes:
        raise ValueError("no")

    shared = shared_answers()
    with pytest.raises(ValueError, match="no"):
        await shared.get("a", 5, broken)
    assert await shared.get("a", 5, at_once) == b"x"
    assert shared._making == {}


async def test_it_keeps_a_few() -> None:
    shared = shared_answers()
    for number in range(100):
        await shared.get(str(number), 5, at_once)
    assert len(shared._kept) == 32
    await shared.get("99", 5, at_once)
    assert shared.made == 100
