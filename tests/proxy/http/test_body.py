"""Reading a body over a real connection: whole, bounded, refused."""

from __future__ import annotations

import gzip
import tracemalloc
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from modelsplit_proxy.http.body import BodyError, _gathered, read_whole
from modelsplit_proxy.http.client_connection import ClientConnection
from modelsplit_proxy.http.read_budget import HeldBytes, ReadBudget
from modelsplit_proxy.http.request import Request
from support.raw import chunk
from support.serving import say, serving
from support.waiting import until
from support.work import tracing

if TYPE_CHECKING:
    from modelsplit_proxy.http.downstream import Downstream

LIMIT = 1000


async def echo(request: Request, down: Downstream) -> None:
    """Say back what was read, or the refusal's code and reason."""
    try:
        body = await read_whole(request, down, LIMIT)
    except BodyError as error:
        failure = error.failure
        say(down, f"{failure.status} {failure.reason}".encode(), close=True)
    else:
        say(down, body)


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_up_to_the_limit_is_read_whole(size: int, chunked: bool) -> None:
    body = b"x" * size
    async with serving(echo) as up, up.client() as client:
        for _ in range(2):
            if chunked:
                pieces = [chunk(body[i : i + 7]) for i in range(0, size, 7)]
                wire = b"".join(pieces) + b"0\r\nX-Trailer: 1\r\n\r\n"
                answer = await client.request("POST", "/", wire, {"Transfer-Encoding": "chunked"})
            else:
                answer = await client.request("POST", "/", body)
            assert answer.body == body


async def test_a_body_over_the_limit_is_refused_before_or_while_it_comes() -> None:
    async with serving(echo) as up:
        async with up.client() as client:
            await client.ask("POST", "/", b"", {"Content-Length": "1001"})
            assert (await client.answer()).body == b"413 body_limit"
        async with up.client() as client:
            await client.ask("POST", "/", chunk(b"x" * 1001), {"Transfer-Encoding": "chunked"})
            assert (await client.answer()).body == b"413 body_limit"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity"])
async def test_a_compressed_body_is_refused(coding: str) -> None:
    async with serving(echo) as up, up.client() as client:
        packed = gzip.compress(b"{}")
        answer = await client.request("POST", "/", packed, {"Content-Encoding": coding})
        assert answer.body == b"400 compressed_body"


async def test_identity_is_no_compression() -> None:
    async with serving(echo) as up, up.client() as client:
        answer = await client.request("POST", "/", b"{}", {"Content-Encoding": "Identity"})
        assert answer.body == b"{}"


async def test_a_client_that_waits_for_100_gets_it_only_if_its_body_is_wanted() -> None:
    async with serving(echo) as up:
        async with up.client() as client:
            headers = {"Expect": "100-Continue", "Content-Length": "2"}
            await client.ask("POST", "/", b"", headers)
            assert (await client.head()).status == 100
            await client.send(b"{}")
            assert (await client.answer()).body == b"{}"
        async with up.client() as client:
            await client.ask("POST", "/", b"", headers | {"Content-Length": "2000"})
            assert (await client.answer()).body == b"413 body_limit"


def received(connection: ClientConnection) -> int:
    """How much of a request's body has come."""
    return connection._receiving.total_bytes if connection._receiving is not None else 0


async def test_broken_framing_is_refused() -> None:
    async with serving(echo) as up, up.client() as client:
        await client.ask("POST", "/", chunk(b"good"), {"Transfer-Encoding": "chunked"})
        await until(lambda: any(received(each) for each in up.edge.connections))
        await client.send(b"zz\r\n")
        assert (await client.answer()).body == b"400 bad_http"


class Pieces:
    """A body that comes in so many pieces."""

    def __init__(self, count: int) -> None:
        self.left = count

    async def readany(self) -> bytes:
        self.left -= 1
        return b"ab" if self.left >= 0 else b""


async def test_a_body_in_small_pieces_takes_no_more_than_its_bytes() -> None:
    budget = ReadBudget(10**6)
    hold = HeldBytes(budget)
    connection = SimpleNamespace(ending=None, collecting=False, body_hold=hold, budget=budget)
    request = cast("Request", SimpleNamespace(connection=connection, content=Pieces(50_000)))
    with tracing():
        before = tracemalloc.get_traced_memory()[0]
        body = await _gathered(request, 10**6)
        peak = tracemalloc.get_traced_memory()[1]
    assert body == b"ab" * 50_000
    assert peak - before < 400_000
    assert budget.used == 100_000
