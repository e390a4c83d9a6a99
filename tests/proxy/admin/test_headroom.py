"""How much room there is, as a load balancer reads it."""

from __future__ import annotations

import asyncio

import pytest

from modelsplit_proxy.admin.headroom import Headroom
from modelsplit_proxy.config.settings import Address
from modelsplit_sim.config import SimConfig
from support.harness import running

ENDLESS = SimConfig(tokens=10_000_000, token_rate=20, num_parallel=8)


def room(**changes: object) -> Headroom:
    values: dict[str, object] = {"ready": True, "draining": False, "seats": 6, "free": 6}
    return Headroom(**(values | {"waiting": 0, "oldest_wait_s": 0.0} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, b"up ready 100%\n"),
        ({"free": 3}, b"up ready 50%\n"),
        # A server of weight 0 would be asked nothing, though calls may wait for it.
        ({"free": 0}, b"up ready 1%\n"),
        ({"free": 3, "waiting": 1}, b"up ready 1%\n"),
        ({"ready": False}, b"down #Ollama is away\n"),
        ({"ready": False, "draining": True}, b"drain\n"),
    ],
)
def test_the_words_of_an_agent_check(changes: dict[str, object], line: bytes) -> None:
    assert room(**changes).agent_line() == line


async def test_seats_that_are_taken_and_calls_that_wait_are_told() -> None:
    async with (
        running(ENDLESS, agent=Address("127.0.0.1", 0)) as up,
        up.client() as heavy,
        up.client("127.0.0.2") as next_heavy,
        up.admin() as admin,
    ):
        await heavy.ask("POST", "/api/generate", {"model": "heavy", "prompt": "hi"})
        await heavy.head()
        await next_heavy.ask("POST", "/api/generate", {"model": "heavy", "prompt": "hi"})
        await up.until(lambda: up.seats() == (1, 1))
        answer = await admin.request("GET", "/readyz")
        assert (answer["X-LLM-Seats-Free"], answer["X-LLM-Waiting"]) == ("5", "1")
        told = answer.json["headroom"]
        assert {name: told[name] for name in ("seats", "free", "waiting")} == {
            "seats": 6,
            "free": 5,
            "waiting": 1,
        }
        assert int(answer["X-LLM-Oldest-Wait-Ms"]) == told["oldest_wait_ms"]
        assert up.app.agent_address is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", up.app.agent_address.port)
        assert await reader.read() == b"up ready 1%\n"
        writer.close()
