"""What changes while a cloud answers: an approval that is used up or revoked, a key that is new."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.cloud import KEY, Cloud, Script
from modelsplit_sim.server import Sim
from support.clouds import approve, cloud_policy, with_a_cloud
from support.process import activated
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.wire import Answer

NATIVE = "/api/chat"
CALL: dict[str, Any] = {"model": "cloud", "messages": [{"role": "user", "content": "hi"}]}
PATIENT = {"roles": {"CLOUD": {"timeout_ms": 86_400_000}}}
TEXT = "a long answer indeed, and longer"
# A call is reserved for with 12 and 4096 tokens at most: 0.3 dollars and a little.
ROOM_FOR_ONE = 0.35


@contextlib.asynccontextmanager
async def streaming(client: Client, head: dict[str, str] | None = None) -> AsyncIterator[Answer]:
    """The answer to a call, of which something has come; the rest of it at the end."""
    await client.ask("POST", NATIVE, CALL, head)
    answer = await client.head()
    assert answer.status == 200
    pieces = client.pieces(answer)
    answer.chunks.append(await anext(pieces))
    yield answer
    async for piece in pieces:
        answer.chunks.append(piece)
    answer.body = b"".join(answer.chunks)


def said(answer: Answer) -> str:
    assert answer.lines[-1]["done"] is True
    return "".join(row["message"]["content"] for row in answer.lines)


async def test_an_approval_with_room_for_one_is_used_up_by_one_that_streams(tmp_path: Path) -> None:
    go = asyncio.Event()
    async with with_a_cloud(tmp_path, approved=ROOM_FOR_ONE, overlay=PATIENT) as (up, cloud):
        cloud.scripts.append(Script(text=TEXT, go=go))
        async with up.client() as first, up.client() as second:
            async with streaming(first) as answer:
                meanwhile = await second.request("POST", NATIVE, CALL)
                assert (meanwhile.status, meanwhile.json["reason"]) == (403, "approval_spent")
                assert len(cloud.calls) == 1
                go.set()
            assert said(answer) == TEXT
            await up.calls.wait(2)
            # It has cost less than was reserved for it.
            assert (await second.request("POST", NATIVE, CALL)).status == 200


async def test_an_answer_that_uses_an_approval_up_comes_to_its_end(tmp_path: Path) -> None:
    usage = {"input_tokens": 12, "output_tokens": 4096}
    async with with_a_cloud(tmp_path, approved=ROOM_FOR_ONE, overlay=PATIENT) as (up, cloud):
        cloud.scripts.append(Script(text=TEXT, usage=usage))
        async with up.client() as client:
            assert said(await client.request("POST", NATIVE, CALL)) == TEXT
            await up.calls.wait()
            refused = await client.request("POST", NATIVE, CALL)
            assert (refused.status, refused.json["reason"]) == (403, "approval_spent")
            assert refused["x-should-retry"] == "false"
            assert len(cloud.calls) == 1
            left = ROOM_FOR_ONE - (12 * 15 + 4096 * 75) / 1e6
            assert up.app.budget_keeper.approved()[1] == pytest.approx(left, abs=1e-9)


async def test_an_approval_that_is_revoked_stops_the_next_call_alone(tmp_path: Path) -> None:
    go = asyncio.Event()
    async with with_a_cloud(tmp_path, overlay=PATIENT) as (up, cloud):
        cloud.scripts.append(Script(text=TEXT, go=go))
        async with up.client() as first, up.client() as second:
            async with streaming(first) as answer:
                change = Change(0, 0.0, 0.0, ApprovalAction.REVOKE, "kim", "enough", target=1)
                with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
                    budget_store.add_change(db, change)
                meanwhile = await second.request("POST", NATIVE, CALL)
                assert (meanwhile.status, meanwhile.json["reason"]) == (403, "approval_revoked")
                go.set()
            assert said(answer) == TEXT


async def test_a_key_is_changed_by_a_restart_that_drops_nothing(tmp_path: Path) -> None:
    """The socket stays, as systemd keeps it: who comes meanwhile waits for the next process."""
    later = "sk-ant-stand-in-key-of-later-9"
    state, policy, file = tmp_path / "state", tmp_path / "policy.json", tmp_path / "key"
    go = asyncio.Event()
    async with Cloud() as cloud, Sim() as ollama:
        row = {"key_file": str(file)}
        given = {"extends": "default", **cloud_policy(cloud.url, provider=row), **PATIENT}
        policy.write_text(json.dumps(given))
        file.write_text(KEY)
        file.chmod(0o600)
        cloud.scripts.append(Script(text=TEXT, go=go))
        options = ("--policy", str(policy))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            async with Client(port) as first, Client(port) as second:
                async with activated(listener, ollama.port, state, *options) as before:
                    approve(state)
                    async with streaming(first) as answer:
                        cloud.key = later
                        file.write_text(later)
                        before.signal(signal.SIGTERM)
                        await before.talk("draining")
                        await second.ask("POST", NATIVE, CALL)
                        go.set()
                    assert said(answer) == TEXT
                    assert await before.ended() == 0
                async with activated(listener, ollama.port, state, *options):
                    assert said(await second.answer()) == "You said: hi"
        keys = [call.header("x-api-key") for call in cloud.calls]
        assert keys == [KEY, later]
