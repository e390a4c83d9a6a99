"""What requests and the process's end know of each other."""

from __future__ import annotations

import asyncio

from modelsplit_proxy.runtime.lifecycle import Lifecycle


async def test_a_process_without_requests_is_idle() -> None:
    await Lifecycle().idle()


async def test_it_is_idle_again_when_the_last_request_ends() -> None:
    lifecycle = Lifecycle()
    waiting = asyncio.get_running_loop().create_task(lifecycle.idle())
    lifecycle.begin()
    lifecycle.begin()
    lifecycle.end()
    again = asyncio.get_running_loop().create_task(lifecycle.idle())
    await asyncio.sleep(0)
    assert (lifecycle.active, again.done()) == (1, False)
    lifecycle.end()
    await again
    await waiting
    assert lifecycle.active == 0


async def test_whoever_waits_for_the_end_waits_again_for_a_request_that_came_meanwhile() -> None:
    lifecycle = Lifecycle()
    lifecycle.begin()
    waiting = asyncio.get_running_loop().create_task(lifecycle.idle())
    await asyncio.sleep(0)
    lifecycle.end()
    lifecycle.begin()
    await asyncio.sleep(0)
    assert not waiting.done()
    lifecycle.end()
    await waiting
