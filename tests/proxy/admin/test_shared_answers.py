"""Made once for all who ask within a moment."""

from __future__ import annotations

import asyncio

import pytest

from modelsplit_proxy.admin.shared_answers import SharedAnswers
from modelsplit_proxy.storage.state_file import StoreError
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


async def test_what_took_long_serves_the_longer() -> None:
    async def slow() -> bytes:
        await passes(2)
        return b"x"

    shared = shared_answers()
    await shared.get("a", 5, slow, rest=100)
    await passes(199)
    assert await shared.get("a", 5, slow, rest=100) == b"x"
    assert shared.made == 1
    await passes(1)
    await shared.get("a", 5, slow, rest=100)
    assert shared.made == 2


async def test_that_there_is_none_is_told_for_as_long() -> None:
    """Judging a file that is too long for it takes a minute, and then fails."""

    async def given_up() -> bytes:
        await passes(2)
        raise StoreError("it took too long")

    shared = shared_answers()
    for _ in range(3):
        with pytest.raises(StoreError, match="too long"):
            await shared.get("a", 5, given_up, rest=100)
    assert shared.made == 1
    await passes(200)
    assert await shared.get("a", 5, at_once, rest=100) == b"x"


async def test_it_keeps_a_few() -> None:
    shared = shared_answers()
    for number in range(100):
        await shared.get(str(number), 5, at_once)
    assert len(shared._kept) == 32
    await shared.get("99", 5, at_once)
    assert shared.made == 100
