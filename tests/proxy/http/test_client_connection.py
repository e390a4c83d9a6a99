"""One client connection: heads, bodies, and a client that is slow or leaves."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, cast

import pytest

from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.client_connection import (
    HIGH_WATER_BYTES,
    LINGER_S,
    PIECE_BYTES,
    BodyEndedError,
)
from modelsplit_proxy.http.request import Request
from support.fake_time import passes
from support.raw import chunk
from support.serving import GET, POST, Recorder, Serving, hello, only, say, serving
from support.waiting import settled, until

if TYPE_CHECKING:
    from asyncio import WriteTransport

    from modelsplit_proxy.http.downstream import Downstream


def unsent(up: Serving) -> int:
    """How much of an answer waits for the client."""
    transport = only(up).transport
    return 0 if transport is None else cast("WriteTransport", transport).get_write_buffer_size()


# The request head's deadline.


@pytest.mark.fake_time
async def test_the_deadline_runs_from_a_heads_first_byte_to_its_last() -> None:
    async with serving(hello, head_timeout_s=10) as up:
        client = up.client()
        await client.open()
        await passes(60)  # silence is no head
        await client.send(GET)
        assert (await client.answer()).body == b"hello"
        await client.send(GET[:-2])
        await until(lambda: only(up)._head_timer)
        await passes(9)
        assert not only(up)._force_close
        await passes(1)
        assert await client.at_eof()
        await client.close()


@pytest.mark.fake_time
async def test_a_finished_head_stops_the_clock_however_slow_the_rest() -> None:
    release = asyncio.Event()

    async def serve(request: Request, down: Downstream) -> None:
        await request.content.read()
        await release.wait()
        say(down, b"slow", length=4)

    async with serving(serve, head_timeout_s=10) as up, up.client() as client:
        await client.send(POST)
        await until(lambda: up.edge.connections and only(up)._head_timer)
        await passes(9)
        await client.send(b"Content-Length: 2\r\n\r\n")
        await until(lambda: only(up)._head_timer is None)
        await passes(60)
        await client.send(b"ab")
        await client.send(GET[:20])  # the next head has begun meanwhile
        await settled(lambda: only(up)._request_count)
        await passes(60)
        release.set()
        assert (await client.answer()).body == b"slow"
        await client.send(GET[20:])
        assert (await client.answer()).body == b"slow"


@pytest.mark.fake_time
async def test_the_bound_holds_for_a_head_that_comes_together_with_its_connection() -> None:
    async with serving(hello, head_timeout_s=10) as up:
        loop = asyncio.get_running_loop()
        for begun in (GET[:4], GET[:-2]):
            sock = socket.create_connection(("127.0.0.1", up.port))
            sock.sendall(begun)  # before the loop has even accepted it
            sock.setblocking(False)
            await until(lambda: any(each._head_timer for each in up.edge.connections))
            await passes(10)
            assert await loop.sock_recv(sock, 100) == b""
            sock.close()


@pytest.mark.fake_time
async def test_after_a_refusal_the_client_has_time_to_read_it_before_the_close() -> None:
    """The sending side is closed at once; what the client still sends is not a reset yet."""
    async with serving(hello) as up, up.client() as client:
        await client.send(b"\0\r\n\r\n")
        assert (await client.answer()).status == 400
        assert await client.at_eof()
        connection = only(up)
        assert connection.busy
        assert connection.transport is not None
        assert not connection.transport.is_closing()
        await client.send(b"x" * 10_000)
        await passes(LINGER_S)
        await until(lambda: not up.edge.connections)


async def test_empty_lines_before_a_request_are_read_once() -> None:
    """However many: each costs its two bytes, and they count as a head's."""
    async with serving(hello) as up, up.client() as client:
        await client.send(b"\r\n" * 20_000 + GET)
        assert (await client.answer()).body == b"hello"
        await client.send(b"\r\n" * 70_000 + GET)
        assert (await client.answer()).status in {414, 431}


# What a handler is told.


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def serve(request: Request, down: Downstream) -> None:
        del request, down
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    async with serving(serve) as up:
        client = up.client()
        await client.send(GET)
        await until(began.is_set)
        await client.close()
        await until(cancelled.is_set)


async def test_a_slow_client_pauses_the_source_and_resumes_it() -> None:
    source, finish = Recorder(), asyncio.Event()

    async def serve(request: Request, down: Downstream) -> None:
        del request
        down.feed_from(source)
        down.head(200, "OK", [], length=None, close=False)
        while not down.writing_paused:
            down.write(b"x" * 65536)
            await asyncio.sleep(0)
        await finish.wait()
        down.feed_from(None)
        down.end()

    async with serving(serve) as up, up.client() as client:
        await client.open()
        assert client.writer is not None
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET)
        await until(source.changed.is_set)
        assert source.told == ["pause"]
        connection = only(up)
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() > HIGH_WATER_BYTES
        source.changed.clear()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        reading = asyncio.get_running_loop().create_task(client.answer())
        await until(source.changed.is_set)
        assert source.told == ["pause", "resume"]
        finish.set()
        assert (await reading).whole


async def test_the_next_request_waits_until_the_answer_is_taken() -> None:
    served = 0

    async def serve(request: Request, down: Downstream) -> None:
        nonlocal served
        del request
        served += 1
        body = b"x" * 4_000_000
        say(down, body, length=len(body))

    async with serving(serve) as up, up.client() as client:
        await client.open()
        assert client.writer is not None
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET * 20)
        await until(lambda: served)
        await settled(lambda: served)
        assert served < 10
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(20):
            assert len((await client.answer()).body) == 4_000_000
        assert served == 20


@pytest.mark.fake_time
@pytest.mark.parametrize("slowly", [True, False])
async def test_a_client_that_takes_nothing_is_cut_and_one_that_is_slow_is_not(slowly: bool) -> None:
    size, cancelled = 12_000_000, asyncio.Event()

    async def serve(request: Request, down: Downstream) -> None:
        del request
        down.head(200, "OK", [], length=size, close=False)
        down.write(b"x" * size)
        try:
            await down._connection.taken()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        down.end()

    async with (
        serving(serve, send_timeout_s=10) as up,
        up.client() as client,
    ):
        await client.open()
        assert client.reader is not None
        assert client.writer is not None
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET)
        await until(lambda: up.edge.connections and only(up)._send_timer)
        if not slowly:
            await passes(10)
            await until(cancelled.is_set)
            return
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = await client.head()
        read, waiting, looks = 0, unsent(up), 0
        while read < size:
            read += len(await client.reader.read(size // 8))
            if unsent(up) < waiting:
                waiting, looks = unsent(up), looks + 1
                await passes(10)
        assert looks > 1
        assert answer.status == 200
        assert not cancelled.is_set()


async def test_a_malformed_chunk_breaks_the_body_its_reader_waits_for() -> None:
    errors: list[str] = []
    begun = asyncio.Event()

    async def serve(request: Request, down: Downstream) -> None:
        assert await request.content.readany() == b"good"
        begun.set()
        try:
            await request.content.read()
        except Exception as error:  # noqa: BLE001 - any, to see which
            errors.append(type(error).__name__)
        say(down, b"seen", length=4, close=True)

    async with serving(serve) as up, up.client() as client:
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"good"))
        await begun.wait()
        await client.send(b"zz\r\n")
        assert (await client.answer()).body == b"seen"
        assert await client.at_eof()
        assert errors == ["BodyEndedError"]


async def test_a_handler_that_fails_breaks_the_line_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve(request: Request, down: Downstream) -> None:
        del request
        down.head(200, "OK", [], length=4, close=False)
        down.write(b"ha")
        raise ZeroDivisionError

    async with serving(serve) as up, up.client() as client:
        await client.send(GET)
        with caplog.at_level(logging.ERROR):
            assert not (await client.answer()).whole
            assert await client.at_eof()
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.fake_time
@pytest.mark.parametrize("size", [20, 20_000])
async def test_a_body_that_drips_is_ended_and_one_that_is_slow_is_not(size: int) -> None:
    """However short the silences: what counts is how much came in all the time."""
    told: list[BodyEndedError] = []
    read = 0

    async def serve(request: Request, down: Downstream) -> None:
        nonlocal read
        try:
            while piece := await request.content.readany():
                read += len(piece)
        except BodyEndedError as error:
            told.append(error)
        say(down, b"seen", length=4, close=True)

    async with serving(serve, body_timeout_s=30) as up, up.client() as client:
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % (10 * size))
        for count in range(1, 11):
            await client.send(b"a" * size)
            await until(lambda count=count: read == count * size)  # type: ignore[misc]
            await passes(20)
            if told:
                break
        assert (await client.answer()).body == b"seen"
    if size == 20:
        (error,) = told
        assert error.failure is not None
        assert (error.failure.status, error.failure.reason) == (408, Reason.BODY_TIMEOUT)
        assert "500 bytes a second" in error.failure.message
        assert count == 3
    else:
        assert not told


async def test_pieces_of_a_body_that_nobody_reads_are_charged_as_objects() -> None:
    release = asyncio.Event()

    async def serve(request: Request, down: Downstream) -> None:
        await release.wait()
        await request.content.read()
        say(down, b"read", length=4)

    async with serving(serve) as up, up.client() as client:
        chunks = chunk(b"a" * 16) * 1000
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        await until(lambda: up.edge.connections and only(up)._framing is not None)
        await until(lambda: only(up)._receiving._size == 16_000)
        assert only(up).budget.used == 1000 * (16 + PIECE_BYTES)
        release.set()
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).body == b"read"
        assert only(up).budget.used == 0


async def test_a_body_sent_byte_by_byte_is_few_pieces_and_the_same_body() -> None:
    release = asyncio.Event()
    body = bytes(range(256)) * 40
    got = b""

    async def serve(request: Request, down: Downstream) -> None:
        nonlocal got
        await release.wait()
        got = await request.content.read()
        say(down, b"read", length=4)

    async with serving(serve) as up, up.client() as client:
        chunks = b"".join(chunk(bytes([value])) for value in body)
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        await until(lambda: up.edge.connections and only(up)._framing is not None)
        await until(lambda: only(up)._receiving._size == len(body))
        assert only(up).budget.used < 10 * len(body)
        release.set()
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).body == b"read"
        assert got == body


async def test_what_is_held_of_an_answer_is_given_back_when_it_is_taken() -> None:
    size = 4 * 2**20

    async def serve(request: Request, down: Downstream) -> None:
        del request
        assert down.hold.set(size)
        say(down, b"a" * size, length=size)

    async with serving(serve) as up, up.client() as client:
        await client.open()
        assert client.writer is not None
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET)
        await until(lambda: up.edge.connections and only(up)._send_timer)
        assert only(up).answer_hold.size == size
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await client.answer()).whole
        await until(lambda: only(up).answer_hold.size == 0)
        assert only(up)._server.limits.answers.used == 0
