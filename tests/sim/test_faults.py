"""Each fault does on the wire what its name says, and only to whom it is set."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelsplit_sim import CallState, Kind, Sim, SimConfig
from support.fake_time import passes

from .client import Client, ask, connect, post

pytestmark = pytest.mark.flowing_time

MODEL = "qwen3:4b"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
DIED = "an error was encountered while running the model: unexpected EOF"


def test_every_kind_is_tested() -> None:
    source = Path(__file__).read_text("utf-8")
    missing = [kind.name for kind in Kind if f"Kind.{kind.name}" not in source]
    assert missing == []


async def generate(sim: Sim, **fields: Any) -> Any:
    options = {"num_predict": 8}
    return await post(sim, "/api/generate", model=MODEL, prompt="hi", options=options, **fields)


async def test_a_status_strikes_as_often_as_told_and_only_its_model() -> None:
    async with Sim() as sim:
        fault = sim.faults.add(Kind.STATUS, status=503, model=MODEL, times=2)
        other = await post(sim, "/api/generate", model="qwen3:8b", prompt="x", stream=False)
        statuses = [(await generate(sim)).status for _ in range(3)]
        assert (other.status, statuses, fault.hits) == (200, [503, 503, 200], 2)
        assert [call.fault for call in sim.calls] == [None, "status", "status", None]


async def test_a_fault_within_a_generation_passes_by_other_requests() -> None:
    async with Sim() as sim:
        fault = sim.faults.add(Kind.CUT_CLEAN, times=1)
        assert (await ask(sim, "GET", "/api/tags")).status == 200
        assert (await post(sim, "/api/show", model=MODEL)).status == 200
        assert fault.hits == 0


async def test_a_refusal_is_a_finished_call() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.STATUS, status=503)
        await generate(sim)
        assert sim.calls[0].state is CallState.FINISHED


async def test_a_status_with_a_body_on_one_path() -> None:
    async with Sim() as sim:
        sim.faults.add("status", status=500, body='{"error":"boom"}', path="/api/chat")
        assert (await generate(sim)).status == 200
        answer = await post(sim, "/api/chat", model=MODEL, **CHAT)
        assert (answer.status, answer.json) == (500, {"error": "boom"})


async def test_reset_before_headers() -> None:
    async with Sim() as sim, connect(sim) as client:
        sim.faults.add(Kind.RESET)
        client.send("GET", "/api/tags")
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_close_before_headers() -> None:
    async with Sim() as sim, connect(sim) as client:
        sim.faults.add(Kind.CLOSE)
        client.send("GET", "/api/tags")
        assert await client.reader.read() == b""
        assert sim.calls[0].state is CallState.ABORTED


async def test_hang_holds_until_the_client_leaves() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.HANG)
        client = await Client.to(sim)
        client.send("GET", "/api/tags")
        await sim.wait_for(lambda s: bool(s.calls) and s.calls[0].fault == "hang")
        client.close()
        await sim.wait_for(lambda s: s.calls[0].state is CallState.ABORTED)
        assert sim.calls[0].left_at is not None


async def test_garbage() -> None:
    async with Sim() as sim, connect(sim) as client:
        sim.faults.add(Kind.GARBAGE)
        client.send("GET", "/api/tags")
        assert await client.reader.read() == b"HTTP/9.9 banana\r\n\r\n"


async def test_a_slow_load_takes_longer_and_changes_nothing_else() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.SLOW_LOAD, seconds=0.1)
        answer = await generate(sim, stream=False)
        assert answer.json["load_duration"] >= 90_000_000


async def _cut(sim: Sim, kind: Kind, **fields: Any) -> Any:
    sim.faults.add(kind, after=3)
    answer = await generate(sim, **fields)
    await sim.wait_for(lambda s: s.active == 0 and s.calls[0].state is CallState.ABORTED)
    return answer


async def test_cut_clean_ends_well_framed_without_done() -> None:
    async with Sim() as sim:
        answer = await _cut(sim, Kind.CUT_CLEAN)
        assert answer.clean_end
        assert [line["done"] for line in answer.lines] == [False] * 3


@pytest.mark.parametrize("kind", [Kind.CUT_FIN, Kind.CUT_RST])
async def test_cuts_end_without_a_final_chunk(kind: Kind) -> None:
    async with Sim() as sim:
        answer = await _cut(sim, kind)
        assert not answer.clean_end
        assert len(answer.lines) == 3


@pytest.mark.parametrize("kind", [Kind.CUT_CLEAN, Kind.CUT_FIN, Kind.CUT_RST])
async def test_cut_whole_answers_stop_in_the_middle(kind: Kind) -> None:
    async with Sim() as sim:
        answer = await _cut(sim, kind, stream=False)
        assert answer.clean_end is (kind is Kind.CUT_CLEAN)
        assert answer.body.startswith(b'{"model"')
        assert not answer.body.endswith(b"}")


@pytest.mark.fake_time
async def test_stall_falls_silent_after_its_tokens() -> None:
    async with Sim(SimConfig(token_rate=0)) as sim:
        sim.faults.add(Kind.STALL, after=2)
        client = await Client.to(sim)
        client.send("POST", "/api/generate", {"model": MODEL, "prompt": "x"})
        await client.head()
        await client.chunk()
        await client.chunk()
        silent = asyncio.get_running_loop().create_task(client.chunk())
        await passes(3600)
        assert not silent.done()
        assert (sim.active, sim.calls[0].tokens) == (1, 2)
        silent.cancel()
        client.close()
        await sim.wait_for(lambda s: s.active == 0)


async def test_an_error_line_comes_with_status_200_and_a_clean_end() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.ERROR_LINE, after=2)
        answer = await generate(sim)
        assert (answer.status, answer.clean_end) == (200, True)
        assert answer.lines[-1] == {"error": DIED}
        assert answer.chunks[-1] == b'{"error":"' + DIED.encode() + b'"}\n'


async def test_an_error_line_before_anything_was_sent_is_a_500() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.ERROR_LINE, after=2)
        answer = await generate(sim, stream=False)
        assert (answer.status, answer.json) == (500, {"error": DIED})


async def test_an_error_line_in_the_other_dialects() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.ERROR_LINE, after=2)
        openai = await post(sim, "/v1/chat/completions", model=MODEL, stream=True, **CHAT)
        last = openai.chunks[-1]
        assert openai.clean_end
        assert b'"model":""' in last
        assert b'"delta":{"content":""},"finish_reason":null' in last
        assert b"[DONE]" not in openai.body
        anthropic = await post(sim, "/v1/messages", model=MODEL, stream=True, **CHAT)
        assert anthropic.clean_end
        assert b"message_start" in anthropic.body
        assert b"message_stop" not in anthropic.body
        assert b"message_delta" not in anthropic.body


async def test_a_dying_runner_takes_all_its_streams_and_is_reloaded() -> None:
    async with Sim(SimConfig(num_parallel=2, token_rate=200)) as sim, connect(sim) as other:
        other.send("POST", "/api/generate", {"model": MODEL, "prompt": "x"})
        await sim.wait_for(lambda s: s.active == 1 and s.calls[0].tokens > 0)
        sim.faults.add(Kind.RUNNER_DIES, after=1, times=1)
        struck = await generate(sim)
        assert struck.lines[-1] == {"error": DIED}
        assert (await other.answer()).lines[-1] == {"error": DIED}
        assert sim.loaded == [MODEL]
        assert (await generate(sim)).lines[-1]["done"] is True
        assert sim.counts.loads == 2


async def test_repeat_cutoff_looks_like_success_without_its_end() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.REPEAT_CUTOFF)
        streamed = await generate(sim)
        assert streamed.clean_end
        assert {line["done"] for line in streamed.lines} == {False}
        assert len({line["response"] for line in streamed.lines}) == 1
        whole = await generate(sim, stream=False)
        assert whole.status == 200
        assert list(whole.json) == ["model", "created_at", "response", "done"]
        assert whole.json["done"] is False


async def test_bad_schema_answers_something_else() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.BAD_SCHEMA, text='{"no": 1}')
        answer = await generate(sim, stream=False, format={"type": "object", "properties": {}})
        assert answer.json["response"] == '{"no": 1}'
        assert answer.json["done"] is True


async def test_extra_bytes_follow_the_response() -> None:
    async with Sim() as sim, connect(sim) as client:
        sim.faults.add(Kind.EXTRA_BYTES, text="HTTP/1.1 200 OK\r\n", times=1)
        assert (await client.ask("GET", "/api/version")).status == 200
        assert await client.reader.readexactly(17) == b"HTTP/1.1 200 OK\r\n"


async def test_many_headers_and_a_big_header() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.MANY_HEADERS, times=1)
        sim.faults.add(Kind.BIG_HEADER, count=1_000_000)
        assert len((await ask(sim, "GET", "/api/version")).headers) == 20_003
        big = await ask(sim, "GET", "/api/version")
        assert len(big.header("X-Filler") or "") == 1_000_000


@pytest.mark.parametrize("stream", [True, False])
async def test_close_delimited(stream: bool) -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.CLOSE_DELIMITED)
        answer = await generate(sim, stream=stream)
        assert answer.header("Content-Length") is None
        assert answer.header("Transfer-Encoding") is None
        assert answer.lines[-1]["done"] is True


@pytest.mark.parametrize("stream", [True, False])
async def test_lengths_that_lie(stream: bool) -> None:
    async with Sim() as sim:
        fault = sim.faults.add(Kind.LENGTH_SHORT)
        async with connect(sim) as client:
            body = {"model": MODEL, "prompt": "x", "stream": stream}
            client.send("POST", "/api/generate", body)
            short = await client.answer()
            assert short.clean_end
            assert await client.reader.read(1) != b""
        sim.faults.remove(fault)
        sim.faults.add(Kind.LENGTH_LONG)
        long = await generate(sim, stream=stream)
        assert not long.clean_end
        assert long.lines[-1]["done"] is True


async def test_drip() -> None:
    async with Sim() as sim:
        sim.faults.add(Kind.DRIP, seconds=0.0005)
        async with connect(sim) as client:
            client.send("GET", "/api/version")
            assert await client.reader.read(8192) != b""
            answer = await client.reader.readuntil(b"}")
            assert answer.endswith(b'{"version":"0.33.0-rc2"}')
