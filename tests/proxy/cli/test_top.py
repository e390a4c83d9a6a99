"""``modelsplit top`` on a terminal: the process itself, its keys, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.cli import top
from modelsplit_proxy.config.settings import Address
from modelsplit_sim.config import SimConfig
from support.harness import running
from support.ports import kept_port
from support.process import BARE

if TYPE_CHECKING:
    from collections.abc import Iterator

CALL = {"model": "planner", "prompt": "x"}


class Terminal:
    """Our end of a terminal of 120 by 40."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._seen = b""

    async def shows(self, text: str) -> None:
        """Read on until this has been drawn since the last time."""
        while text.encode() not in self._seen:
            self._seen += await asyncio.to_thread(os.read, self._end, 65536)
        self._seen = b""

    def press(self, keys: str) -> None:
        os.write(self._end, keys.encode())


@contextmanager
def terminal() -> Iterator[tuple[Terminal, int]]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    try:
        yield Terminal(ours), theirs
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_running_call_is_seen_found_explained_and_left() -> None:
    async with running(SimConfig(tokens=100_000, token_rate=20)) as up, up.client() as client:
        await client.ask("POST", "/api/generate", CALL, {"X-Request-Id": "the-one-to-see"})
        await up.sim.wait_for(lambda sim: sim.active == 1)
        admin = f"127.0.0.1:{up.admin_port}"
        with terminal() as (screen, theirs):
            before = termios.tcgetattr(theirs)
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "modelsplit_proxy", "top", "--every", "0.1"),
                *("--admin", admin),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=BARE | {"TERM": "xterm-256color"},
            )
            await screen.shows("the-one-")
            screen.press("/nobody-else\r")
            await screen.shows("nothing fits the filter")
            screen.press("\x1b")
            await screen.shows("the-one-")
            screen.press("?")
            await screen.shows("any key goes back")
            screen.press(" ")
            screen.press("\r")
            await screen.shows("esc closes")
            screen.press("q")
            await screen.shows("q quit")
            screen.press("q")
            # Read on, or the end of what it draws may find no room.
            reading = asyncio.create_task(screen.shows("\x1b[?1049l"))
            assert await child.wait() == 0
            await reading
            assert termios.tcgetattr(theirs) == before
        await client.close()


async def test_what_is_seen_and_how_fast_it_comes() -> None:
    async with running(SimConfig(tokens=100_000, token_rate=50)) as up, up.client() as client:
        screen = top.Screen(Address("127.0.0.1", up.admin_port))
        await client.ask("POST", "/api/generate", CALL, {"X-Request-Id": "abc"})
        while not (screen.look.rows and screen.look.rows[0].rate):
            await asyncio.to_thread(screen.refresh)
        [row] = screen.listed()
        assert (row.id, row.kind, row.state, row.role) == ("abc", "running", "streaming", "PLANNER")
        await asyncio.to_thread(screen.press, "\r")
        assert "abc" in screen._text
        await client.close()


def test_a_proxy_that_is_away_is_told_and_what_was_seen_stays() -> None:
    with kept_port() as port:
        screen = top.Screen(Address("127.0.0.1", port))
        screen.refresh()
        assert "modelsplit serve" in screen.look.trouble
        assert "modelsplit serve" in str(screen.draw(80, 24))
        screen.look = screen.look._replace(rows=())
        screen.refresh()
        assert screen.look.stats is None


@pytest.mark.parametrize("key", ["q", "\x1b"])
def test_a_call_that_is_gone_says_so(key: str) -> None:
    with kept_port() as port:
        screen = top.Screen(Address("127.0.0.1", port))
        assert "modelsplit serve" in screen._explained("no/such?id")
        screen.press(key)
        assert screen.view.leaving is (key == "q")
