"""One request to a provider: its answer as it comes, its breaks, its pauses."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from modelsplit_policy.config.model import CloudPolicy
from modelsplit_policy.failures import Failure, Reason
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.providers import call as module
from modelsplit_proxy.providers.clouds import Clouds
from modelsplit_proxy.providers.key import ProviderKey
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_sim.cloud import KEY, Cloud, Script
from support.endpoints import endpoint
from support.messages import StoppedClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from modelsplit_proxy.providers.call import ProviderCall


class Sink:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.over: asyncio.Future[UpstreamError | None] = asyncio.get_running_loop().create_future()

    def data(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def ended(self, error: UpstreamError | None) -> None:
        self.over.set_result(error)


@asynccontextmanager
async def asking(
    script: Script, *, stream: bool = True
) -> AsyncIterator[tuple[ProviderCall, Cloud]]:
    async with Cloud() as cloud:
        cloud.scripts.append(script)
        row = {"base_url": cloud.url, "models": {"opus": "claude-3-opus-20240229"}}
        policy = CloudPolicy.model_validate({"providers": {"a": row}})
        tasks = Tasks()
        known = Clouds(policy, {"a": ProviderKey(KEY, "$K")}, StoppedClock(), tasks, 600.0)
        model = known.of("opus")
        assert model is not None
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
        prepared = model.prepare(endpoint("/api/chat"), orjson.dumps(body), 100)
        assert not isinstance(prepared, Failure)
        try:
            yield model.ask(prepared), cloud
        finally:
            await tasks.close()
            await known.close()


def texts(pieces: list[bytes]) -> str:
    lines = b"".join(pieces).splitlines()
    return "".join(orjson.loads(line)["message"]["content"] for line in lines)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer(stream: bool) -> None:
    async with asking(Script(text="hello there"), stream=stream) as (call, _):
        head = await call.exchange.ready()
        kind = b"application/x-ndjson" if stream else b"application/json"
        assert (head.status, head.get(b"content-type")) == (200, kind)
        sink = Sink()
        call.exchange.attach(sink)
        assert await sink.over is None
        assert texts(sink.pieces) == "hello there"
        assert (call.usage.prompt_tokens, call.usage.output_tokens) == (12, 6)
        call.exchange.abort()


async def test_a_refusal_comes_before_any_head() -> None:
    async with asking(Script(status=529)) as (call, _):
        with pytest.raises(UpstreamError) as raised:
            await call.exchange.ready()
        assert raised.value.failure is not None
        assert raised.value.failure.reason is Reason.UPSTREAM_BUSY
        assert (call.status, call.is_sent) == (529, True)


@pytest.mark.parametrize("fault", ["cut", "reset", "error"])
async def test_a_break_in_the_middle(fault: str) -> None:
    async with asking(Script(text="a long answer indeed", fault=fault)) as (call, _):
        await call.exchange.ready()
        sink = Sink()
        call.exchange.attach(sink)
        error = await sink.over
        assert error is not None
        assert error.failure is not None
        assert error.failure.code == "E_STREAM_BROKEN_CLOUD"
        assert "a long" in texts(sink.pieces)
        assert (call.usage.prompt_tokens, call.usage.estimated) == (12, True)


async def test_nothing_is_read_while_the_client_takes_nothing() -> None:
    async with asking(Script(text="word " * 4000)) as (call, cloud):
        call.exchange.pause()
        await call.exchange.ready()
        sink = Sink()
        call.exchange.attach(sink)
        await cloud.wait_for(lambda cloud: cloud.calls[0].first_byte_at is not None)
        assert not sink.over.done()
        call.exchange.resume()
        assert await sink.over is None
        assert texts(sink.pieces) == "word " * 4000


async def test_who_stops_caring_closes_the_connection() -> None:
    async with asking(Script(text="a long answer indeed", fault="stall")) as (call, cloud):
        await call.exchange.ready()
        call.exchange.abort()
        await cloud.wait_for(lambda cloud: cloud.calls[0].left_at is not None)


async def test_who_is_not_there_has_nothing() -> None:
    async with asking(Script()) as (_, cloud):
        await cloud.stop()
        row = {"base_url": cloud.url, "models": {"opus": None}}
        policy = CloudPolicy.model_validate({"providers": {"a": row}})
        tasks = Tasks()
        known = Clouds(policy, {"a": ProviderKey(KEY, "$K")}, StoppedClock(), tasks, 600.0)
        model = known.of("opus")
        assert model is not None
        prepared = model.prepare(endpoint("/api/generate"), b'{"prompt":"hi"}', 100)
        assert not isinstance(prepared, Failure)
        call = model.ask(prepared)
        with pytest.raises(UpstreamError):
            await call.exchange.ready()
        assert (call.is_sent, call.status) == (False, None)
        await tasks.close()
        await known.close()


def errors() -> list[tuple[Exception, str]]:
    key: Any = None
    return [
        (aiohttp.ServerDisconnectedError(), "reset"),
        (aiohttp.ClientPayloadError(), "truncated"),
        (aiohttp.ConnectionTimeoutError(), "connect_timeout"),
        (aiohttp.ClientConnectorError(key, OSError("x")), "connect_refused"),
        (aiohttp.ClientConnectorDNSError(key, OSError("x")), "dns"),
        (ConnectionResetError("x"), "reset"),
        (aiohttp.ClientError("secret"), "protocol"),
    ]


@pytest.mark.parametrize(("error", "fault"), errors())
def test_every_error_has_a_name_and_our_own_words(error: Exception, fault: str) -> None:
    found, words = module._told(error)
    assert found.value == fault
    assert "secret" not in words


async def test_a_refusal_that_comes_in_pieces_is_read_to_its_end() -> None:
    long = "why " * 4000
    async with asking(Script(status=400, message=long)) as (call, _):
        with pytest.raises(UpstreamError) as raised:
            await call.exchange.ready()
        assert raised.value.failure is not None
        assert "with 400: why why" in raised.value.failure.message
