"""What has Ollama reach out to its own cloud, beside a model of that: nothing leaves unasked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.limits import egress_store
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from support.clouds import approve
from support.harness import Overlay, in_front_of, running
from support.scripted import response, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from modelsplit_proxy.protocol.endpoint import Endpoint

WEB = {
    "/api/experimental/web_search": "web_search:cloud",
    "/api/experimental/web_fetch": "web_fetch:cloud",
}
CLOUD_ROLE = {"X-LLM-Role": "CLOUD"}
PRICED: dict[str, Any] = {
    "models": {name: {"price": {"input": 0, "output": 0}} for name in WEB.values()}
}
FOUND = b'{"results":[{"title":"a","url":"https://a.example","content":"b"}]}'
MESSAGES = [{"role": "user", "content": "hi"}]
SEARCHING: dict[str, dict[str, Any]] = {
    "/v1/messages": {
        "model": "qwen3:4b",
        "max_tokens": 10,
        "messages": MESSAGES,
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    },
    "/v1/responses": {"model": "executor", "input": "hi", "tools": [{"type": "web_search"}]},
}


FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.label)
@pytest.mark.parametrize("role", ["", "PLANNER", "CLOUD"])
async def test_nothing_that_is_for_a_cloud_leaves_unasked(row: Endpoint, role: str) -> None:
    """By any route: not of a role that may not, and not without an approval and a price."""
    model, headers = "gpt-oss:120b-cloud", {"X-LLM-Role": role} if role else {}
    body: Any = {"model": model, "prompt": "hi", "messages": MESSAGES, "input": "hi"}
    if row.label == "/v1/audio/transcriptions":
        body = FORM % model.encode()
        headers["Content-Type"] = "multipart/form-data; boundary=b"
    async with running(curious=False) as up, up.client() as client:
        answer = await client.request("POST", row.label, body, headers)
        code = "E_BUDGET_NOT_APPROVED" if role == "CLOUD" else "E_FORBIDDEN"
        assert (answer.status, answer["X-LLM-Error-Code"]) == (403, code)
        assert up.asked == []


def left(state: Path) -> list[egress_store.Left]:
    with closing(sqlite3.connect(state / FILE_NAME)) as db:
        return egress_store.read(db)


@pytest.mark.parametrize("path", WEB)
async def test_a_web_route_is_a_call_of_the_cloud(tmp_path: Path, path: str) -> None:
    body = {"query": "what only we know"}
    async with (
        scripted(response(FOUND)) as ollama,
        in_front_of(ollama.port, PRICED, state=tmp_path) as up,
        up.client() as client,
    ):
        plain = await client.request("POST", path, body)
        assert (plain.status, plain.json["reason"]) == (403, "egress_denied")
        assert "send X-LLM-Role: CLOUD" in plain.json["error"]
        early = await client.request("POST", path, body, CLOUD_ROLE)
        assert (early.status, early.json["reason"]) == (403, "no_approval")
        assert ollama.asked == []
        approve(tmp_path)
        found = await client.request("POST", path, body, CLOUD_ROLE)
        assert (found.status, found.body) == (200, FOUND)
        assert (found["X-LLM-Provider"], found["X-LLM-Model"]) == ("CLOUD", WEB[path])
        assert found["RateLimit"].startswith('"cloud";r=8')
        [sent] = ollama.asked
        assert sent.startswith(b"POST %b HTTP/1.1\r\n" % path.encode())
    [row] = left(tmp_path)
    assert (row.leaving.provider, row.leaving.model) == ("ollama", WEB[path])
    assert (row.leaving.role, row.leaving.approval, row.status) == ("CLOUD", 1, 200)
    assert row.leaving.size == len(b'{"query":"what only we know"}')


async def test_a_web_route_has_no_price_until_somebody_says_it(tmp_path: Path) -> None:
    async with running(state=tmp_path) as up, up.client() as client:
        approve(tmp_path)
        answer = await client.request("POST", next(iter(WEB)), {"query": "x"}, CLOUD_ROLE)
        assert (answer.status, answer.json["reason"]) == (403, "price_unknown")
        assert 'models["web_search:cloud"].price' in answer.json["error"]
        assert up.asked == []


async def test_a_claim_lets_plain_clients_search(tmp_path: Path) -> None:
    overlay = PRICED | {"roles": {"CLOUD": {"claims": [*WEB.values()]}}}
    async with (
        scripted(response(FOUND)) as ollama,
        in_front_of(ollama.port, overlay, state=tmp_path) as up,
        up.client() as client,
    ):
        approve(tmp_path)
        for path in WEB:
            assert (await client.request("POST", path, {"query": "x"})).status == 200
        assert len(ollama.asked) == 2


@pytest.mark.parametrize("role", ["EXECUTOR", "HEAVY"])
async def test_no_model_stands_in_for_a_search(tmp_path: Path, role: str) -> None:
    overlay = PRICED | {"cloud": {"allow_from": {"roles": [role]}}}
    failed = response(b'{"error":"no"}', status="500 Internal Server Error")
    async with (
        scripted(failed) as ollama,
        in_front_of(ollama.port, overlay, state=tmp_path) as up,
        up.client() as client,
    ):
        approve(tmp_path)
        path = next(iter(WEB))
        answer = await client.request("POST", path, {"query": "x"}, {"X-LLM-Role": role})
        assert (answer.status, answer["X-LLM-Attempt"]) == (500, "1")
        assert len(ollama.asked) == 1


async def test_what_is_taken_out_is_taken_out_of_searches_too(tmp_path: Path) -> None:
    redact = [{"name": "phone", "pattern": r"\+49[0-9 ]+", "replacement": "[phone]"}]
    overlay = PRICED | {"cloud": {"redact": redact}}
    async with running(overlay=overlay, state=tmp_path) as up, up.client() as client:
        approve(tmp_path)
        for path in WEB:
            await client.request("POST", path, {"query": "who is +49 30 123456"}, CLOUD_ROLE)
        assert [call.body for call in up.sim.calls if "experimental" in call.path] == [
            b'{"query":"who is [phone]"}'
        ] * 2
    assert [row.leaving.redacted for row in left(tmp_path)] == [1, 1]


@pytest.mark.parametrize("depth", [300, 900, 2000])
async def test_what_nests_too_deep_to_be_looked_through_stays_here(
    tmp_path: Path, depth: int
) -> None:
    redact = [{"name": "phone", "pattern": r"\+49[0-9 ]+", "replacement": "[phone]"}]
    overlay = PRICED | {"cloud": {"redact": redact}}
    body = b'{"query":' * depth + b'"+49 30 123456"' + b"}" * depth
    async with running(overlay=overlay, state=tmp_path) as up, up.client() as client:
        approve(tmp_path)
        answer = await client.request("POST", next(iter(WEB)), body, CLOUD_ROLE)
        assert (answer.status, answer.json["reason"]) == (400, "untranslatable")
        assert up.asked == []


@pytest.mark.parametrize("route", SEARCHING)
async def test_a_model_of_this_machine_is_not_let_search(route: str) -> None:
    async with running() as up, up.client() as client:
        answer = await client.request("POST", route, SEARCHING[route])
        error = answer.json["error"]
        assert (answer.status, error["reason"]) == (403, "egress_denied")
        assert "leave the tool out, or send X-LLM-Role: CLOUD" in error["message"]
        assert up.asked == []
        # Another tool of that name is the client's to run.
        tool = {"type": "function", "name": "web_search", "input_schema": {}, "parameters": {}}
        body = SEARCHING[route] | {"tools": [tool]}
        assert (await client.request("POST", route, body)).status == 200


@pytest.mark.parametrize(
    "tool",
    [
        b'{"type":"web_search","type":null}',
        b'{"type":"web_search","name":"x","input_schema":%b}'
        % (b'{"a":' * 9000 + b"1" + b"}" * 9000),
    ],
    ids=["a null behind it", "nested deeper than Python decodes"],
)
@pytest.mark.parametrize("route", SEARCHING)
async def test_no_spelling_of_a_tool_has_ollama_search(route: str, tool: bytes) -> None:
    """Go reads both as a search: a null changes no text, and it nests ten thousand deep."""
    body = json.dumps(SEARCHING[route] | {"tools": []}).encode()
    body = body.replace(b'"tools": []', b'"tools":[%b]' % tool)
    async with running() as up, up.client() as client:
        answer = await client.request("POST", route, body)
        assert (answer.status, answer.json["error"]["reason"]) == (403, "egress_denied")
        assert up.asked == []


async def test_as_a_call_of_the_cloud_it_is_asked_for_like_one(tmp_path: Path) -> None:
    overlay = {"models": {"qwen3:4b": {"price": {"input": 0, "output": 0}}}}
    async with running(overlay=overlay, state=tmp_path) as up, up.client() as client:
        body = SEARCHING["/v1/messages"]
        answer = await client.request("POST", "/v1/messages", body, CLOUD_ROLE)
        assert (answer.status, answer.json["error"]["reason"]) == (403, "no_approval")
        approve(tmp_path)
        answer = await client.request("POST", "/v1/messages", body, CLOUD_ROLE)
        assert (answer.status, answer["X-LLM-Provider"]) == (200, "CLOUD")
    [row] = left(tmp_path)
    assert (row.leaving.model, row.status) == ("qwen3:4b", 200)


async def test_a_name_of_this_machine_may_stand_for_a_model_elsewhere() -> None:
    body = {"model": "my-coder", "prompt": "hi", "stream": False}
    async with running(curious=False) as up, up.client() as client:
        up.app.installed.elsewhere = frozenset({"my-coder"})
        answer = await client.request("POST", "/api/generate", body)
        assert (answer.status, answer.json["reason"]) == (403, "egress_denied")
        assert "my-coder is stored here but runs elsewhere" in answer.json["error"]
        as_cloud = await client.request("POST", "/api/generate", body, CLOUD_ROLE)
        assert as_cloud.json["reason"] == "price_unknown"
        assert up.asked == []


async def test_it_stands_in_for_nobody_either() -> None:
    body = {"model": "planner", "prompt": "hi", "stream": False}
    async with running(curious=False) as up, up.client() as client:
        up.app.installed.elsewhere = frozenset({"qwen3:8b"})
        await up.sim.stop()
        answer = await client.request("POST", "/api/generate", body)
        assert answer["X-LLM-Model"] == "qwen3:4b"
        [record] = await up.calls.wait(1)
        assert record.routing is not None
        assert [one.model for one in record.routing.candidates] == ["qwen3:4b"]


async def test_what_became_one_while_its_call_stood_in_line_is_not_called() -> None:
    body = {"model": "gemma3:12b", "prompt": "hi", "stream": True}
    headers = {"X-LLM-Role": "HEAVY", "X-LLM-No-Fallback": "1"}
    endless = SimConfig(tokens=10**6, token_rate=200)
    async with running(endless, curious=False) as up, up.client() as running_one:
        await running_one.ask("POST", "/api/generate", body, headers)
        assert (await running_one.head()).status == 200
        async with up.client() as waiting:
            await waiting.ask("POST", "/api/generate", body, headers)
            await up.until(lambda: up.seats() == (1, 1))
            up.app.installed.elsewhere = frozenset({"gemma3:12b"})
            running_one.reset()
            answer = await waiting.answer()
        assert (answer.status, answer.json["reason"]) == (403, "egress_denied")
        assert len(up.asked) == 1


class Stub:
    """An Ollama that stores a model of its cloud under any name that it is told to make.

    ``making``: a change has come. ``finish``: it may end. ``called``: paths of calls that came.
    ``lists``: it tells what it has.
    """

    def __init__(self) -> None:
        self.port = 0
        self.making = asyncio.Event()
        self.finish = asyncio.Event()
        self.called: list[str] = []
        self.lists = True
        self.server: asyncio.Server | None = None
        self._open: list[asyncio.StreamWriter] = []
        self._stored: list[dict[str, str]] = []

    def leave(self) -> None:
        """Nobody is there any more."""
        assert self.server is not None
        self.server.close()
        for writer in self._open:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(0 if length is None else int(length[1]))
                writer.write(response(await self._answer(head.split()[1].decode(), body)))
                await writer.drain()
        writer.close()

    async def _answer(self, path: str, body: bytes) -> bytes:
        if path == "/api/tags":
            return json.dumps({"models": self._stored} if self.lists else {}).encode()
        if path in MAKING:
            sent = json.loads(body)
            name = f"{sent.get('destination') or sent['model']}:latest"
            self._stored.append({"name": name, "digest": name, "remote_host": "https://ollama.com"})
            self.making.set()
            await self.finish.wait()
            return b'{"status":"success"}\n'
        if path == "/api/chat":
            self.called.append(path)
            return b'{"message":{"role":"assistant","content":"hi"},"done":true}\n'
        return b'{"version":"0.30.0","models":[]}'


MAKING: dict[str, dict[str, Any]] = {
    "/api/create": {"model": "mine", "from": "gpt-oss:120b-cloud"},
    "/api/copy": {"source": "gpt-oss:120b-cloud", "destination": "mine"},
    "/api/pull": {"model": "mine"},
}


@contextlib.asynccontextmanager
async def stub() -> AsyncIterator[Stub]:
    ollama = Stub()
    async with await asyncio.start_server(ollama.serve, "127.0.0.1", 0) as server:
        ollama.port = server.sockets[0].getsockname()[1]
        ollama.server = server
        try:
            yield ollama
        finally:
            ollama.finish.set()


@pytest.mark.parametrize("path", MAKING)
async def test_what_is_being_made_or_was_just_made_is_called_by_what_it_is(path: str) -> None:
    """The list that was read before says nothing of it: Ollama is asked before the call goes."""
    body = {"model": "Mine:latest", "messages": MESSAGES, "stream": False}
    async with (
        stub() as ollama,
        in_front_of(ollama.port) as up,
        up.client() as client,
        up.client() as other,
    ):
        await up.until(lambda: up.app.installed.listed is not None)
        await client.ask("POST", path, MAKING[path])
        await ollama.making.wait()
        while_made = await other.request("POST", "/api/chat", body)
        ollama.finish.set()
        assert (await client.answer()).status == 200
        afterwards = await other.request("POST", "/api/chat", body)
        for answer in (while_made, afterwards):
            assert (answer.status, answer.json["reason"]) == (403, "egress_denied")
        assert ollama.called == []
        # Of another model nothing has to be asked.
        assert (await other.request("POST", "/api/chat", body | {"model": "b"})).status == 200
        await up.until(lambda: not up.app.installed.unsure)
        answer = await other.request("POST", "/api/chat", body)
        assert (answer.status, answer.json["reason"]) == (403, "egress_denied")
        assert ollama.called == ["/api/chat"]


async def test_what_was_just_made_is_not_called_where_ollama_does_not_tell_what_it_is() -> None:
    body = {"model": "mine", "messages": MESSAGES, "stream": False}
    async with stub() as ollama, in_front_of(ollama.port) as up, up.client() as client:
        await up.until(lambda: up.app.installed.listed is not None)
        ollama.finish.set()
        ollama.lists = False
        assert (await client.request("POST", "/api/pull", MAKING["/api/pull"])).status == 200
        answer = await client.request("POST", "/api/chat", body)
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UPSTREAM_LOCAL")
        assert answer.json["reason"] == "no_answer"
        assert answer.json["error"].startswith("mine was just made or is being made, and Ollama ")
        assert answer.json["error"].endswith("; ask again once it answers")
        assert ollama.called == []
        # What nobody made anew is called.
        assert (await client.request("POST", "/api/chat", body | {"model": "b"})).status == 200


async def test_what_was_just_made_is_told_that_nobody_is_there_where_nobody_is() -> None:
    body = {"model": "mine", "messages": MESSAGES, "stream": False}
    overlay: Overlay = {"global": {"restart_wait_ms": 0}}
    async with stub() as ollama, in_front_of(ollama.port, overlay) as up, up.client() as client:
        await up.until(lambda: up.app.installed.listed is not None)
        ollama.finish.set()
        assert (await client.request("POST", "/api/copy", MAKING["/api/copy"])).status == 200
        ollama.leave()
        await up.until(lambda: up.app.probe.up is False)
        answer = await client.request("POST", "/api/chat", body)
        assert (answer.status, answer.json["reason"]) == (502, "connect_refused")
