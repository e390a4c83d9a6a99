"""Traces of calls over real sockets: what a collector gets, and that a call never pays for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.calls import call
from support.collector import Collector, impatient_exporters, patient_exporters
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.harness import Running

ROUTE = "/api/generate"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
SECRETS = ("canary-prompt", "canary-answer", "canary-key", "canary-query")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with patient_exporters(monkeypatch):
        yield


def endpoint(collector: Collector) -> str:
    return f"{collector.url}/v1/traces"


async def ask(up: Running, model: str, headers: dict[str, str] | None = None) -> int:
    async with up.client() as client:
        return (await client.request("POST", ROUTE, call(ROUTE, model), headers)).status


async def test_a_call_and_its_two_attempts_are_in_the_clients_trace() -> None:
    with Collector() as collector:
        async with running(SimConfig(tokens=2), otlp_endpoint=endpoint(collector)) as up:
            up.sim.faults.add(Kind.STATUS, status=500, model="qwen3:4b")
            sent = {"traceparent": PARENT, "tracestate": "vendor=1", "X-LLM-Job-Id": "job-1"}
            assert await ask(up, "planner", sent) == 200
            upstream = [entry.headers for entry in up.asked]
        spans = {span["name"]: span for span in collector.spans()}
    assert set(spans) == {
        "text_completion planner",
        "text_completion qwen3:4b",
        "text_completion qwen3:8b",
    }
    assert {span["trace_id"] for span in spans.values()} == {TRACE}
    whole, second = spans["text_completion planner"], spans["text_completion qwen3:8b"]
    assert whole["parent"] == "b7ad6b7169203331"
    assert whole["attributes"]["modelsplit.job_id"] == "job-1"
    assert second["attributes"]["gen_ai.usage.output_tokens"] == 2
    assert spans["text_completion qwen3:4b"]["attributes"]["error.type"] == "E_UPSTREAM_LOCAL"
    # Passed on as it came, as without traces.
    assert [dict(headers)["traceparent"] for headers in upstream] == [PARENT, PARENT]


async def test_what_is_refused_and_what_nobody_traces_has_a_span_too() -> None:
    with Collector() as collector:
        async with running(SimConfig(tokens=2), otlp_endpoint=endpoint(collector)) as up:
            assert await ask(up, "planner", {"X-LLM-Role": "nobody"}) == 400
            assert await ask(up, "planner") == 200
        spans = collector.spans()
    codes = [span["attributes"].get("error.type") for span in spans if not span["parent"]]
    assert codes == ["E_BAD_REQUEST", None]
    assert len({span["trace_id"] for span in spans}) == 2


async def test_no_word_and_no_key_is_in_a_span() -> None:
    models = tuple(ModelSpec(spec.name, answer="canary-answer") for spec in DEFAULT_MODELS)
    with Collector() as collector:
        sim = SimConfig(models=models)
        async with running(sim, otlp_endpoint=endpoint(collector)) as up, up.client() as client:
            keys = {"Authorization": "Bearer canary-key", "traceparent": PARENT}
            for body in (call(ROUTE, "planner", prompt="canary-prompt"), {"prompt": SECRETS[0]}):
                await client.request("POST", f"{ROUTE}?q=canary-query", body, keys)
            up.sim.faults.add(Kind.CUT_FIN, after=1)
            body = call(ROUTE, "planner", stream=True, prompt="canary-prompt")
            await client.request("POST", ROUTE, body, keys)
        bodies = b"".join(request.body for request in collector.requests)
    assert b"qwen3:4b" in bodies
    assert not [secret for secret in SECRETS if secret.encode() in bodies]


@pytest.mark.parametrize("collector", [{"mute": True}, {"status": 503}, None])
async def test_a_collector_in_trouble_hurts_no_call(
    collector: dict[str, Any] | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient_exporters(monkeypatch)
    with Collector(**(collector or {})) as known:
        url = endpoint(known) if collector is not None else "http://127.0.0.1:1/v1/traces"
        async with running(SimConfig(tokens=2), otlp_endpoint=url) as up:
            statuses = await asyncio.gather(*(ask(up, "planner") for _ in range(3)))
            assert statuses == [200] * 3
            assert [len(record.attempts) for record in await up.calls.wait(3)] == [1] * 3
            assert up.app.ended.failures["traces"] == 0
    assert "failed; further" not in caplog.text


async def test_who_wants_no_traces_keeps_no_trace_of_a_client(tmp_path: Path) -> None:
    async with running(SimConfig(tokens=2), state=tmp_path) as up:
        assert await ask(up, "planner", {"traceparent": PARENT}) == 200
        [record] = await up.calls.wait()
    assert record.trace_context is None
