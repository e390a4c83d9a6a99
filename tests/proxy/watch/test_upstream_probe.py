"""Whether Ollama is there: what is noted, and that only changes are told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.hints import Absence
from modelsplit_proxy.http.upstream import Fault, UpstreamError, UpstreamTarget
from modelsplit_proxy.http.upstream_pool import UpstreamPool
from modelsplit_proxy.watch import upstream_probe
from modelsplit_proxy.watch.upstream_probe import UpstreamProbe
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.server import Sim
from support.fake_time import passes
from support.ports import stand_in
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def probe(port: int, every_s: float = 5.0, host: str | None = None) -> Iterator[UpstreamProbe]:
    pool = UpstreamPool("127.0.0.1", port, connect_timeout_s=600)
    target = UpstreamTarget("127.0.0.1", port, f"127.0.0.1:{port}")
    yield UpstreamProbe(pool, target, every_s=every_s, host=host)
    pool.close()


async def test_it_knows_nothing_before_it_asked() -> None:
    with probe(9) as asked:
        assert (asked.up, asked.version, asked.error) == (None, None, None)


async def test_an_upstream_that_is_there() -> None:
    async with Sim(SimConfig(version="1.2.3")) as sim:
        with probe(sim.port) as asked:
            await asked.ask()
            assert (asked.up, asked.version, asked.error) == (True, "1.2.3", None)


async def test_only_changes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "modelsplit")
    async with stand_in(SimConfig(version="1.2.3")) as sim:
        with probe(sim.port) as asked:
            for _ in range(3):
                await asked.ask()
            await sim.stop()
            for _ in range(3):
                await asked.ask()
            assert (asked.up, asked.version) == (False, None)
            assert asked.error is not None
            await sim.start()
            await asked.ask()
            assert asked.up is True
    told = [(entry.levelname, entry.getMessage()) for entry in caplog.records]
    assert [level for level, _ in told] == ["INFO", "WARNING", "INFO"]
    assert f"127.0.0.1:{sim.port}" in told[1][1]
    assert "is not answering (connection refused). Is it running?" in told[1][1]
    assert "calls" not in told[1][1], "which may wait for it, or go to another host"


async def test_of_one_of_several_hosts_it_is_told_with_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "modelsplit")
    async with stand_in(SimConfig(version="1.2.3")) as sim:
        with probe(sim.port, host="big") as asked:
            await asked.ask()
            await sim.stop()
            await asked.ask()
    answers, away = [entry.getMessage() for entry in caplog.records]
    assert answers == f"Ollama 1.2.3 of host big answers at http://127.0.0.1:{sim.port}"
    assert away.startswith(f"Ollama of host big at http://127.0.0.1:{sim.port} is not answering (")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[{}]",
        b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"version":""',
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"SSH-2.0-OpenSSH\r\n",
    ],
    ids=["500", "list", "cut", "text", "ssh"],
)
async def test_something_else_listens_there(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with probe(server.sockets[0].getsockname()[1]) as asked:
            await asked.ask()
            assert (asked.up, asked.version, asked.absence) == (False, None, Absence.OTHER)
            assert asked.error
    [told] = [entry.getMessage() for entry in caplog.records]
    # Nobody can start an Ollama where somebody else listens.
    assert " does not answer as Ollama does (" in told
    assert "). Is --upstream an Ollama? try `curl -m 5 http://127.0.0.1:" in told


async def test_it_goes_on_asking() -> None:
    async with Sim() as sim:
        with probe(sim.port, every_s=0.005) as asked:
            watching = asyncio.create_task(asked.watch())
            await sim.wait_for(lambda sim: sim.counts.received >= 3)
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            assert asked.up is True


async def test_since_when_it_is_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since the first question that it left open, until it answers."""
    async with Sim() as sim:
        with probe(sim.port) as asked:
            now = asyncio.get_running_loop().time
            await asked.ask()
            assert asked.mute_since is None
            monkeypatch.setattr(upstream_probe, "_TIMEOUT_S", 0.01)
            sim.faults.add(Kind.HANG, path="/api/version")
            before = now()
            await asked.ask()
            since = asked.mute_since
            assert since is not None
            assert before <= since <= now()
            await asked.ask()
            assert (asked.up, asked.mute_since) == (False, since)
            sim.faults.clear()
            monkeypatch.setattr(upstream_probe, "_TIMEOUT_S", 60.0)
            await asked.ask()
            assert (asked.up, asked.mute_since) == (True, None)


async def test_one_that_is_not_there_is_not_mute() -> None:
    """What it was asked breaks by itself."""
    async with stand_in() as sim:
        with probe(sim.port) as asked:
            await sim.stop()
            await asked.ask()
            assert (asked.up, asked.mute_since) == (False, None)


async def test_one_that_takes_no_connection_is_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    with probe(9) as asked:

        async def full(*_: object) -> None:
            raise UpstreamError(Fault.CONNECT_TIMEOUT, "no connection within 2 s")

        monkeypatch.setattr(asked, "_version", full)
        await asked.ask()
        assert asked.mute_since is not None


async def test_a_question_that_is_open_is_told_while_it_is() -> None:
    async with Sim() as sim:
        with probe(sim.port) as asked:
            await asked.ask()
            assert not asked.unanswered
            sim.faults.add(Kind.HANG, path="/api/version")
            asking = asyncio.ensure_future(asked.ask())
            await sim.wait_for(lambda sim: sim.counts.received >= 2)
            [(who, asked_s)] = asked.unanswered
            assert (who, asked.up) == ("Ollama", True)
            assert asked_s >= 0
            # Who is known not to answer is told so otherwise.
            asked.call_failed(UpstreamError(Fault.REFUSED, "connection refused"))
            assert not asked.unanswered
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def test_since_when_it_is_away() -> None:
    """Since its last answer, or since it looked as if it had gone."""
    async with stand_in() as sim:
        with probe(sim.port) as asked:
            now = asyncio.get_running_loop().time
            await asked.ask()
            answered = now()
            assert asked.away_since is None
            await sim.stop()
            await asked.ask()
            since = asked.away_since
            assert since is not None
            assert since <= answered
            await asked.ask()
            assert asked.away_since == since
            await sim.start()
            await asked.ask()
            assert asked.away_since is None
            asked._answered = answered - 60.0
            before = now()
            asked.hurry()
            await sim.stop()
            await asked.ask()
            assert asked.away_since is not None
            assert before <= asked.away_since <= now()


async def test_one_that_was_never_there_is_away_since_it_was_asked() -> None:
    async with stand_in() as sim:
        await sim.stop()
        with probe(sim.port) as asked:
            before = asyncio.get_running_loop().time()
            await asked.ask()
            assert asked.away_since is not None
            assert asked.away_since >= before


async def test_who_looks_is_shown_a_fresh_answer() -> None:
    async with Sim(SimConfig(version="1.2.3")) as sim:
        with probe(sim.port, every_s=3600) as asked:
            await asked.ask()
            await asked.look()
            assert sim.counts.received == 1, "it has just answered"
            watching = asyncio.ensure_future(asked.watch())
            await asyncio.sleep(0)
            assert asked._answered is not None
            asked._answered -= 60.0
            await asked.look()
            assert sim.counts.received == 2
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_who_looks_waits_no_longer_than_until_silence_is_told() -> None:
    async with Sim() as sim:
        with probe(sim.port, every_s=3600) as asked:
            await asked.ask()
            sim.faults.add(Kind.HANG, path="/api/version")
            asking = asyncio.ensure_future(asked.ask())
            await sim.wait_for(lambda sim: sim.counts.received >= 2)
            assert asked._asked is not None
            assert asked._answered is not None
            asked._asked -= 60.0
            asked._answered -= 60.0
            await asked.look()
            assert asked.unanswered[0][1] >= 60
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            # Of one that is known not to answer nothing is waited for.
            asked.call_failed(UpstreamError(Fault.REFUSED, "connection refused"))
            await asked.look()
            assert sim.counts.received == 2


async def test_after_each_question_those_who_wait_look_again() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.HANG, path="/api/tags")
        with probe(sim.port, every_s=0.005) as asked:
            connection = await asked._pool.acquire()
            exchange = connection.start(head_request=False)
            connection.write(b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
            watching = asyncio.create_task(asked.watch())
            assert await exchange.ready_by(None) is None
            assert await exchange.ready_by(None) is None
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.fake_time
async def test_it_asks_soon_where_something_looks_as_if_it_had_gone() -> None:
    async with Sim(SimConfig(version="1.2.3")) as sim:
        with probe(sim.port) as asked:
            watching = asyncio.ensure_future(asked.watch())
            await asyncio.sleep(0)
            asked.hurry()
            await asyncio.sleep(0)
            await passes(0.3)
            await until(lambda: asked.up)
            watching.cancel()


@pytest.mark.fake_time
async def test_a_call_that_cannot_connect_is_known_at_once_and_looked_into_soon() -> None:
    async with Sim(SimConfig(version="1.2.3")) as sim:
        with probe(sim.port) as asked:
            await asked.ask()
            watching = asyncio.ensure_future(asked.watch())
            await asyncio.sleep(0)
            asked.call_failed(UpstreamError(Fault.REFUSED, "connection refused"))
            assert (asked.up, asked.error) == (False, "connection refused")
            await asyncio.sleep(0)
            await passes(0.3)
            await until(lambda: asked.up)
            watching.cancel()
