"""Clients that leave, drip, pipeline, lie and pry: nobody else notices, nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import random

import orjson
import pytest

from modelsplit_policy.call import State
from modelsplit_sim.config import SimConfig
from modelsplit_sim.journal import CallState
from support.calls import ERROR_FIELDS, call
from support.counting import counted_turns
from support.fake_time import passes
from support.harness import Running, in_front_of, running
from support.raw import Peer, chunk, raw_upstream, says
from support.scripted import response
from support.waiting import settled
from support.wire import Answer, Client

pytestmark = pytest.mark.flowing_time

GENERATE = "/api/generate"
MODEL = "qwen3:4b"
STREAM = call(GENERATE, "planner", stream=True)
WHOLE = call(GENERATE, "planner")
QUICK = WHOLE | {"options": {"num_predict": 1}}
# One generation outlasts every test; two seats for PLANNER.
ENDLESS = SimConfig(token_rate=50, tokens=100_000, num_parallel=8)
LEAVES = ["fin", "rst", "half-close"]


async def leave(client: Client, how: str) -> None:
    if how == "rst":
        client.reset()
    elif how == "half-close":
        client.half_close()
    else:
        await client.close()


async def idle(up: Running) -> None:
    """The upstream computes for nobody, and every seat is back."""
    await up.sim.wait_for(lambda sim: sim.active == 0)
    await up.until(lambda: up.seats() == (0, 0))


# Clients that leave.


@pytest.mark.parametrize("how", LEAVES)
async def test_a_client_that_leaves_in_mid_stream_stops_the_upstream(how: str) -> None:
    async with running(ENDLESS) as up:
        client = up.client()
        await client.ask("POST", GENERATE, STREAM)
        answer = await client.head()
        await anext(client.pieces(answer))
        await leave(client, how)
        await idle(up)
        (record,) = await up.calls.wait()
        assert (record.call.state, record.status) == (State.ABANDONED, 499)
        await client.close()


@pytest.mark.parametrize("body", [STREAM, WHOLE])
@pytest.mark.parametrize("how", LEAVES)
async def test_a_client_that_leaves_while_waiting_for_headers_stops_the_upstream(
    how: str, body: dict[str, object]
) -> None:
    slow = SimConfig(token_rate=0.01, tokens=10, num_parallel=8)
    async with running(slow) as up:
        client = up.client()
        await client.ask("POST", GENERATE, body)
        await up.sim.wait_for(lambda sim: sim.active == 1)
        await leave(client, how)
        await idle(up)
        (record,) = await up.calls.wait()
        assert record.call.state is State.ABANDONED
        await client.close()


@pytest.mark.parametrize("how", LEAVES)
async def test_a_client_that_leaves_the_queue_is_never_seen_upstream(how: str) -> None:
    async with running(ENDLESS) as up:
        seated = [up.client() for _ in range(2)]
        for client in seated:
            await client.ask("POST", GENERATE, STREAM)
            await client.head()
        ghosts = [up.client() for _ in range(5)]
        for ghost in ghosts:
            await ghost.ask("POST", GENERATE, STREAM)
        await up.until(lambda: up.seats() == (2, 5))
        last = up.client()
        await last.ask("POST", GENERATE, QUICK)
        await up.until(lambda: up.seats() == (2, 6))
        for ghost in ghosts:
            await leave(ghost, how)
        await up.until(lambda: up.seats() == (2, 1))
        await seated[0].close()
        assert (await last.answer()).status == 200
        assert len(up.asked) == 3
        for client in [*seated, *ghosts, last]:
            await client.close()
        await idle(up)


async def test_a_storm_of_clients_that_leave_costs_no_seat() -> None:
    rng = random.Random(7)
    async with running(SimConfig(token_rate=300, tokens=60, num_parallel=8)) as up:
        await asyncio.gather(*(_storm(up, rng.random(), rng.choice(LEAVES)) for _ in range(150)))
        await up.sim.wait_for(lambda sim: sim.active == 0)
        await up.until(lambda: up.seats() == (0, 0))
        limit = 2
        clients = [up.client() for _ in range(limit)]
        for client in clients:
            await client.ask("POST", GENERATE, STREAM)
        await up.sim.wait_for(lambda sim: sim.active == limit)
        for client in clients:
            assert (await client.answer()).lines[-1]["done"] is True
            await client.close()
        await up.calls.wait()
        states = {record.call.state for record in up.calls.records}
        assert states <= {State.ABANDONED, State.COMPLETED, State.REJECTED}
        pool = up.app.pool
        await up.until(lambda: pool.open_connections == len(pool._idle))


async def _storm(up: Running, when: float, how: str) -> None:
    """Send a request, or part of one, and leave at a moment between 0 and 300 ms."""
    client = up.client()
    await asyncio.sleep(when * 0.1)
    await client.open()
    if when < 0.2:
        await client.send(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Len")
    elif when < 0.4:
        await client.ask("POST", GENERATE, b'{"model":"pl', {"Content-Length": "90"})
    else:
        await client.ask("POST", GENERATE, STREAM if when < 0.7 else WHOLE)
    await asyncio.sleep((when * 7919) % 0.3)
    with contextlib.suppress(OSError):
        await leave(client, how)
    with contextlib.suppress(OSError):
        await client.close()


async def test_a_client_that_leaves_with_requests_in_the_pipe_runs_none_of_them() -> None:
    async with running(ENDLESS) as up:
        client = up.client()
        await client.ask("POST", GENERATE, STREAM)
        await client.head()
        for _ in range(40):
            await client.ask("POST", GENERATE, STREAM)
        await client.close()
        await idle(up)
        assert len(up.asked) == 1


# Clients that drip.


async def test_a_head_that_drips_is_cut_and_bystanders_do_not_notice() -> None:
    async with running(SimConfig(tokens=1), client_header_timeout_s=0.3) as up:
        quiet, kept = up.client(), up.client()
        await quiet.open()
        assert (await kept.request("GET", "/api/tags")).status == 200
        drip = up.client()
        await drip.send(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        dripping = asyncio.get_running_loop().create_task(_drip(drip, b"a", 0.02))
        while not dripping.done():
            assert (await kept.request("POST", GENERATE, WHOLE)).status == 200
        assert await drip.at_eof()
        # Connections on which no head has begun are left alone.
        assert (await quiet.request("GET", "/api/tags")).status == 200
        assert (await kept.request("GET", "/api/tags")).status == 200
        for client in (quiet, kept, drip):
            await client.close()


async def _drip(client: Client, byte: bytes, every_s: float) -> None:
    assert client.writer is not None
    assert client.reader is not None
    with contextlib.suppress(ConnectionError):
        while not client.reader.at_eof():
            await client.send(byte)
            await asyncio.sleep(every_s)


async def test_the_head_deadline_ends_with_the_head() -> None:
    """Neither a slow body nor a slow answer is cut by it."""
    slow = SimConfig(token_rate=20, tokens=6)
    async with running(slow, client_header_timeout_s=0.1) as up, up.client() as client:
        body = b'{"model":"planner","prompt":"x"}'
        await client.send(b"POST /api/generate HTTP/1.1\r\nHost: local")
        await client.send(b"host\r\nContent-Length: %d\r\n\r\n" % len(body))
        for byte in body:
            await client.send(bytes([byte]))
            await passes(1)
        answer = await client.answer()
        assert answer.lines[-1]["done"] is True


async def test_slow_bodies_take_no_seat() -> None:
    async with running(SimConfig(tokens=1)) as up:
        slow = [up.client() for _ in range(12)]
        for client in slow:
            await client.ask("POST", GENERATE, b'{"model":"planner"', {"Content-Length": "99"})
        async with up.client() as client:
            for _ in range(5):
                assert (await client.request("POST", GENERATE, WHOLE)).status == 200
        assert up.seats() == (0, 0)
        assert len(up.asked) == 5
        for client in slow:
            await client.close()


async def test_a_stream_waits_for_a_client_that_does_not_read() -> None:
    line = b'{"model":"m:1b","response":"%b","done":false}\n' % (b"x" * 16_000)
    end = b'{"model":"m:1b","done":true}\n'
    count, sent = 3000, 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n")
        peer.send(b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(count):
            peer.send(chunk(line))
            await peer.flush()
            sent += len(line)
        peer.send(chunk(end) + b"0\r\n\r\n")
        await peer.request()
        peer.send(response(b'{"next":1}'))

    # The silence is the client's, so the stall timeout must not strike.
    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port, stall_timeout_s=0.3, curious=False) as proxy,
        proxy.client() as client,
    ):
        await client.open()
        assert client.writer is not None
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.ask("POST", GENERATE, call(GENERATE, "m:1b", stream=True))
        await upstream.asked()
        await proxy.until(lambda: sent > 0)
        await settled(lambda: sent)
        await passes(50)  # less than SEND_TIMEOUT_S
        assert sent <= 24 * 2**20
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = await client.answer()
        assert answer.whole
        assert answer.body == line * count + end
        # The connection to the upstream reads again.
        assert (await client.request("POST", "/api/show", b"{}")).body == b'{"next":1}'
        assert len(upstream.peers) == 1


async def test_one_that_takes_nothing_of_its_answer_gives_its_seat_back() -> None:
    line = b'{"model":"m:1b","response":"%b","done":false}\n' % (b"x" * 64_000)

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n")
        peer.send(b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            peer.send(chunk(line))
            await peer.flush()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port, client_send_timeout_s=0.2) as proxy,
        proxy.client() as client,
    ):
        await client.open()
        assert client.writer is not None
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.ask("POST", GENERATE, call(GENERATE, "m:1b", stream=True))
        [record] = await proxy.calls.wait()
        assert record.failure is not None
        assert (record.failure.code, record.failure.reason) == ("E_CLIENT_GONE", "client_stalled")
        assert (record.outcome, record.status) == ("client_gone", 499)
        assert proxy.seats() == (0, 0)


async def test_one_that_asks_and_never_reads_is_not_answered_for_ever() -> None:
    """Answers to pipelined requests wait for the client; memory does not fill with them."""
    big = response(b"x" * 200_000)
    async with (
        raw_upstream(says(big)) as upstream,
        in_front_of(upstream.port) as proxy,
    ):
        client = proxy.client()
        await client.open()
        assert client.writer is not None
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(400):
            client.writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await upstream.asked()
        await settled(lambda: len(upstream.heads))
        assert len(upstream.heads) < 120
        (connection,) = proxy.app._edge.connections
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 600_000
        await client.close()


# Requests one after the other.


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client:
        body = b'{"model":"planner","stream":false}'
        head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        get = b"GET /api/%b HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await client.send(head % len(body) + body + get % b"version" + get % b"ps" + get % b"nope")
        answers = [await client.answer() for _ in range(4)]
        assert [a.status for a in answers] == [200, 200, 200, 404]
        assert answers[0].json["done"] is True
        assert "version" in answers[1].json
        assert "models" in answers[2].json
        assert (await client.request("GET", "/api/version")).status == 200


async def test_garbage_in_the_pipe_is_answered_after_the_request_before_it() -> None:
    slow = SimConfig(token_rate=100, tokens=10)
    async with running(slow) as up, up.client() as client:
        await client.ask("POST", GENERATE, STREAM)
        await up.sim.wait_for(lambda sim: sim.active == 1)
        await client.send(b"\x16\x03\x01 garbage\r\n\r\n")
        assert (await client.answer()).lines[-1]["done"] is True
        refused(await client.answer())
        assert await client.at_eof()


# Requests that are not quite HTTP.

HOST = b"Host: localhost\r\n"
POST = b"POST /api/generate HTTP/1.1\r\n" + HOST
BAD_REQUESTS = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length list": POST + b"Content-Length: 5, 6\r\n\r\nhello",
    "negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "hex length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "no length": POST + b"Content-Length: \r\n\r\nhello",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked 1.0": b"POST /x HTTP/1.0\r\nTransfer-Encoding: nope\r\n\r\n0\r\n\r\n",
    "space before colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded header": POST + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    "NUL": POST + b"X: a\0b\r\n\r\n",
    "CR": POST + b"X: a\rb: c\r\n\r\n",
    "bad chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
    "chunk overrun": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "huge chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\nx",
    "no method": b" /api/tags HTTP/1.1\r\n" + HOST + b"\r\n",
    "bad method": b"GE\x00T /api/tags HTTP/1.1\r\n" + HOST + b"\r\n",
    "no target": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "relative target": b"GET api/tags HTTP/1.1\r\n" + HOST + b"\r\n",
    "http 3": b"GET /api/tags HTTP/3.0\r\n" + HOST + b"\r\n",
    "http 2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /api/tags\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "two hosts": b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "long line": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "long header": b"GET /api/tags HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": b"GET /api/tags HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 2000 + b"\r\n",
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_what_is_not_http_is_refused_and_never_reaches_the_upstream(name: str) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
    async with (
        raw_upstream(says(response(b"{}"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await client.send(BAD_REQUESTS[name] + smuggled)
        answer = await client.answer()
        refused(answer)
        with contextlib.suppress(ConnectionError):
            assert await client.at_eof()
        assert upstream.heads == []
        assert proxy.seats() == (0, 0)


def refused(answer: Answer) -> None:
    assert answer.status in {400, 414, 431, 501, 505}
    assert answer["Connection"] == "close"
    assert answer["Content-Type"].startswith("application/json")
    assert answer.body.endswith(b"\n")
    assert answer.body.count(b"\n") == 1
    assert answer.json["error_code"] == "E_BAD_REQUEST"
    assert answer.json.keys() >= ERROR_FIELDS
    assert answer.get("Server") is None


async def test_a_chunk_that_breaks_after_a_good_one_is_refused_at_once() -> None:
    async with running() as up, up.client() as client:
        headers = {"Transfer-Encoding": "chunked"}
        await client.ask("POST", GENERATE, chunk(b'{"model":'), headers)
        await client.send(b"zz\r\n")
        answer = await client.answer()
        assert (answer.status, answer["Connection"]) == (400, "close")
        assert answer.json["reason"] == "bad_http"
        assert await client.at_eof()
        assert up.asked == []


@pytest.mark.parametrize("route", [GENERATE, "/api/show", "/api/tags"])
async def test_a_client_of_http_1_0_is_answered_without_chunks(route: str) -> None:
    async with running(SimConfig(tokens=3)) as up, up.client() as client:
        method = b"GET" if route == "/api/tags" else b"POST"
        body = b"" if route == "/api/tags" else b'{"model":"qwen3:4b"}'
        first = b"%b %b HTTP/1.0\r\nContent-Length: %d\r\n" % (method, route.encode(), len(body))
        await client.send(first + b"Connection: keep-alive\r\n\r\n" + body)
        answer = await client.answer()
        assert answer.status == 200
        assert answer.get("Transfer-Encoding") is None
        assert answer["Connection"] == "close"
        assert answer.lines
        assert await client.at_eof()


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
async def test_an_upgrade_is_not_offered_and_the_request_answered_as_it_is(protocol: str) -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        upgrade = {
            "Connection": "Upgrade, HTTP2-Settings",
            "Upgrade": protocol,
            "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
        }
        for _ in range(2):
            answer = await client.request("GET", "/api/version", None, upgrade)
            assert answer.status == 200
            assert answer.get("Upgrade") is None
        assert up.passed_on[-1].header("upgrade") is None
        assert up.passed_on[-1].header("http2-settings") is None
        whole = await client.request("POST", GENERATE, WHOLE, upgrade)
        assert whole.json["done"] is True


async def test_connect_is_refused() -> None:
    async with running() as up, up.client() as client:
        await client.send(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
        answer = await client.answer()
        assert answer.status in {400, 403, 405, 501}
        assert answer.json["error_code"] in {"E_FORBIDDEN", "E_BAD_REQUEST"}
        assert not any("evil" in c.target for c in up.sim.calls)


async def test_trace_reflects_no_secret() -> None:
    async with running() as up, up.client() as client:
        answer = await client.request("TRACE", "/api/tags", None, {"Cookie": "secret"})
        assert answer.status >= 400
        assert b"secret" not in answer.body


# Whom we talk to.


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("http://127.0.0.1:{canary}/api/tags", "/api/tags"),
        ("http://evil.example/api/tags?x=1", "/api/tags?x=1"),
        ("http://evil.example", "/"),
        ("https://user:pw@evil.example:1/a/b", "/a/b"),
        ("//127.0.0.1:{canary}/api/tags", "//127.0.0.1:{canary}/api/tags"),
        ("/@127.0.0.1:{canary}/", "/@127.0.0.1:{canary}/"),
        ("/api/../../etc/passwd", "/api/../../etc/passwd"),
        ("/%2e%2e/x", "/%2e%2e/x"),
        ("/a%00b%0d%0aX:y", "/a%00b%0d%0aX:y"),
    ],
)
async def test_a_target_never_chooses_another_host(target: str, asked: str) -> None:
    async with (
        raw_upstream(says(response(b"{}"))) as canary,
        raw_upstream(says(response(b"{}"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        headers = {
            "Host": "localhost",
            "X-Forwarded-Host": f"127.0.0.1:{canary.port}",
            "Forwarded": f"host=127.0.0.1:{canary.port}",
        }
        answer = await client.request("GET", target.format(canary=canary.port), None, headers)
        assert answer.status in {200, 400}
        if answer.status == 200:
            lines = upstream.heads[0].decode().split("\r\n")
            assert lines[0] == f"GET {asked.format(canary=canary.port)} HTTP/1.1"
            assert lines[1] == f"Host: 127.0.0.1:{upstream.port}"
        assert canary.heads == []


@pytest.mark.parametrize(
    "target",
    [
        "/api/%67enerate",
        "/%61pi/generate",
        "/api%2Fgenerate",
        "/api/generate?stream=no",
        "http://localhost/api/generate",
        "http://evil.example/api/%67enerate?x",
    ],
)
async def test_every_spelling_of_an_inference_path_is_admitted(target: str) -> None:
    async def never(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with (
        raw_upstream(never) as upstream,
        in_front_of(upstream.port) as proxy,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(3):
            client = await stack.enter_async_context(proxy.client())
            await client.ask("POST", target, STREAM)
        await proxy.until(lambda: proxy.seats() == (2, 1))
        await upstream.asked(2)
        assert all(b"localhost" not in head and b"evil" not in head for head in upstream.heads)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LocalHost:11435", True),
        ("127.0.0.1", True),
        ("127.0.0.2:1", True),
        ("[::1]:11435", True),
        ("app.localhost", True),
        ("", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("8.8.8.8", False),
        ("192.168.0.1:11435", True),
        ("localhost:80:evil", False),
        ("localhost:80@evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::1].evil.example", False),
        ("\xff", False),
    ],
)
async def test_who_may_be_called_by_which_name(host: str, allowed: bool) -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        request = b"GET /api/tags HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode("latin-1")
        await client.send(request)
        answer = await client.answer()
        if allowed:
            assert answer.status == 200
        else:
            assert answer.status == 403
            assert answer.json["reason"] == "host_denied"
            # The proxy asks for itself too, without Via.
            assert not any(c.path == "/api/tags" and c.header("via") for c in up.sim.calls)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("app://obsidian.md", True),
        ("vscode-webview://x", True),
        ("http://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://localhost@evil.example", False),
        ("null", False),
        ("", False),
        ("chrome-extension://abc", False),
        ("http://[::1", False),
    ],
)
async def test_which_pages_may_call(origin: str, allowed: bool) -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        answer = await client.request("POST", GENERATE, WHOLE, headers)
        ask = headers | {"Access-Control-Request-Method": "POST"}
        preflight = await client.request("OPTIONS", GENERATE, None, ask)
        if allowed:
            assert (answer.status, preflight.status) == (200, 204)
            assert answer["Access-Control-Allow-Origin"] == origin
            assert preflight["Access-Control-Allow-Origin"] == origin
        else:
            for denied in (answer, preflight):
                assert denied.status == 403
                assert denied.json["reason"] == "origin_denied"
                assert denied.get("Access-Control-Allow-Origin") is None
            assert up.asked == []


async def test_our_own_via_is_a_loop() -> None:
    async with running() as up, up.client() as client:
        for via in ("1.1 modelsplit", "1.0 a, 1.1 ModelSplit", "HTTP/1.1 modelsplit (x)"):
            answer = await client.request("POST", GENERATE, WHOLE, {"Via": via})
            assert (answer.status, answer.json["error_code"]) == (508, "E_LOOP")
        await client.send(
            b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n"
            b"Via: 1.1 not-modelsplit\r\nVia: 1.1 modelsplit\r\n\r\n"
        )
        assert (await client.answer()).status == 508
        other = await client.request("GET", "/api/tags", None, {"Via": "1.1 not-modelsplit"})
        assert other.status == 200
        assert up.asked == []


async def test_a_proxy_in_front_of_itself_says_so() -> None:
    async with running() as inner, in_front_of(inner.port) as outer, outer.client() as client:
        answer = await client.request("POST", GENERATE, WHOLE | {"model": MODEL})
        assert answer.status == 508


# What is in the request.


@pytest.mark.parametrize(
    "headers",
    [
        {"X-LLM-Role": "PLANNER%0d%0aX-Evil: 1"},
        {"X-LLM-Role": "\xff\xfe"},
        {"X-LLM-Job-Id": "a b"},
        {"X-LLM-Job-Id": "x" * 129},
        {"X-LLM-Job-Id": "\xff"},
        {"X-LLM-Max-Wait-Ms": "\u00b2"},
        {"X-LLM-Timeout-Ms": "-1"},
        {"X-LLM-Timeout-Ms": "9" * 5000},
        {"X-LLM-Retry-Level": "\xff"},
    ],
)
async def test_a_header_of_ours_that_cannot_be_read_is_a_400(headers: dict[str, str]) -> None:
    async with running() as up, up.client() as client:
        (pair,) = headers.items()
        body = b'{"model":"planner","prompt":"x"}'
        line = b"%b: %b\r\n" % (pair[0].encode(), pair[1].encode("latin-1"))
        await client.send(POST + line + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        answer = await client.answer()
        assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")
        assert up.asked == []
        assert (await client.request("GET", "/api/version")).status == 200


@pytest.mark.parametrize("known_as", ["a b", "x" * 129, "\xff", "a\u00e9"])
async def test_a_request_id_we_cannot_repeat_is_replaced(known_as: str) -> None:
    async with running() as up, up.client() as client:
        line = b"X-Request-Id: %b\r\n" % known_as.encode("latin-1")
        await client.send(POST + line + b"Content-Length: 2\r\n\r\n{}")
        answer = await client.answer()
        assert answer["X-Request-Id"] != known_as
        assert answer["X-Request-Id"].isalnum()
        del up


@pytest.mark.parametrize(
    "model",
    [
        b'"a\\r\\nX-Evil: 1"',
        b'"a\\u000d\\u000aSet-Cookie: x=1"',
        b'"\\u0000\\u0001"',
        b'"\xe2\x80\xa8 \xf0\x9f\x9a\x80"',
        b'"\\ud800"',
        b'"\\udcff\\ud800x"',
        b'"' + b"m" * 1_000_000 + b'"',
        b'"' + b"\xc3\xa9" * 100_000 + b'"',
        b'" plan ner"',
        b'"<script>"',
        b'"\'"',
    ],
)
async def test_a_model_name_never_becomes_a_header_or_a_failure_of_ours(model: bytes) -> None:
    async with running() as up, up.client() as client:
        answer = await client.request("POST", GENERATE, b'{"model":%b,"stream":false}' % model)
        assert answer.status in {400, 404}
        assert answer.json["error"]
        names = {name.lower() for name, _ in answer.headers}
        assert not names & {"x-evil", "set-cookie"}
        assert sum(len(name) + len(value) for name, value in answer.headers) < 4096
        assert (await client.request("GET", "/api/version")).status == 200
        (record,) = await up.calls.wait()
        assert record.failure is not None
        lines = await up.logged()
        assert len(lines) == 1


NESTED = b"[" * 100_000 + b"]" * 100_000
BOMBS = {
    "deep arrays": b'{"model":"planner","x":%b}' % NESTED,
    "deep objects": b'{"model":"planner","x":%b1%b}' % (b'{"a":' * 100_000, b"}" * 100_000),
    "only depth": NESTED,
    "unclosed": b"[" * 1_000_000,
    "huge integer": b'{"model":"planner","x":%b}' % (b"9" * 100_000),
    "huge exponent": b'{"model":"planner","x":1e999999999}',
    "NaN": b'{"model":"planner","x":NaN}',
    "Infinity": b'{"model":"planner","x":-Infinity}',
    "bad UTF-8": b'{"model":"planner","prompt":"\xff\xfe\x80"}',
    "bad UTF-8 model": b'{"model":"\xff"}',
    "BOM": b'\xef\xbb\xbf{"model":"planner"}',
    "UTF-16": '{"model":"planner"}'.encode("utf-16"),
    "UTF-32": '{"model":"planner"}'.encode("utf-32"),
    "many keys": b'{"model":"planner",%b}' % b",".join(b'"k%d":1' % n for n in range(100_000)),
    "NULs": b"\0" * 10_000,
    "empty": b"",
    "blank": b" \n\t ",
    "null": b"null",
    "array": b'["planner"]',
    "number": b"1",
    "two objects": b'{"model":"planner"}{"model":"heavy"}',
    "two models": b'{"model":"planner","model":"heavy"}',
    "models by case": b'{"model":"planner","MODEL":"heavy"}',
    "models by escape": b'{"model":"planner","mod\\u0065l":"heavy"}',
    "many models": b"{%b}" % b",".join([b'"model":"planner"'] * 10_000),
    "trailing": b'{"model":"planner"} x',
    "cut": b'{"model":"planner","prompt":"',
    "form": b"model=planner&prompt=x",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_body_that_is_a_bomb_is_refused_or_passed_and_hurts_nobody(name: str) -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        answer = await client.request("POST", GENERATE, BOMBS[name])
        assert answer.status < 500
        if answer.status >= 400:
            assert answer.json["error"]
        if "models" in name:
            assert (answer.status, up.asked) == (400, [])
        assert (await client.request("POST", GENERATE, WHOLE)).status == 200
        assert up.seats() == (0, 0)


# Bodies by how many there are of something; with thousands of it none is decoded at once.
GROWING = {
    "deep arrays": lambda count: b'{"x":%b%b}' % (b"[" * count, b"]" * count),
    "deep objects": lambda count: b'{"x":%b1%b}' % (b'{"a":' * count, b"}" * count),
    "many keys": lambda count: b"{%b}" % b",".join(b'"k%030d":1' % n for n in range(count)),
    "many models": lambda count: b"{%b}" % b",".join([b'"model":"planner"'] * count),
}


async def turns_of_the_loop(bomb: bytes) -> tuple[list[int], int]:
    """Function calls in each turn of the loop until the bomb is answered; the answer's status."""
    done = response(b'{"response":"","done":true}')
    async with (
        raw_upstream(says(done)) as upstream,
        in_front_of(upstream.port) as up,
        up.client() as client,
    ):
        with counted_turns() as turns:
            answer = await client.request("POST", GENERATE, bomb)
    return turns, answer.status


@pytest.mark.parametrize("name", ["unclosed", *GROWING])
async def test_a_bomb_does_not_hold_the_loop_up(name: str) -> None:
    """Between two turns of the loop is little work, however much there is in all."""
    bomb = GROWING[name](20_000) if name in GROWING else BOMBS[name]
    turns, status = await turns_of_the_loop(bomb)
    assert status == (200 if name == "many keys" else 400)
    assert max(turns) < 20_000


@pytest.mark.parametrize("name", GROWING)
async def test_a_bomb_of_four_times_the_size_takes_four_times_the_work(name: str) -> None:
    small, small_status = await turns_of_the_loop(GROWING[name](2_400))
    large, large_status = await turns_of_the_loop(GROWING[name](9_600))
    assert small_status == large_status == (400 if name == "many models" else 200)
    assert 3 * sum(small) <= sum(large) <= 6 * sum(small)


async def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    async with running(max_body_bytes=1000) as up:
        async with up.client() as client:
            await client.ask("POST", GENERATE, b"", {"Content-Length": "1001"})
            answer = await client.answer()
            assert (answer.status, answer["Connection"]) == (413, "close")
        async with up.client() as client:
            wire = chunk(b" " * 600) * 2
            await client.ask("POST", GENERATE, wire, {"Transfer-Encoding": "chunked"})
            assert (await client.answer()).json["error_code"] == "E_REQUEST_TOO_LARGE"
        assert up.asked == []


# The end of the process.


async def test_a_running_stream_is_finished_and_the_next_request_refused() -> None:
    async with (
        running(SimConfig(token_rate=100, tokens=30)) as up,
        up.client() as client,
        up.client() as late,
        up.client() as idle_one,
    ):
        await idle_one.request("GET", "/api/version")
        await client.ask("POST", GENERATE, STREAM)
        answer = await client.head()
        await late.send(POST + b"Content-Length: 19\r\n")
        await up.until(lambda: len(up.app._edge.connections) == 3)
        await asyncio.sleep(0)
        stopping = asyncio.get_running_loop().create_task(up.app.stop())
        await up.until(lambda: up.app.lifecycle.draining)
        assert await idle_one.at_eof()
        await late.send(b'\r\n{"model":"planner"}')
        refused = await late.answer()
        assert (refused.status, refused["Connection"]) == (503, "close")
        assert refused.json["reason"] == "draining"
        assert int(refused["Retry-After"]) >= 1
        pieces = [piece async for piece in client.pieces(answer)]
        assert answer.whole
        assert b'"done":true' in pieces[-1]
        await stopping
        assert await client.at_eof()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_endless_stream_is_told_when_the_drain_is_over(version: str) -> None:
    async with running(ENDLESS, drain_s=0.3) as up, up.client() as client:
        body = b'{"model":"planner","prompt":"x"}'
        await client.send(
            b"POST /api/generate HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
            % (version.encode(), len(body), body)
        )
        answer = await client.head()
        began = up.app.clock.now()
        await up.app.stop()
        assert up.app.clock.now() - began >= 0.3
        rest = b"".join([piece async for piece in client.pieces(answer)])
        assert b'"done":true' not in rest
        last = orjson.loads(rest.splitlines()[-1])
        assert (last["error_code"], last["reason"]) == ("E_OVERLOAD_THROTTLED", "draining")
        assert "restarting" in last["error"]
        await up.sim.wait_for(lambda sim: sim.active == 0)
        (record,) = up.calls.records
        assert (record.outcome, record.call.state) == ("E_OVERLOAD_THROTTLED", State.TRUNCATED)


async def test_an_answer_that_has_not_begun_when_the_drain_is_over_is_refused() -> None:
    async with running(ENDLESS, drain_s=0.3) as up:
        async with up.client() as client:
            await client.ask("POST", GENERATE, call(GENERATE, "planner", stream=False))
            await up.until(lambda: up.seats() == (1, 0))
            await up.app.stop()
            answer = await client.answer()
            assert (answer.status, answer.json["reason"]) == (503, "draining")
        (record,) = up.calls.records
        assert (record.outcome, record.status) == ("E_OVERLOAD_THROTTLED", 503)
        await up.sim.wait_for(lambda sim: sim.active == 0)


async def test_what_is_only_passed_on_breaks_visibly_when_the_drain_is_over() -> None:
    async def pulling(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.send(chunk(b'{"status":"pulling manifest"}\n'))
        await peer.gone()

    async with (
        raw_upstream(pulling) as upstream,
        in_front_of(upstream.port, drain_s=0.3) as up,
        up.client() as client,
    ):
        await client.ask("POST", "/api/pull", b'{"model":"llama3.2"}')
        answer = await client.head()
        await up.app.stop()
        said = b"".join([piece async for piece in client.pieces(answer)])
        assert said == b'{"status":"pulling manifest"}\n'
        assert not answer.whole


async def test_calls_in_line_get_an_answer_when_the_process_ends() -> None:
    async with running(ENDLESS, drain_s=0.3) as up:
        seated = [up.client() for _ in range(2)]
        queued = [up.client() for _ in range(6)]
        for client in [*seated, *queued]:
            await client.ask("POST", GENERATE, STREAM)
        await up.until(lambda: up.seats() == (2, 6))
        await up.app.stop()
        for client in queued:
            answer = await client.answer()
            assert (answer.status, answer["Connection"]) == (503, "close")
            assert answer.json["reason"] == "draining"
        assert len(up.asked) == 2
        for client in [*seated, *queued]:
            await client.close()


async def test_calls_in_line_are_served_if_the_drain_lasts_long_enough() -> None:
    async with running(SimConfig(token_rate=200, tokens=10)) as up:
        clients = [up.client() for _ in range(6)]
        for client in clients:
            await client.ask("POST", GENERATE, STREAM)
        await up.until(lambda: up.seats() == (2, 4))
        await up.app.stop()
        for client in clients:
            assert (await client.answer()).lines[-1]["done"] is True
            await client.close()
        assert [call_.state for call_ in up.asked] == [CallState.FINISHED] * 6


async def test_a_second_signal_cuts_at_once() -> None:
    async with running(ENDLESS, drain_s=86_400) as up, up.client() as client:
        await client.ask("POST", GENERATE, STREAM)
        answer = await client.head()
        cut = asyncio.Event()
        cut.set()
        await up.app.stop(cut)
        rest = b"".join([piece async for piece in client.pieces(answer)])
        assert orjson.loads(rest.splitlines()[-1])["reason"] == "draining"
        assert b'"done":true' not in rest
