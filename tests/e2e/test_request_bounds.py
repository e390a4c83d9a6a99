"""However many send however much without end: what is read and held has a bound."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from modelsplit_proxy.http.client_connection import HELD_BYTES
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import call
from support.harness import Running, in_front_of, running
from support.raw import Peer, raw_upstream
from support.scripted import response
from support.waiting import settled
from support.wire import Client

pytestmark = pytest.mark.flowing_time

HEAD = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
GENERATE = "/api/generate"
WHOLE = call(GENERATE, "planner") | {"options": {"num_predict": 1}}
ENDLESS = SimConfig(token_rate=50, tokens=100_000, num_parallel=8)
# What the kernel takes on the way of one connection: its buffers on both sides.
KERNEL = 16 * 2**20


def budget(up: Running) -> int:
    """Bytes charged for what is arriving."""
    return up.app._read_limits.budget.used


async def pour(port: int, first: bytes, more: bytes, least: int) -> int:
    """Send ``more`` again and again until the kernel takes nothing; how much it took."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        taken = full = 0
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(sock, first)
            while taken < least and full < 500:
                try:
                    taken += sock.send(more)
                    full = 0
                except BlockingIOError:  # a full buffer stays full: nobody reads
                    full += 1
                await asyncio.sleep(0)
        return taken


ENDLESS_HEADS = {
    "request line": (b"GET /", b"a" * 65536),
    "method": (b"", b"A" * 65536),
    "spaces": (b"GET ", b" " * 65536),
    "field": (b"GET / HTTP/1.1\r\nX: ", b"a" * 65536),
    "field name": (b"GET / HTTP/1.1\r\n", b"a" * 65536),
    "fields": (b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 10000),
    "empty lines": (b"", b"\r\n" * 30000),
    "after a refusal": (b"\0\r\n\r\n", b"a" * 65536),
}


@pytest.mark.parametrize("name", ENDLESS_HEADS)
async def test_of_heads_without_end_little_is_read(name: str) -> None:
    first, more = ENDLESS_HEADS[name]
    async with running() as up:
        for port in (up.port, up.admin_port):
            pouring = [pour(port, first, more, 64 * 2**20) for _ in range(5)]
            for taken in await asyncio.gather(*pouring):
                assert taken < KERNEL
        assert budget(up) == 0


async def test_heads_that_stop_are_charged_to_one_budget() -> None:
    """Who would exceed it is refused; who asks little is served all the same."""
    async with running(SimConfig(tokens=1), request_memory_bytes=4 * 2**20) as up:
        async with contextlib.AsyncExitStack() as stack:
            many = [await stack.enter_async_context(up.client()) for _ in range(100)]
            for client in many:
                await client.send(HEAD + b"X: " + b"a" * 60_000)
            await up.until(lambda: budget(up) > 3.9 * 2**20)
            late = await stack.enter_async_context(up.client())
            await late.send(HEAD + b"X: " + b"a" * 60_000)
            answer = await late.answer()
            assert (answer.status, answer.json["reason"]) == (503, "request_memory")
            assert answer["Retry-After"] == "2"
            assert "4 MiB" in answer.json["error"]
            assert await late.at_eof()
            small = await stack.enter_async_context(up.client())
            assert (await small.request("POST", GENERATE, WHOLE)).status == 200
            assert budget(up) <= 4 * 2**20
        await up.until(lambda: budget(up) == 0)


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_that_stop_are_charged_to_the_same_budget(chunked: bool) -> None:
    async with running(SimConfig(tokens=1), request_memory_bytes=4 * 2**20) as up:
        framing = b"Transfer-Encoding: chunked\r\n\r\n200000\r\n"
        if not chunked:
            framing = b"Content-Length: 2097152\r\n\r\n"
        async with contextlib.AsyncExitStack() as stack:
            held = []
            for count in (1, 2):
                client = await stack.enter_async_context(up.client())
                await client.send(HEAD + framing + b'{"prompt":"' + b"a" * 1_900_000)
                await up.until(lambda count=count: budget(up) >= count * 1_900_000)  # type: ignore[misc]
                held.append(client)
            late = await stack.enter_async_context(up.client())
            with contextlib.suppress(ConnectionError):
                await late.send(HEAD + framing + b'{"prompt":"' + b"a" * 1_900_000)
            answer = await late.answer()
            assert (answer.status, answer.json["reason"]) == (503, "request_memory")
            assert answer["X-LLM-Error-Code"] == "E_OVERLOAD_THROTTLED"
            small = await stack.enter_async_context(up.client())
            assert (await small.request("POST", GENERATE, WHOLE)).status == 200
            await held.pop().close()
            await up.until(lambda: budget(up) < 2.2 * 2**20)
        await up.until(lambda: budget(up) == 0)


async def test_a_large_body_is_charged_until_it_is_sent_on() -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        body = {**WHOLE, "prompt": "x" * 3_000_000}
        for _ in range(3):
            assert (await client.request("POST", GENERATE, body)).status == 200
            await up.until(lambda: budget(up) == 0)


async def test_a_body_that_came_in_one_piece_is_charged_while_its_call_waits() -> None:
    async with (
        running(ENDLESS, request_memory_bytes=100_000, max_body_bytes=100_000) as up,
        contextlib.AsyncExitStack() as stack,
    ):
        up.sim.faults.add(Kind.HANG, path=GENERATE)
        body = {**WHOLE, "prompt": "x" * 40_000}
        for count in (1, 2):
            client = await stack.enter_async_context(up.client())
            await client.ask("POST", GENERATE, body)
            await up.until(lambda count=count: budget(up) >= count * 40_000)  # type: ignore[misc]
        late = await stack.enter_async_context(up.client())
        answer = await late.request("POST", GENERATE, body)
        assert (answer.status, answer.json["reason"]) == (503, "request_memory")


# Answers.


# An answer of either route, and how much of each of three comes before anything else does: held
# together, that leaves no room for the rest.
LARGE = b'{"response":"%b","done":true,"model":"m","data":[]}' % (b"a" * 7 * 2**20)
FIRST = {"one is whole": (len(LARGE), 0, 0), "each is begun": (3 * 2**20,) * 3}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
@pytest.mark.parametrize("target", ["/v1/embeddings", GENERATE])
async def test_answers_that_nobody_takes_are_held_within_bounds(
    target: str, first: tuple[int, int, int]
) -> None:
    """Without room an answer is passed on as it comes, and no faster than it is taken."""
    held = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        head = response(LARGE).removesuffix(LARGE)
        begun = first[peer.number - 1]
        peer.send(head + LARGE[:begun])
        await held.wait()
        peer.send(LARGE[begun:])
        await peer.gone()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as up,
        contextlib.AsyncExitStack() as stack,
    ):
        answers = up.app._read_limits.answers
        answers.limit = 10 * 2**20
        clients = []
        for _ in first:
            client = await stack.enter_async_context(up.client())
            await client.open()
            assert client.writer is not None
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.ask("POST", target, call(target, "qwen3:8b"))
            clients.append(client)
        await upstream.asked(len(first))
        await up.until(lambda: answers.used >= sum(first))
        held.set()
        await settled(lambda: (answers.used, unsent(up)))
        assert answers.used <= answers.limit
        assert unsent(up) <= answers.limit
        for client in clients:
            assert client.writer is not None
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            answer = await client.answer()
            assert (answer.status, answer.body == LARGE) == (200, True)
        await up.until(lambda: answers.used == 0)


def unsent(up: Running) -> int:
    """Bytes of answers that the kernel has not taken."""
    transports = [connection.transport for connection in up.app._edge.connections]
    return sum(each.get_write_buffer_size() for each in transports if each is not None)


async def test_nothing_is_read_of_a_body_whose_call_was_refused() -> None:
    async with running(max_body_bytes=1000) as up:
        first = HEAD + b"Content-Length: 1000000000\r\n\r\n"
        assert await pour(up.port, first, b"a" * 65536, 64 * 2**20) < KERNEL
        assert budget(up) == 0


async def test_a_refusal_can_be_read_by_one_that_sends_first_and_reads_then() -> None:
    async with running(max_body_bytes=1000) as up, up.client() as client:
        answer = await client.request("POST", GENERATE, b"x" * 500_000)
        assert (answer.status, answer.json["reason"]) == (413, "body_limit")
        assert await client.at_eof()


# What waits behind a slow call.


async def test_a_flood_of_pipelined_requests_behind_a_slow_call_is_held_within_bounds() -> None:
    async with running(ENDLESS) as up, up.client() as client:
        await client.ask("POST", GENERATE, call(GENERATE, "planner", stream=True))
        await client.head()
        get = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert client.writer is not None
        client.writer.write(get * 400_000)
        (connection,) = up.app._edge.connections
        await up.until(lambda: connection._buffer_paused)
        assert HELD_BYTES < len(connection._held) <= HELD_BYTES + 2**18
        assert budget(up) == len(connection._held)
        assert len(up.asked) == 1
        client.reset()
        await up.until(lambda: budget(up) == 0)


async def test_all_that_was_pipelined_is_answered() -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        get = b"GET /nothing/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await client.open()
        assert client.writer is not None
        client.writer.write(b"".join(get % number for number in range(3000)))
        for number in range(3000):
            assert (await client.answer()).status == 404, number
        assert budget(up) == 0


# Bodies that stop.


@pytest.mark.parametrize("target", [GENERATE, "/api/show", "/api/blobs/sha256:x"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_stops_half_way_is_told_so(target: str, chunked: bool) -> None:
    async with running(client_body_timeout_s=0.2) as up, up.client() as client:
        headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": "500"}
        await client.ask("POST", target, b'5\r\n{"a":' if chunked else b'{"a":', headers)
        answer = await client.answer()
        assert (answer.status, answer.phrase) == (408, "Request Timeout")
        assert answer.json["error_code"] == "E_BAD_REQUEST"
        assert answer.json["reason"] == "body_timeout"
        assert "0.2 s" in answer.json["error"]
        assert answer["Connection"] == "close"
        assert await client.at_eof()
        assert up.seats() == (0, 0)


async def test_when_draining_a_call_whose_body_is_still_coming_ends_at_once() -> None:
    async with running(drain_s=60.0) as up, up.client() as client:
        await client.ask("POST", GENERATE, b'{"model":', {"Content-Length": "500"})
        await up.until(lambda: up.app.lifecycle.active == 1)
        stopping = asyncio.get_running_loop().create_task(up.app.stop())
        answer = await client.answer()
        assert (answer.status, answer.json["reason"]) == (503, "draining")
        await stopping  # long before the drain is over


# Connections.


async def test_beyond_the_bound_on_connections_idle_ones_make_room() -> None:
    async with (
        running(SimConfig(tokens=1), max_connections=3) as up,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(up.client()) for _ in range(4)]
        for client in clients[:3]:
            assert (await client.request("GET", "/api/tags")).status == 200
        assert (await clients[3].request("GET", "/api/tags")).status == 200
        assert await clients[0].at_eof()
        assert (await clients[1].request("GET", "/api/tags")).status == 200


async def test_with_no_idle_connection_a_new_one_is_refused_and_the_admin_port_is_not() -> None:
    async with (
        running(ENDLESS, max_connections=2) as up,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(2):
            client = await stack.enter_async_context(up.client())
            await client.ask("POST", GENERATE, call(GENERATE, "planner", stream=True))
            await client.head()
        late = Client(up.port)
        await late.open()
        answer = await late.answer()
        assert (answer.status, answer.json["reason"]) == (503, "connections")
        assert answer["Retry-After"] == "2"
        assert await late.at_eof()
        await late.close()
        admin = await stack.enter_async_context(up.admin())
        assert (await admin.request("GET", "/healthz")).status == 200
