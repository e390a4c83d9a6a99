"""Everything that is no call to a model: any path, any method, never queued, never buffered."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import call
from support.harness import in_front_of, running
from support.raw import Peer, chunk, raw_upstream, says
from support.scripted import response
from support.waiting import settled
from support.wire import Client

pytestmark = pytest.mark.flowing_time

MIB = 2**20
GENERATE = "/api/generate"


async def test_the_stand_ins_own_answers_come_back_as_they_are() -> None:
    async with running() as up, up.client() as client, Client(up.sim.port) as direct:
        for method, target in [
            ("GET", "/"),
            ("HEAD", "/"),
            ("GET", "/api/version"),
            ("GET", "/api/ps?x=%20y"),
            ("GET", "/v1/models/qwen3:4b"),
            ("GET", "/v1/models/nosuch"),
            ("GET", "/nothing/here"),
            ("GET", "/api/tags/"),
            ("GET", "//api/tags"),
            ("GET", "/api/../api/tags"),
            ("GET", "/API/TAGS"),
            ("GET", GENERATE),
            ("DELETE", "/api/tags"),
            ("HEAD", "/api/ps"),
            ("PATCH", "/api/chat"),
        ]:
            ours = await client.request(method, target)
            theirs = await direct.request(method, target)
            assert (ours.status, ours.body) == (theirs.status, theirs.body), target
            for name in ("Location", "Allow", "Content-Type", "Content-Length"):
                assert ours.all(name) == theirs.all(name), (target, name)
            assert ours["Via"] == "1.1 modelsplit"
            assert not any(name.lower().startswith("x-llm") for name, _ in ours.headers)


async def test_a_redirect_is_not_followed_and_its_location_not_touched() -> None:
    there = response(b"", "Location: http://elsewhere.example/x?y#z", status="307 Temporary")
    async with (
        raw_upstream(says(there)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", "/api/show/", b"{}")
        assert (answer.status, answer.phrase) == (307, "Temporary")
        assert answer["Location"] == "http://elsewhere.example/x?y#z"
        assert len(upstream.heads) == 1


async def test_what_the_upstream_sees() -> None:
    async with (
        raw_upstream(says(response(b"{}"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        sent = {
            "Accept": "x/y",
            "X-LLM-Role": "PLANNER",
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "1",
            "Keep-Alive": "3",
            "TE": "trailers",
            "Proxy-Authorization": "secret",
            "Upgrade": "h2c",
            "Expect": "100-continue",
            "traceparent": "00-1-2-01",
        }
        await client.ask("GET", "/x?%41=%zz&b", None, sent)
        await client.answer()
        lines = upstream.heads[0].decode().split("\r\n")
        assert lines[0] == "GET /x?%41=%zz&b HTTP/1.1"
        names = [line.partition(":")[0] for line in lines[1:-2]]
        assert names == ["Host", "Accept", "traceparent", "Via"]
        assert lines[1] == f"Host: 127.0.0.1:{upstream.port}"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PROPFIND", "POST"])
async def test_any_method_may_have_a_body(method: str) -> None:
    async with running() as up:
        seen: list[tuple[bytes, bytes]] = []

        async def script(peer: Peer) -> None:
            while True:
                seen.append(await peer.request())
                peer.send(response(b"{}"))

        async with (
            raw_upstream(script) as upstream,
            in_front_of(upstream.port, curious=False) as proxy,
            proxy.client() as client,
        ):
            for body, headers in [(b"body", {}), (b"", {}), (chunk(b"body") + b"0\r\n\r\n", TE)]:
                assert (await client.request(method, "/any", body, headers)).status == 200
            assert [body for _, body in seen] == [b"body", b"", b"body"]
            assert all(head.startswith(method.encode()) for head, _ in seen)
            assert len(upstream.peers) == 1
        assert up.seats() == (0, 0)


TE = {"Transfer-Encoding": "chunked"}


async def test_metadata_never_waits_while_every_seat_and_place_is_taken() -> None:
    overlay = {"roles": {"PLANNER": {"max_queue": 1}}}
    async with running(SimConfig(token_rate=5, tokens=500), overlay) as up:
        busy = [up.client() for _ in range(3)]
        for client in busy:
            await client.ask("POST", GENERATE, call(GENERATE, "planner", stream=True))
        await up.until(lambda: up.seats() == (2, 1))
        async with up.client() as client:
            refused = await client.request("POST", GENERATE, call(GENERATE, "planner"))
            assert (refused.status, refused.json["reason"]) == (503, "queue_full")
            for method, target, body in [
                ("GET", "/api/tags", None),
                ("GET", "/api/ps", None),
                ("POST", "/api/show", b'{"model":"qwen3:4b"}'),
                ("GET", "/v1/models", None),
                ("HEAD", "/", None),
                ("GET", "/api/version", None),
            ]:
                assert (await client.request(method, target, body)).status == 200
        for client in busy:
            await client.close()


async def test_pulls_come_line_by_line() -> None:
    async with running() as up, up.client() as client:
        answer = await client.request("POST", "/api/pull", {"model": "qwen3:4b"})
        assert answer["Content-Type"] == "application/x-ndjson"
        assert [line["status"] for line in answer.lines][-1] == "success"
        assert [piece.count(b"\n") for piece in answer.chunks] == [1] * len(answer.chunks)


# Uploads.


async def test_a_blob_arrives_whole_and_its_digest_fits() -> None:
    blob = bytes(range(256)) * 40_000
    digest = hashlib.sha256(blob).hexdigest()
    async with running() as up, up.client() as client:
        target = f"/api/blobs/sha256:{digest}"
        assert (await client.request("POST", target, blob)).status == 201
        assert (await client.request("HEAD", target)).status == 200
        wrong = f"/api/blobs/sha256:{'0' * 64}"
        mismatch = await client.request("POST", wrong, blob)
        assert mismatch.status == 400
        assert "digest mismatch" in mismatch.json["error"]
        assert up.passed_on[-1].body_sha256 == digest


async def test_a_chunked_blob_and_one_that_waits_for_100() -> None:
    blob = b"blob" * 1000
    target = f"/api/blobs/sha256:{hashlib.sha256(blob).hexdigest()}"
    async with running() as up, up.client() as client:
        wire = b"".join(chunk(blob[i : i + 700]) for i in range(0, len(blob), 700)) + b"0\r\n\r\n"
        assert (await client.request("POST", target, wire, TE)).status == 201
        other = target[:-1] + ("0" if target[-1] != "0" else "1")
        await client.ask("POST", other, b"", {"Expect": "100-continue", "Content-Length": "4000"})
        interim = await client.head()
        assert (interim.status, interim.headers) == (100, [])
        await client.send(blob)
        assert (await client.answer()).status == 400


async def test_an_early_answer_reaches_a_client_that_is_still_uploading() -> None:
    blob = b"known"
    target = f"/api/blobs/sha256:{hashlib.sha256(blob).hexdigest()}"
    async with running() as up, up.client() as client:
        assert (await client.request("POST", target, blob)).status == 201
        await client.ask("POST", target, b"x" * MIB, {"Content-Length": str(100 * MIB)})
        answer = await client.answer()
        assert (answer.status, answer["Connection"]) == (200, "close")
        async with up.client() as other:
            assert (await other.request("GET", "/api/tags")).status == 200


async def test_a_connection_whose_upload_was_let_go_is_not_used_again() -> None:
    """An upstream that answers early and keeps the connection still waits for the body."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(response(b"early"))
        await peer.gone()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port, curious=False) as proxy,
    ):
        for number in range(1, 4):
            async with proxy.client() as client:
                await client.ask("POST", "/upload", b"half", {"Content-Length": "8"})
                assert (await client.answer()).body == b"early"
                await upstream.asked(number)
        assert len(upstream.peers) == 3


async def test_an_upload_is_not_buffered() -> None:
    """While the upstream does not read, little is taken; when it does, all of it arrives."""
    size = 200 * MIB
    read_on = asyncio.Event()
    digest = hashlib.sha256()

    async def script(peer: Peer) -> None:
        await peer.head()
        await read_on.wait()
        left = size
        while left:
            piece = await peer.reader.read(MIB)
            digest.update(piece)
            left -= len(piece)
        peer.send(response(b"{}"))

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await client.ask("POST", "/upload", b"", {"Content-Length": str(size)})
        assert client.writer is not None
        transport = client.writer.transport
        await upstream.asked()
        piece = b"0123456789abcdef" * (MIB // 16)
        expected = hashlib.sha256()
        sent = 0
        held = None
        while sent < size:
            client.writer.write(piece)
            expected.update(piece)
            sent += len(piece)
            if held is None and transport.get_write_buffer_size() > 4 * MIB:
                taken = sent - transport.get_write_buffer_size()
                held = taken
                read_on.set()
            if held is not None:
                await client.writer.drain()
            else:
                await asyncio.sleep(0)
        answer = await client.answer()
        assert answer.status == 200
        assert digest.digest() == expected.digest()
        # Two sockets' kernel buffers on either side, and what one transport holds.
        assert held is not None
        assert held <= 24 * MIB


async def test_a_download_waits_for_a_slow_client_and_then_resumes() -> None:
    size = 64 * MIB
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = b"x" * (MIB // 4)
        while sent < size:
            peer.send(piece)
            await peer.flush()
            sent += len(piece)
        await peer.request()
        peer.send(response(b"next"))

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port, curious=False) as proxy,
        proxy.client() as client,
    ):
        await client.open()
        assert client.writer is not None
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.ask("GET", "/big")
        await upstream.asked()
        await settled(lambda: sent)
        assert sent <= 16 * MIB
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = await client.answer()
        assert len(answer.body) == size
        assert (await client.request("GET", "/next")).body == b"next"
        assert len(upstream.peers) == 1


async def test_an_upload_whose_framing_breaks_never_looks_whole_upstream() -> None:
    ends: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        ends.append(await peer.reader.read())

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await client.ask("POST", "/upload", chunk(b"good"), TE)
        await upstream.asked()
        await client.send(b"zz\r\nbad\r\n0\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer["Connection"]) == (400, "close")
        assert answer.json["error_code"] == "E_BAD_REQUEST"
        assert await client.at_eof()
        await proxy.until(lambda: bool(ends) or bool(upstream.failures))
        assert b"0\r\n\r\n" not in b"".join(ends)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_in_mid_upload_takes_the_upstream_with_it(how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()
        peer.upstream.heads.append(b"gone")
        peer.upstream.changed.set()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
    ):
        client = proxy.client()
        await client.ask("POST", "/upload", b"half", {"Content-Length": "100000"})
        await upstream.asked()
        if how == "reset":
            client.reset()
        else:
            await client.close()
        await upstream.asked(2)
        assert upstream.heads[1] == b"gone"


async def test_an_upstream_that_dies_in_mid_upload_is_told() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(4)
        peer.reset()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await client.ask("POST", "/upload", b"half", {"Content-Length": "8"})
        answer = await client.answer()
        assert (answer.status, answer.json["error_code"]) == (502, "E_UNREACHABLE_LOCAL")


async def test_a_question_left_unanswered_ends_with_its_client() -> None:
    async with running() as up:
        up.sim.faults.add(Kind.HANG, path="/api/tags")
        client = up.client()
        await client.ask("GET", "/api/tags")
        # The proxy asks the same for itself, without Via.
        await up.sim.wait_for(lambda sim: any(c.fault and c.header("via") for c in sim.calls))
        await client.close()
        await up.sim.wait_for(
            lambda sim: all(c.ended_at is not None for c in sim.calls if c.header("via")), 1.0
        )
