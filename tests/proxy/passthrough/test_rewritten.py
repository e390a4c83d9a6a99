"""Questions asked in other words: what is read and changed, and what passes as it came."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_proxy.passthrough import rewritten
from support.harness import in_front_of, running
from support.raw import Peer, chunk, raw_upstream, says
from support.scripted import response, scripted

pytestmark = pytest.mark.flowing_time

TAGS = "/api/tags"
LIST = b'{"models":[{"name":"qwen3:4b","digest":"aa"}]}'


async def never(peer: Peer) -> None:
    await peer.head()
    await peer.gone()


async def test_the_upstream_is_asked_for_something_that_can_be_read_and_changed() -> None:
    async with (
        scripted(response(LIST)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        headers = {
            "Accept-Encoding": "gzip",
            "If-None-Match": '"x"',
            "Range": "bytes=0-3",
            "X-LLM-Role": "PLANNER",
            "Accept": "a/b",
            "Authorization": "Bearer k",
        }
        await client.request("HEAD", f"{TAGS}?a=%20b", None, headers)
        first, *lines = upstream.asked[0].decode().strip().split("\r\n")
        assert first == f"GET {TAGS}?a=%20b HTTP/1.1"
        names = [line.partition(":")[0] for line in lines]
        assert names == ["Host", "Accept", "Authorization", "Via"]


async def test_what_was_said_of_the_bytes_is_not_said_of_others() -> None:
    about_bytes = ["ETag: 1", "Last-Modified: now", "Content-MD5: x", "X-Kept: 1"]
    async with (
        scripted(response(LIST, *about_bytes, status="200 Fine")) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("GET", TAGS)
        assert answer.phrase == "Fine"
        names = [name for name, _ in answer.headers]
        assert names == ["Content-Type", "X-Kept", "Via", "Content-Length"]
        assert b"planner:latest" in answer.body


@pytest.mark.parametrize(
    "told",
    [
        response(LIST, "Content-Encoding: gzip", "ETag: 1"),
        response(LIST, content_type="text/plain"),
        response(LIST, status="203 Other"),
        response(b'{"error":"x"}', status="500 Broken"),
        response(b"", status="404 Not Found"),
        response(b"not json"),
        response(b"{}"),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunk(LIST[:9])
        + chunk(b"!")
        + b"0\r\n\r\n",
    ],
)
async def test_what_cannot_be_read_comes_as_it_is(told: bytes) -> None:
    async with (
        scripted(told) as upstream,
        in_front_of(upstream.port) as proxy,
        in_front_of(upstream.port, {"roles": NO_ALIASES}) as plain,
        proxy.client() as client,
        plain.client() as other,
    ):
        ours = await client.request("GET", TAGS)
        theirs = await other.request("GET", TAGS)
        assert (ours.status, ours.phrase, ours.body) == (theirs.status, theirs.phrase, theirs.body)
        assert ours.get("ETag") == theirs.get("ETag")
        # It is whole, and the connection goes on.
        assert (await client.request("GET", TAGS)).body == ours.body


NO_ALIASES: dict[str, Any] = {
    role: {"aliases": []} for role in ("PLANNER", "EXECUTOR", "HEAVY", "CLOUD")
}


async def test_a_list_too_large_to_hold_comes_whole_and_unchanged() -> None:
    size = rewritten._LIMIT_BYTES + 5_000_000
    body = LIST[:-2] + b" " * (size - len(LIST)) + LIST[-2:]
    async with (
        raw_upstream(says(response(body))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("GET", TAGS)
        assert answer.body == body
        assert answer["Content-Length"] == str(size)


async def test_a_list_that_breaks_off_is_an_error_and_not_half_a_list() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    async with (
        raw_upstream(says(half, close=True)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("GET", TAGS)
        assert (answer.status, answer.json["reason"]) == (502, "truncated")


async def test_a_question_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewritten, "_TIMEOUT_S", 0.05)
    async with (
        raw_upstream(never) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("GET", TAGS)
        assert (answer.status, answer.json["reason"]) == (504, "first_byte_timeout")


async def test_the_second_wording_is_tried_only_where_the_first_is_not_found() -> None:
    missing = response(b'{"error":"model not found"}', status="404 Not Found")
    failed = response(b'{"error":"disk"}', status="500 Internal Server Error")
    for answers, status, asked in [
        ((missing, response(b'{"details":{}}')), 200, 2),
        ((failed,), 500, 1),
        ((missing, failed), 500, 2),
        ((missing, missing), 502, 2),
    ]:
        async with (
            scripted(*answers) as upstream,
            in_front_of(upstream.port) as proxy,
            proxy.client() as client,
        ):
            answer = await client.request("POST", "/api/show", {"model": "planner"})
            assert (answer.status, len(upstream.asked)) == (status, asked)


async def test_a_client_that_leaves_ends_the_question() -> None:
    async with (
        raw_upstream(never) as upstream,
        in_front_of(upstream.port) as proxy,
    ):
        client = proxy.client()
        await client.ask("GET", TAGS)
        await upstream.asked()
        await client.close()
        await proxy.until(lambda: proxy.app.lifecycle.active == 0)


async def test_answers_are_counted_by_kind() -> None:
    async with running() as up, up.client() as client, up.admin() as admin:
        for method, target in [("GET", TAGS), ("HEAD", TAGS), ("GET", "/nowhere")]:
            await client.request(method, target)
        text = (await admin.request("GET", "/metrics")).body.decode()
        name = "modelsplit_passthrough_requests_total"
        assert f'{name}{{kind="metadata",status="2xx"}} 2.0' in text
        assert f'{name}{{kind="other",status="4xx"}} 1.0' in text
