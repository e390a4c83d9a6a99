"""An upstream that breaks every rule: the client gets an answer of ours, or a visible break."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from modelsplit_policy.call import State
from modelsplit_proxy.http.client_connection import ClientConnection
from modelsplit_proxy.http.upstream import UpstreamConnection
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.journal import OPEN_STATES
from support.calls import DIALECTS, ERROR_FIELDS, call
from support.endpoints import endpoint
from support.fake_time import passes
from support.harness import Running, in_front_of, running
from support.ports import stand_in
from support.raw import Peer, chunk, raw_upstream, says
from support.scripted import response
from support.wire import Answer, Client
from support.work import CountedPattern, Work, tracing

if TYPE_CHECKING:
    import re

pytestmark = pytest.mark.flowing_time

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
NDJSON = b"Content-Type: application/x-ndjson\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GENERATE = "/api/generate"
PLAIN = call(GENERATE, "m:1b")
STREAM = call(GENERATE, "m:1b", stream=True)
DONE = b'{"model":"m:1b","response":"","done":true}\n'
TOKEN = b'{"model":"m:1b","response":"x","done":false}\n'
SECRET = b"s3cr3t-of-the-upstream"

MALFORMED = {
    "garbage": b"%b banana\r\n\r\n" % SECRET,
    "version": b"HTTP/9.9 200 OK\r\nX: %b\r\n\r\n" % SECRET,
    "http2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\nX: %b\r\n\r\n{}" % SECRET,
    "http09": b"HTTP/0.9 200 OK\r\n\r\n%b" % SECRET,
    "status": b"HTTP/1.1 two OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "two lengths": OK + JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length list": OK + JSON + b"Content-Length: 2, 2\r\n\r\n{}",
    "length and chunks": OK
    + JSON
    + b"Content-Length: 2\r\n"
    + CHUNKED
    + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks and length": OK + JSON + CHUNKED + b"Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "gzip coding": OK + JSON + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "gzip, chunked": OK + JSON + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "xchunked": OK + JSON + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked twice": OK + JSON + CHUNKED + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunk size": OK + JSON + CHUNKED + b"\r\nzz%b\r\n" % SECRET,
    "chunk overrun": OK + JSON + CHUNKED + b"\r\n2\r\n{}%b\r\n" % SECRET,
    "NUL in a value": OK + b"X: a\0%b\r\nContent-Length: 2\r\n\r\n{}" % SECRET,
    "CR in a value": OK + b"X: a\rSet-Cookie: %b\r\nContent-Length: 2\r\n\r\n{}" % SECRET,
    "NUL in the phrase": b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\n{}",
    "folded": OK + b"X: a\r\n %b\r\nContent-Length: 2\r\n\r\n{}" % SECRET,
    "space in a name": OK + b"Content-Length : 2\r\n\r\n{}",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "no colon": OK + b"%b\r\nContent-Length: 2\r\n\r\n{}" % SECRET,
    "unasked 101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n%b"
    % SECRET,
    "big header": OK + b"X: " + b"a" * 1_000_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "many headers": OK + b"X: a\r\n" * 20_000 + b"Content-Length: 2\r\n\r\n{}",
    "nothing": b"",
    "half a head": OK + b"Content-Le",
    "short body": OK + JSON + b"Content-Length: 5\r\n\r\n{}",
    "no last chunk": OK + JSON + CHUNKED + b"\r\n2\r\n{}\r\n",
}


def told(answer: Answer, code: str) -> None:
    """An error of ours: one line of JSON with every field, nothing of the upstream's bytes."""
    assert answer.whole
    assert answer["Content-Type"] == "application/json"
    assert answer.body.endswith(b"\n")
    assert answer.body.count(b"\n") == 1
    assert answer.json.keys() >= ERROR_FIELDS
    assert answer.json["error_code"] == answer["X-LLM-Error-Code"] == code
    assert 0 < len(answer.json["error"]) <= 200
    assert SECRET not in answer.body + repr(answer.headers).encode() + answer.phrase.encode()


@pytest.mark.parametrize("name", MALFORMED)
async def test_an_answer_that_is_not_http_is_a_502(name: str) -> None:
    async with (
        raw_upstream(says(MALFORMED[name], close=True)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, PLAIN)
        assert answer.status == 502
        told(answer, "E_UNREACHABLE_LOCAL")
        assert len(upstream.heads) == 1
        again = await client.request("GET", "/not/yet/known")
        if name in {"short body", "no last chunk", "chunk overrun"}:
            assert not again.whole  # passed through as it comes: broken, and visibly so
        else:
            assert again.status == 502
            told(again, "E_UNREACHABLE_LOCAL")
        assert proxy.seats() == (0, 0)


@pytest.mark.parametrize("name", ["big header", "many headers", "NUL in a value"])
async def test_a_head_out_of_bounds_is_refused_without_waiting_for_its_end(name: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(MALFORMED[name].partition(b"\r\n\r\n")[0])
        await peer.gone()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        told(await client.request("POST", GENERATE, PLAIN), "E_UNREACHABLE_LOCAL")


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_line_cut_before_the_answer_is_told_at_once(how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset() if how == "rst" else peer.finish()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, PLAIN)
        assert answer.status == 502
        told(answer, "E_UNREACHABLE_LOCAL")
        assert answer.json["reason"] == "reset"
        assert len(upstream.heads) == 1


SURPLUS = {
    "an answer": response(b'{"poison":true}', "Set-Cookie: poison=1"),
    "junk": b"poison poison poison",
    "a byte": b"H",
    "an empty chunked answer": OK + CHUNKED + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("when", ["together", "later"])
@pytest.mark.parametrize("name", SURPLUS)
async def test_surplus_bytes_never_reach_the_next_answer(name: str, when: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            answer = response(b'{"done":%d}' % len(peer.upstream.heads))
            if when == "together":
                peer.send(answer + SURPLUS[name])
                continue
            peer.send(answer)
            await peer.flush()
            peer.send(SURPLUS[name])

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        for number in range(1, 9):
            route = GENERATE if number % 2 else "/api/show"
            answer = await client.request("POST", route, PLAIN)
            assert (answer.status, answer.body) == (200, b'{"done":%d}' % number)
            assert answer.get("Set-Cookie") is None
        assert len(upstream.heads) == 8


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("framing", [b"Content-Length: 6\r\n", CHUNKED, b""])
async def test_a_status_without_a_body_has_none(status: int, framing: bytes) -> None:
    bodied = b"HTTP/1.1 %d None\r\n%b\r\npoison" % (status, framing)
    async with (
        raw_upstream(says(bodied, response(b"good"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await client.ask("GET", "/x")
        answer = await client.head()
        assert answer.status == status
        assert answer.get("Transfer-Encoding") is None
        if status == 204:
            assert answer.get("Content-Length") is None
        assert (await client.request("GET", "/y")).body == b"good"


@pytest.mark.parametrize("framing", [b"Content-Length: 6\r\n", CHUNKED])
@pytest.mark.parametrize("body", [b"", b"6", b"poison", b"6\r\npoison\r\n0\r\n\r\n", b"6\r\npoi"])
async def test_an_answer_to_head_ends_with_its_head(framing: bytes, body: bytes) -> None:
    async with (
        raw_upstream(says(OK + framing + b"\r\n" + body, response(b"good"))) as upstream,
        in_front_of(upstream.port, curious=False) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("HEAD", "/")
        assert answer.status == 200
        assert (await client.request("GET", "/y")).body == b"good"
        assert len(upstream.peers) == (2 if body else 1)


@pytest.mark.parametrize("route", [GENERATE, "/api/show"])
async def test_interim_answers_are_not_the_answer(route: str) -> None:
    early = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nX-Early: 1\r\n\r\n"
    )
    async with (
        raw_upstream(says(early + response(b'{"done":1}'))) as upstream,
        in_front_of(upstream.port, curious=False) as proxy,
        proxy.client() as client,
    ):
        for _ in range(2):
            answer = await client.request("POST", route, PLAIN)
            assert (answer.status, answer.phrase, answer.body) == (200, "OK", b'{"done":1}')
            assert answer.get("X-Early") is None
        assert len(upstream.peers) == 1


async def test_interim_answers_for_ever_are_cut() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100)
            await peer.flush()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        told(await client.request("POST", GENERATE, PLAIN), "E_UNREACHABLE_LOCAL")


async def test_trailers_do_not_become_headers() -> None:
    trailed = OK + JSON + CHUNKED + b'\r\na\r\n{"done":1}\r\n0\r\nSet-Cookie: poison=1\r\n\r\n'
    async with (
        raw_upstream(says(trailed)) as upstream,
        in_front_of(upstream.port, curious=False) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, PLAIN)
        assert (answer.status, answer.body) == (200, b'{"done":1}')
        assert answer.get("Set-Cookie") is None
        await client.request("POST", "/api/show", PLAIN)
        assert len(upstream.peers) == 1


@pytest.mark.parametrize("route", [GENERATE, "/api/show"])
async def test_a_close_delimited_answer_is_whole_and_framed_anew(route: str) -> None:
    async with (
        raw_upstream(says(OK + JSON + b'\r\n{"done":1}', close=True)) as upstream,
        in_front_of(upstream.port, curious=False) as proxy,
        proxy.client() as client,
    ):
        for _ in range(2):
            answer = await client.request("POST", route, PLAIN)
            assert (answer.status, answer.body, answer.whole) == (200, b'{"done":1}', True)
        assert len(upstream.peers) == 2


async def test_a_head_that_drips_is_cut_by_the_roles_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in OK + b"X: " + b"a" * 10_000:
            peer.send(bytes([byte]))
            await passes(0.01)

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        limits = {"X-LLM-Timeout-Ms": "150", "X-LLM-No-Fallback": "1"}
        answer = await client.request("POST", GENERATE, call(GENERATE, "planner"), limits)
        assert answer.status == 504
        told(answer, "E_TIMEOUT_LOCAL")
        await upstream.peers[0].gone()
        assert proxy.seats() == (0, 0)


async def test_a_kept_connection_that_went_stale_costs_no_call() -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        for _ in range(20):
            answer = await client.request("POST", GENERATE, PLAIN | {"model": "qwen3:4b"})
            assert answer.status == 200
            await up.sim.stop()
            await up.sim.start()
        assert len(up.asked) == 20


async def test_many_kept_connections_that_went_stale_cost_no_call() -> None:
    async with running(SimConfig(tokens=1, num_parallel=8)) as up:
        ask = call(GENERATE, "qwen3:4b")
        clients = [up.client() for _ in range(6)]
        first = await asyncio.gather(*(c.request("POST", GENERATE, ask) for c in clients))
        await up.sim.stop()
        await up.sim.start()
        second = await asyncio.gather(*(c.request("POST", GENERATE, ask) for c in clients))
        assert {answer.status for answer in first + second} == {200}
        assert len(up.asked) == 12
        for client in clients:
            await client.close()


async def test_an_upstream_that_is_down_is_told_at_once_and_used_again_when_back() -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        ask = call(GENERATE, "qwen3:4b")
        await up.sim.stop()
        answer = await client.request("POST", GENERATE, ask)
        passed = await client.request("GET", "/api/tags")
        for refused in (answer, passed):
            assert refused.status == 502
            told(refused, "E_UNREACHABLE_LOCAL")
            assert refused.json["reason"] == "connect_refused"
        await up.sim.start()
        assert (await client.request("POST", GENERATE, ask)).status == 200
        assert len(up.asked) == 1


# In a stream that has begun.

BREAKS = [Kind.CUT_CLEAN, Kind.CUT_FIN, Kind.CUT_RST, Kind.STALL, Kind.ERROR_LINE]


def looks_whole(route: str, answer: Answer) -> bool:
    """What a careless client takes for a finished answer."""
    if route.startswith("/api/"):
        return any(line.get("done") for line in answer.lines)
    return b"[DONE]" in answer.body or b"message_stop" in answer.body


def error_of(route: str, answer: Answer) -> dict[str, object]:
    if route.startswith("/api/"):
        last: dict[str, object] = answer.lines[-1]
        return last
    *_, event = answer.body.strip().split(b"\n\n")
    first, data = event.split(b"\n")
    assert first == b"event: error"
    answer.body = data.removeprefix(b"data: ")
    assert answer.json["type"] == "error"
    inner: dict[str, object] = answer.json["error"]
    assert inner["message"]
    return inner | {"error_code": inner["code"]}


@pytest.mark.parametrize("route", DIALECTS)
@pytest.mark.parametrize("kind", BREAKS)
async def test_a_stream_that_breaks_never_looks_whole(kind: Kind, route: str) -> None:
    async with running(SimConfig(tokens=20), stall_timeout_s=0.2) as up, up.client() as client:
        up.sim.faults.add(kind, after=4)
        answer = await client.request("POST", route, call(route, "executor", stream=True))
        assert answer.status == 200
        assert not looks_whole(route, answer)
        assert len(answer.chunks) >= 4
        said = error_of(route, answer)
        if kind is Kind.ERROR_LINE and route.startswith("/api/"):
            assert said == {
                "error": "an error was encountered while running the model: unexpected EOF"
            }
        else:
            stalled = kind is Kind.STALL
            expected = "E_TIMEOUT_LOCAL" if stalled else "E_STREAM_BROKEN_LOCAL"
            assert said["error_code"] == expected
            assert said.keys() >= ERROR_FIELDS
        assert len(up.asked) == 1
        assert up.seats() == (0, 0)
        await up.sim.wait_for(lambda sim: sim.active == 0)
        (record,) = await up.calls.wait()
        assert record.call.state is State.TRUNCATED


async def test_a_stream_cut_inside_a_line_breaks_the_connection() -> None:
    cut = OK + NDJSON + CHUNKED + b"\r\n" + chunk(TOKEN) + chunk(TOKEN[:10])
    async with (
        raw_upstream(says(cut, close=True)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, STREAM)
        assert (answer.status, answer.whole) == (200, False)
        assert answer.body == TOKEN + TOKEN[:10]
        assert len(upstream.heads) == 1


@pytest.mark.parametrize(
    "end", [b"zz\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n"]
)
async def test_a_malformed_chunk_mid_stream_is_told_in_the_stream(end: bytes) -> None:
    async with (
        raw_upstream(says(OK + NDJSON + CHUNKED + b"\r\n" + chunk(TOKEN) + end)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, STREAM)
        assert answer.status == 200
        assert DONE not in answer.body
        if answer.whole:
            assert answer.lines[-1]["error_code"] == "E_STREAM_BROKEN_LOCAL"
        assert len(upstream.heads) == 1


async def test_a_length_that_lies_breaks_the_stream_visibly() -> None:
    for length in (len(TOKEN) - 3, len(TOKEN + DONE) + 50):
        head = OK + NDJSON + b"Content-Length: %d\r\n\r\n" % length
        async with (
            raw_upstream(says(head + TOKEN, close=True)) as upstream,
            in_front_of(upstream.port) as proxy,
            proxy.client() as client,
        ):
            answer = await client.request("POST", GENERATE, STREAM)
            assert not answer.whole or answer.lines[-1]["error_code"] == "E_STREAM_BROKEN_LOCAL"


async def test_a_stream_that_broke_before_http10_has_chunks_is_reset_not_ended() -> None:
    cut = OK + NDJSON + CHUNKED + b"\r\n" + chunk(TOKEN) + chunk(TOKEN[:10])
    async with (
        raw_upstream(says(cut, close=True)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        body = b'{"model":"m:1b"}'
        await client.send(
            b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b"
            % (GENERATE.encode(), len(body), body)
        )
        answer = await client.answer()
        assert answer.get("Transfer-Encoding") is None
        assert not answer.whole
        assert len(upstream.heads) == 1


async def test_the_error_of_an_error_is_short_and_single_line() -> None:
    page = b"<html>\r\n" + SECRET * 1000 + b"\r\n</html>"
    async with (
        raw_upstream(says(response(page, status="500 Oh", content_type="text/html"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, PLAIN)
        assert answer.status == 500
        assert answer.json.keys() >= ERROR_FIELDS
        assert len(answer.json["error"]) <= 200


async def test_an_upstream_that_never_answers_leaves_no_seat_behind() -> None:
    async with running(SimConfig(tokens=1)) as up:
        up.sim.faults.add(Kind.HANG, times=2, path=GENERATE)
        answers = await asyncio.gather(*(_hurried(up) for _ in range(2)))
        assert [a.status for a in answers] == [504, 504]
        await up.sim.wait_for(lambda sim: not sim.in_state(*OPEN_STATES))
        assert up.seats() == (0, 0)
        async with up.client() as client:
            assert (await client.request("POST", GENERATE, call(GENERATE, "planner"))).status == 200


async def _hurried(up: Running) -> Answer:
    async with up.client() as client:
        headers = {"X-LLM-Timeout-Ms": "100", "X-LLM-No-Fallback": "1"}
        return await client.request("POST", GENERATE, call(GENERATE, "planner"), headers)


async def test_an_early_refusal_of_a_large_body_reaches_the_client() -> None:
    refusal = response(b'{"error":"too big"}', "Connection: close", status="413 Too Large")

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(refusal)
        await peer.gone()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
    ):
        body = b'{"model":"m:1b","prompt":"' + b"x" * 3_000_000 + b'"}'
        for route in (GENERATE, "/api/blobs/sha256:00"):
            async with Client(proxy.port) as client:
                answer = await client.request("POST", route, body)
                assert (answer.status, answer.json["error"]) == (413, "too big")


async def test_a_stand_in_restarted_in_mid_stream_breaks_the_stream_not_the_service() -> None:
    async with (
        stand_in(SimConfig(token_rate=200, tokens=1000)) as sim,
        in_front_of(sim.port) as proxy,
        proxy.client() as client,
        proxy.client() as other,
    ):
        await client.ask("POST", GENERATE, call(GENERATE, "qwen3:4b", stream=True))
        answer = await client.head()
        pieces = client.pieces(answer)
        assert b'"done":false' in await anext(pieces)
        await sim.stop()
        rest = b"".join([piece async for piece in pieces])
        assert b'"done":true' not in rest
        await sim.start()
        quick = call(GENERATE, "qwen3:4b") | {"options": {"num_predict": 1}}
        assert (await other.request("POST", GENERATE, quick)).status == 200


async def test_an_upstream_that_hangs_does_not_delay_the_start() -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()

    async with raw_upstream(script) as upstream, in_front_of(upstream.port) as proxy:
        assert proxy.port


# --- Many small pieces ------------------------------------------------------------------------

SSE = b"Content-Type: text/event-stream\r\n"
# A line that looks like the last one, with a brace at the end of each piece.
SMALL = {
    "/api/generate": (NDJSON, b'{"done":true,"x":"', b'"}\n', b'"}'),
    "/v1/chat/completions": (SSE, b'data: {"choices":[],"x":"', b'"}\n\ndata: [DONE]\n\n', b'"}'),
    "/v1/messages": (SSE, b'data: {"type":"message_stop","x":"', b'"}\n\n', b'"}'),
}


@pytest.mark.parametrize("telemetry", [True, False])
@pytest.mark.parametrize("route", SMALL)
async def test_a_line_in_small_chunks_takes_no_more_work_than_its_bytes(
    route: str, telemetry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, begun, ends, closes = SMALL[route]
    work = Work()
    row = endpoint(route)
    mark = cast("re.Pattern[bytes]", CountedPattern(row.wire.end_mark, work))
    counted = replace(row, wire=replace(row.wire, end_mark=mark))
    received = work.measured(UpstreamConnection.data_received)
    monkeypatch.setattr(UpstreamConnection, "data_received", received)

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            count = int(body.partition(b"pieces=")[2].partition(b'"')[0])
            line = b"".join(map(chunk, [begun, *[b"0123456789abcde}"] * count, ends]))
            peer.send(OK + kind + CHUNKED + b"\r\n" + line + b"0\r\n\r\n")
            await peer.flush()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port, endpoints=(counted,)) as proxy,
    ):
        took: dict[int, int] = {}
        for count in (500, 500, 2000):
            work.looked_at = work.made = 0
            field = "prompt" if route == GENERATE else "user"
            asked = call(route, "m:1b", stream=True) | {field: f"pieces={count}"}
            headers = {"X-LLM-Telemetry": "body"} if telemetry else {}
            async with proxy.client() as client:
                with tracing():
                    answer = await client.request("POST", route, asked, headers)
            assert answer.whole
            assert (b',"llm":{' in answer.body) is telemetry
            plain = answer.body.partition(b',"llm":')[0] if telemetry else answer.body
            assert plain.startswith(begun + b"0123456789abcde}" * count + b'"')
            assert answer.body.endswith(ends.removeprefix(closes))
            took[count] = work.total
    assert took[2000] <= 6 * took[500]


async def test_a_request_in_small_chunks_takes_no_more_work_than_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work()
    received = work.measured(ClientConnection.data_received)
    monkeypatch.setattr(ClientConnection, "data_received", received)
    headers = {"Transfer-Encoding": "chunked"}
    took: dict[int, int] = {}
    async with raw_upstream(says(response(DONE))) as upstream, in_front_of(upstream.port) as proxy:
        for count in (2000, 2000, 8000):
            work.looked_at = work.made = 0
            body = [b'{"model":"m:1b","stream":false,"prompt":"', *[b"ab"] * count, b'"}']
            wire = b"".join(map(chunk, body)) + b"0\r\n\r\n"
            with tracing():
                async with proxy.client() as client:
                    answer = await client.request("POST", GENERATE, wire, headers)
            assert answer.status == 200
            took[count] = work.total
    assert took[8000] <= 6 * took[2000]


# --- What is no answer of Ollama's --------------------------------------------------------------

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
NO_ANSWERS = {
    "empty": response(b""),
    "blank": response(b" \n"),
    "html": response(b"<html>welcome</html>", content_type="text/html"),
    "text": response(b"Ollama is running", content_type="text/plain"),
    "null": response(b"null"),
    "array": response(b'[{"response":"x","done":true}]'),
    "string": response(b'"done"'),
    "another object": response(b'{"status":"success"}'),
    "an error": response(b'{"error":"out of memory"}'),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "202": response(b'{"response":"x","done":true}', status="202 Accepted"),
    "302": response(b"", "Location: http://127.0.0.1:1/", status="302 Found"),
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "empty lines": response(b"", content_type=LINES),
    "empty events": response(b"", content_type=EVENTS),
    "202 as lines": response(DONE, status="202 Accepted", content_type=LINES),
    "no chunk": OK + NDJSON + CHUNKED + b"\r\n0\r\n\r\n",
    "a web server's 400": response(b"<html>HTTPS, please</html>", status="400 Bad Request"),
    "a web server's 404": response(b"<html>no page</html>", status="404 Not Found"),
    "a web server's 405": response(b"\n<!DOCTYPE html>", status="405 Method Not Allowed"),
    "a web server's 501": response(b"<!DOCTYPE HTML>", status="501 Unsupported method"),
    "another program's 404": response(b'{"detail":"Not Found"}', status="404 Not Found"),
}
GOOD = response(b'{"model":"qwen3:8b","response":"x","done":true}')


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_what_is_no_answer_is_replaced_by_the_fallbacks(name: str) -> None:
    async with (
        raw_upstream(says(NO_ANSWERS[name], GOOD)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, call(GENERATE, "planner"))
        assert (answer.status, answer["X-LLM-Attempt"]) == (200, "2")
        assert answer.json["response"] == "x"
        [record] = await proxy.calls.wait()
        cause = record.attempts[0].failure
        assert cause is not None
        assert (cause.code, cause.reason) == ("E_UPSTREAM_LOCAL", "no_answer")
        assert proxy.seats() == (0, 0)


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_what_is_no_answer_is_told_where_there_is_no_fallback(name: str) -> None:
    async with (
        raw_upstream(says(NO_ANSWERS[name])) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, PLAIN)
        assert (answer.status, answer.phrase) == (502, "No Answer")
        told(answer, "E_UPSTREAM_LOCAL")
        assert answer.json["reason"] == "no_answer"
        assert answer.get("Location") is None
        assert len(upstream.heads) == 1


async def test_plain_text_of_what_is_known_to_be_no_ollama_is_no_refusal() -> None:
    """An Ollama may say so of a route that it does not have."""
    raw = response(b"404 page not found", status="404 Not Found", content_type="text/plain")

    async def whatever_is_asked(peer: Peer) -> None:
        while True:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            rest = head.lower().partition(b"content-length:")[2]
            await peer.reader.readexactly(int(rest.split(b"\r\n", 1)[0]) if rest else 0)
            peer.send(raw)

    async with (
        raw_upstream(whatever_is_asked) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await proxy.app.probe.ask()
        answer = await client.request("POST", GENERATE, PLAIN)
        assert (answer.status, answer.json["reason"]) == (502, "no_answer")


# The least that is an answer, on each route.
LEAST = {
    "/api/generate": b'{"response":"x"}',
    "/api/chat": b'{"message":{"role":"assistant","content":"x"}}',
    "/api/embed": b'{"embeddings":[]}',
    "/api/embeddings": b'{"embedding":[]}',
    "/v1/chat/completions": b'{"choices":[]}',
    "/v1/completions": b'{"choices":[]}',
    "/v1/embeddings": b'{"data":[]}',
    "/v1/responses": b'{"output":[]}',
    "/v1/messages": b'{"content":[],"stop_reason":"end_turn"}',
}


@pytest.mark.parametrize("route", LEAST)
async def test_every_route_knows_its_own_answers_and_no_others(route: str) -> None:
    others = b'{"models":[],"version":"0.0.0","object":"list"}'
    async with (
        raw_upstream(says(response(LEAST[route]), response(others))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", route, call(route, "m:1b"))
        assert (answer.status, answer.body) == (200, LEAST[route])
        answer = await client.request("POST", route, call(route, "m:1b"))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UPSTREAM_LOCAL")


async def test_an_answer_that_is_encoded_is_nobodys_to_judge() -> None:
    packed = gzip.compress(b"<html>")
    async with (
        raw_upstream(says(response(packed, "Content-Encoding: gzip"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, PLAIN)
        assert (answer.status, answer.body) == (200, packed)


@pytest.mark.parametrize("fits", [True, False])
async def test_a_large_answer_is_known_by_its_key(*, fits: bool) -> None:
    key = b"embeddings" if fits else b"something"
    large = b'{"%b":[[%b]]}' % (key, b",".join([b"0.123456"] * 60_000))
    async with (
        raw_upstream(says(response(large))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", "/api/embed", call("/api/embed", "m:1b"))
        assert answer.status == (200 if fits else 502)


# --- A stream whose last line was not ended ---------------------------------------------------

SDK_STREAM = call("/v1/chat/completions", "m:1b", stream=True)
WORD = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
SDK_ERROR = b'data: {"error":{"message":"the model crashed"}}'
# What Ollama or a cloud behind it writes last, and how it is ended for the client.
UNENDED = {
    "a line": (GENERATE, NDJSON, TOKEN, b'{"error":"the model crashed"}', b"\n"),
    "an event": ("/v1/chat/completions", SSE, WORD, SDK_ERROR, b"\n\n"),
    "a line of an event": ("/v1/chat/completions", SSE, WORD, SDK_ERROR + b"\n", b"\n"),
    "a named event": ("/v1/messages", SSE, b"", b"event: error\n" + SDK_ERROR, b"\n\n"),
}


@pytest.mark.parametrize("framing", ["whole", "cut"])
@pytest.mark.parametrize("name", UNENDED)
async def test_an_error_that_ends_without_a_line_end_is_the_clients_to_read(
    name: str, framing: str
) -> None:
    route, kind, before, last, ending = UNENDED[name]
    end = b"0\r\n\r\n" if framing == "whole" else b""
    begun = b"" if not before else chunk(before)
    said = OK + kind + CHUNKED + b"\r\n" + begun + chunk(last) + end
    async with (
        raw_upstream(says(said, close=True)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", route, call(route, "m:1b", stream=True))
        assert (answer.status, answer.whole) == (200, True)
        assert answer.body == before + last + ending
        [record] = await proxy.calls.wait()
        assert record.failure is not None
        assert (record.failure.code, record.failure.reason) == (
            "E_STREAM_BROKEN_LOCAL",
            "error_line",
        )
        assert record.call.state is State.TRUNCATED


@pytest.mark.parametrize(
    ("route", "kind", "last", "ending"),
    [
        (GENERATE, NDJSON, TOKEN[:-1], b"\n"),
        (GENERATE, NDJSON, TOKEN + b" ", b""),
        ("/v1/chat/completions", SSE, WORD[:-2], b"\n\n"),
        ("/v1/chat/completions", SSE, WORD[:-1], b"\n"),
    ],
)
async def test_a_break_behind_a_whole_object_is_told_in_the_stream(
    route: str, kind: bytes, last: bytes, ending: bytes
) -> None:
    said = OK + kind + CHUNKED + b"\r\n" + chunk(last)
    async with (
        raw_upstream(says(said, close=True)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", route, call(route, "m:1b", stream=True))
        assert answer.whole
        assert answer.body.startswith(last + ending)
        assert error_of(route, answer)["error_code"] == "E_STREAM_BROKEN_LOCAL"


@pytest.mark.parametrize(
    ("route", "kind", "last"),
    [
        (GENERATE, NDJSON, b'{"error":"the mod'),
        (GENERATE, NDJSON, TOKEN + b"["),
        ("/v1/chat/completions", SSE, SDK_ERROR[:-4]),
        ("/v1/chat/completions", SSE, b"event: error\n"),
        ("/v1/chat/completions", SSE, b"data: {"),
    ],
)
async def test_half_an_object_is_not_ended(route: str, kind: bytes, last: bytes) -> None:
    said = OK + kind + CHUNKED + b"\r\n" + chunk(last) + b"0\r\n\r\n"
    async with (
        raw_upstream(says(said, close=True)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", route, call(route, "m:1b", stream=True))
        assert (answer.status, answer.whole, answer.body) == (200, False, last)
