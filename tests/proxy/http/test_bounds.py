"""What ends an answer early."""

from __future__ import annotations

import asyncio

from modelsplit_policy.deadlines import UNBOUNDED, Bounds
from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.bounds import Watch
from modelsplit_proxy.http.upstream import UpstreamError

Done = asyncio.Future[UpstreamError | Reason | None]


async def test_without_a_bound_nothing_is_watched() -> None:
    done: Done = asyncio.get_running_loop().create_future()
    assert Watch(UNBOUNDED, done)._timer is None


async def test_the_earlier_bound_ends_the_wait() -> None:
    loop = asyncio.get_running_loop()
    for bounds, reason in (
        (Bounds(loop.time() + 0.02, Reason.LOAD_TIMEOUT, stall_s=60), Reason.LOAD_TIMEOUT),
        (Bounds(loop.time() + 60, stall_s=0.02), Reason.STALL),
    ):
        done: Done = loop.create_future()
        Watch(bounds, done)
        assert await done is reason


async def test_a_wait_that_is_over_is_not_ended_again() -> None:
    done: Done = asyncio.get_running_loop().create_future()
    watch = Watch(Bounds(stall_s=60), done)
    done.set_result(None)
    watch._end(Reason.STALL)
    watch.stop()
    assert done.result() is None


async def test_a_silence_that_may_be_long_is_pinged_and_a_ping_may_end_it() -> None:
    loop = asyncio.get_running_loop()
    done: Done = loop.create_future()
    pings: list[float] = []

    def ping(last: float) -> Reason | None:
        pings.append(last)
        return Reason.UPSTREAM_MUTE if len(pings) == 3 else None

    watch = Watch(Bounds(stall_s=60, ping_s=0.01), done, ping)
    assert await done is Reason.UPSTREAM_MUTE
    assert pings == [watch.last] * 3
