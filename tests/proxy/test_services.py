"""What requests and the process's end know of each other."""

from __future__ import annotations

import asyncio

import pytest

from modelsplit_proxy.services import Lifecycle


async def test_a_process_without_requests_is_idle() -> None:
    await asyncio.wait_for(Lifecycle().idle(), 10)


async def test_it_is_idle_again_when_the_last_request_ends_however_it_ends() -> None:
    lifecycle = Lifecycle()
    waiting = asyncio.get_running_loop().create_task(lifecycle.idle())
    with lifecycle.request():
        with pytest.raises(ZeroDivisionError), lifecycle.request():
            raise ZeroDivisionError
        again = asyncio.get_running_loop().create_task(lifecycle.idle())
        await asyncio.sleep(0)
        assert (lifecycle.active, again.done()) == (1, False)
    await asyncio.wait_for(again, 10)
    await waiting
    assert lifecycle.active == 0
