"""The stand-in cloud: what it checks, and how it says no."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from modelsplit_sim.cloud import KEY, Cloud, RefusedError, Script, check

ASKED: dict[str, Any] = {
    "model": "claude-3-opus-20240229",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hi"}],
}
HEAD = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]}


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"max_tokens": None},
        {"max_tokens": 0},
        {"temperature": 1.5},
        {"messages": []},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
        {"messages": [RESULT]},
    ],
)
def test_what_the_api_refuses(change: dict[str, Any]) -> None:
    check(ASKED)
    with pytest.raises(RefusedError):
        check(ASKED | change)


@pytest.mark.parametrize(
    ("head", "asked", "status", "kind"),
    [
        (HEAD, ASKED, 200, None),
        ({"Authorization": f"Bearer {KEY}", "anthropic-version": "2026-10-21"}, ASKED, 200, None),
        (
            HEAD | {"anthropic-version": "2026-10-21"},
            ASKED | {"top_k": 1},
            400,
            "invalid_request_error",
        ),
        (HEAD | {"x-api-key": "wrong"}, ASKED, 401, "authentication_error"),
        (HEAD | {"anthropic-version": "1"}, ASKED, 400, "invalid_request_error"),
        (HEAD, ASKED | {"model": "gpt"}, 404, "not_found_error"),
    ],
)
async def test_who_is_answered(
    head: dict[str, str], asked: dict[str, Any], status: int, kind: str | None
) -> None:
    async with Cloud() as cloud, aiohttp.ClientSession(headers=head) as session:
        async with session.post(f"{cloud.url}/v1/messages", json=asked) as answer:
            body = await answer.json()
        assert answer.status == status
        assert body.get("error", {}).get("type") == kind


async def test_a_stream_that_waits_for_a_sign() -> None:
    go = asyncio.Event()
    async with Cloud() as cloud, aiohttp.ClientSession(headers=HEAD) as session:
        cloud.scripts.append(Script(text="a long answer indeed", go=go))
        async with session.post(
            f"{cloud.url}/v1/messages", json=ASKED | {"stream": True}
        ) as answer:
            text = b""
            while b"answer " not in text:
                text += await answer.content.readany()
            assert b"message_stop" not in text
            go.set()
            assert b"message_stop" in await answer.read()


async def test_events_in_the_order_of_the_documentation() -> None:
    async with Cloud() as cloud, aiohttp.ClientSession(headers=HEAD) as session:
        cloud.scripts.append(Script(text="hi", thinking="hm", tool="f", arguments={"a": 1}))
        asked = ASKED | {"stream": True}
        async with session.post(f"{cloud.url}/v1/messages", json=asked) as answer:
            text = await answer.text()
    kinds = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event")]
    assert kinds[:2] == ["message_start", "ping"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 3
    assert kinds[-2:] == ["message_delta", "message_stop"]
