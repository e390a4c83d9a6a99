"""Passing through, where tests/e2e/test_passthrough.py does not look."""

from __future__ import annotations

import pytest

from modelsplit_proxy.passthrough import passthrough
from support.fake_time import passes
from support.harness import in_front_of, running
from support.raw import Peer, chunk, raw_upstream, says
from support.scripted import response


async def never(peer: Peer) -> None:
    await peer.head()
    await peer.gone()


@pytest.mark.flowing_time
@pytest.mark.parametrize("target", ["/api/ps?x", "/x\xff"])
async def test_a_question_is_not_waited_for_for_ever(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passthrough, "_QUESTION_TIMEOUT_S", 0.05)
    async with (
        raw_upstream(never) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await client.send(request.encode("latin-1"))
        answer = await client.answer()
        if answer.status != 400:  # a parser may refuse raw bytes outright
            assert (answer.status, answer.json["reason"]) == (504, "first_byte_timeout")
            assert "0.05 s" in answer.json["error"]
            assert upstream.heads


@pytest.mark.fake_time
async def test_a_pull_may_take_its_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await passes(120)
        peer.send(response(b"{}"))

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        assert (await client.request("POST", "/api/pull", b"{}")).status == 200


async def test_a_download_that_breaks_is_cut_not_ended() -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"half"),
    ):
        async with (
            raw_upstream(says(answer, close=True)) as upstream,
            in_front_of(upstream.port) as proxy,
            proxy.client() as client,
        ):
            broken = await client.request("GET", "/x")
            assert (broken.body, broken.whole) == (b"half", False)


async def test_the_upstreams_headers_come_back_without_its_hop_by_hop_ones() -> None:
    told = response(
        b"{}",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Authenticate: Basic",
        "Upgrade: h2c",
        "X-Twice: a",
        "X-Twice: b",
        "X-Raw: \u00ff",
        "Via: 1.1 other",
    )
    async with (
        raw_upstream(says(told)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("GET", "/x")
        names = [name for name, _ in answer.headers]
        assert names == ["Content-Type", "X-Twice", "X-Twice", "X-Raw", "Via", "Via",
                         "Content-Length"]  # fmt: skip
        assert answer.all("X-Twice") == ["a", "b"]


async def test_new_requests_are_refused_while_draining() -> None:
    async with running() as up, up.client() as client:
        up.app.lifecycle.draining = True
        answer = await client.request("GET", "/api/tags")
        assert (answer.status, answer["Connection"]) == (503, "close")
        assert answer.json["reason"] == "draining"
        assert await client.at_eof()
