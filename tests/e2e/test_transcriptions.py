"""/v1/audio/transcriptions: a form is a call like any other."""

from __future__ import annotations

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import call
from support.harness import Running, running
from support.wire import Answer, Client

pytestmark = pytest.mark.flowing_time

ROUTE = "/v1/audio/transcriptions"
AUDIO = bytes(range(256)) * 400


def form(model: str, audio: bytes = AUDIO) -> bytes:
    return (
        b'--XyZ\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
        b'--XyZ\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n%b\r\n--XyZ--\r\n"
    ) % (model.encode(), audio)


TYPE = {"Content-Type": "multipart/form-data; boundary=XyZ"}


async def transcribe(up: Running, model: str, target: str = ROUTE) -> Answer:
    async with up.client() as client:
        return await client.request("POST", target, form(model), TYPE)


async def test_an_alias_is_admitted_tagged_and_answered_in_ollamas_bytes() -> None:
    async with running(SimConfig(tokens=4)) as up, Client(up.sim.port) as direct:
        answer = await transcribe(up, "planner")
        theirs = await direct.request("POST", ROUTE, form("qwen3:4b"), TYPE)
        assert (answer.status, answer.body) == (200, theirs.body)
        assert set(answer.json) == {"text"}
        assert answer["Content-Type"] == theirs["Content-Type"]
        assert (answer["X-LLM-Role"], answer["X-LLM-Model"]) == ("PLANNER", "qwen3:4b")
        sent = up.asked[0]
        assert sent.body_size == len(form("qwen3:4b"))
        assert sent.model == "qwen3:4b"
        record = (await up.calls.wait())[0]
        assert (record.endpoint.label, record.call.state) == (ROUTE, "completed")


async def test_it_stands_in_line() -> None:
    overlay = {"roles": {"PLANNER": {"max_concurrent": 1, "max_queue": 0}}}
    async with running(SimConfig(token_rate=5, tokens=500), overlay) as up, up.client() as client:
        await client.ask("POST", "/api/chat", call("/api/chat", "planner", stream=True))
        await client.head()
        answer = await transcribe(up, "planner")
        assert (answer.status, answer.json["error"]["reason"]) == (503, "queue_full")


async def test_a_fallback_answers_where_the_first_model_fails_midway() -> None:
    """Ollama ends such a transcription as if it were whole, with status 200 and no text."""
    async with running(SimConfig(tokens=4, max_loaded=2)) as up:
        up.sim.faults.add(Kind.RUNNER_DIES, model="qwen3:4b", after=2)
        answer = await transcribe(up, "planner")
        assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")
        assert answer.json["text"]
        up.sim.faults.add(Kind.RUNNER_DIES, model="gemma3:12b", after=2)
        answer = await transcribe(up, "gemma3:12b")
        assert (answer.status, answer.json["error"]["reason"]) == (502, "unterminated")


async def test_refusals_are_told_in_openais_words() -> None:
    async with running() as up, up.client() as client:
        answer = await transcribe(up, "planner", f"{ROUTE}?model=gpt-oss:20b")
        assert (answer.status, answer.json["error"]["reason"]) == (400, "ambiguous_model")
        answer = await client.request("POST", ROUTE, {"model": "planner"})
        assert (answer.status, answer.json["error"]["reason"]) == (400, "bad_form")
        assert not up.asked
        answer = await transcribe(up, "")
        assert (answer.status, answer.json["error"]["message"]) == (400, "model is required")
        answer = await transcribe(up, "nosuch:1b")
        assert (answer.status, answer["X-LLM-Error-Code"]) == (404, "E_MODEL_NOT_FOUND")


async def test_a_file_larger_than_the_limit_is_refused() -> None:
    async with running(max_body_bytes=1000) as up:
        answer = await transcribe(up, "planner")
        assert (answer.status, answer.json["error"]["reason"]) == (413, "body_limit")
