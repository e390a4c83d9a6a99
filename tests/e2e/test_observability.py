"""What operators see of the calls: metrics, statistics, records, log lines. Never the words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelsplit_proxy.metrics.calls import label_values
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.calls import ERROR_FIELDS, call
from support.harness import running

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import Metric

    from support.harness import Running
    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
QUICK = SimConfig(tokens=4, num_parallel=8, max_loaded=4)
SEED_HISTOGRAMS = (
    "job_e2e_latency_ms",
    "planner_latency_ms",
    "llm_latency_ms",
    "tool_latency_ms",
    "llm_queue_wait_ms",
)
# Fields of every line; those of ERROR_FIELDS come with failures.
LINE_FIELDS = {
    *("ts", "event", "request_id", "job_id", "client", "route", "dialect", "started_at"),
    *("llm_role", "llm_context", "llm_provider", "requested_model", "llm_model", "llm_attempt"),
    *("fallback_used", "fallback_cause", "route_reason", "status", "outcome", "state", "stream"),
    *("llm_queue_wait_ms", "upstream_wait_ms", "llm_latency_ms", "ttfb_ms"),
    *("call_e2e_latency_ms", "load_ms", "purpose"),
    *("prompt_tokens", "output_tokens", "finish_reason", "cost_usd"),
}


async def metrics(up: Running) -> dict[str, Metric]:
    async with up.admin() as admin:
        answer = await admin.request("GET", "/metrics")
    assert answer.status == 200
    assert answer["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.body.decode())
    return {family.name: family for family in families}


def value(family: Metric, suffix: str = "", **labels: str) -> float:
    """The one sample with at least these labels."""
    found = [
        sample.value
        for sample in family.samples
        if sample.name == family.name + suffix and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (suffix, labels, family.samples)
    return float(found[0])


async def test_every_name_is_there_before_the_first_call() -> None:
    async with running(QUICK) as up:
        found = await metrics(up)
        for name in SEED_HISTOGRAMS:
            assert found[name].type == "histogram"
            assert value(found[name], "_count") == 0
        assert found["event_loop_lag_p99"].type == "gauge"
        for role in ("PLANNER", "EXECUTOR", "HEAVY", "CLOUD", "CHAT"):
            count = value(
                found["modelsplit_request_duration_seconds"], "_count", role=role, outcome="ok"
            )
            assert count == 0


async def test_one_call_is_counted_once_under_each_name() -> None:
    async with running(QUICK) as up, up.client() as client:
        for model in ("planner", "planner", "executor"):
            assert (await client.request("POST", ROUTE, call(ROUTE, model))).status == 200
        found = await metrics(up)
        assert value(found["job_e2e_latency_ms"], "_count") == 0
        assert value(found["planner_latency_ms"], "_count") == 2
        assert value(found["llm_latency_ms"], "_count") == 3
        assert value(found["llm_queue_wait_ms"], "_count") == 3
        assert value(found["planner_latency_ms"], "_bucket", le="+Inf") == 2
        labels = {"role": "PLANNER", "provider": "LOCAL", "model": "qwen3:4b", "outcome": "ok"}
        assert value(found["modelsplit_requests"], "_total", **labels) == 2
        labels = {"role": "PLANNER", "model": "qwen3:4b", "direction": "output"}
        assert value(found["modelsplit_tokens"], "_total", **labels) == 8
        # One observation, two units.
        spent = sum(
            sample.value
            for sample in found["modelsplit_request_duration_seconds"].samples
            if sample.name.endswith("_sum") and sample.labels["role"] == "PLANNER"
        )
        assert value(found["planner_latency_ms"], "_sum") == pytest.approx(spent * 1000)


async def test_the_parts_of_a_call_add_up_to_the_whole_of_it() -> None:
    """Two calls at once onto a model with one slot: the second waits inside Ollama, not here."""
    one_slot = SimConfig(tokens=20, token_rate=50, num_parallel=1, max_loaded=4, load_ms=100)
    pinned = {"global": {"parallel": 2}, "models": {"qwen3:8b": {"parallel": 2}}}
    async with running(one_slot, pinned) as up:
        answers = await asyncio.gather(*(whole(up, "executor") for _ in range(3)))
        async with up.admin() as admin:
            records = [
                (await admin.request("GET", f"/requests/{answer['X-Request-Id']}")).json
                for answer in answers
            ]
            longest = max(records, key=lambda record: float(record["upstream_wait_ms"]))
            story = await admin.request("GET", f"/requests/{longest['request_id']}?format=text")
        found = await metrics(up)
    for answer, record in zip(answers, records, strict=True):
        [attempt] = record["attempts"]
        inside = record["upstream_wait_ms"]
        at_ollama = inside + sum(attempt[part] for part in ("load_ms", "prompt_ms", "eval_ms"))
        assert at_ollama == pytest.approx(record["llm_latency_ms"], rel=0.1, abs=40)
        whole_ms = record["llm_queue_wait_ms"] + at_ollama
        assert whole_ms == pytest.approx(record["call_e2e_latency_ms"], rel=0.1, abs=40)
        told = dict(part.split(";dur=") for part in answer["Server-Timing"].split(", "))
        assert float(told["upstream_wait"]) == pytest.approx(inside, abs=0.1)
    inside = sorted(record["upstream_wait_ms"] for record in records)
    assert inside[0] < 100
    assert inside[-1] > 300
    assert "waiting inside Ollama" in story.body.decode()
    waits = found["modelsplit_upstream_wait_seconds"]
    assert value(waits, "_count", role="EXECUTOR") == 3
    ours = value(found["modelsplit_queue_wait_seconds"], "_sum", role="EXECUTOR", outcome="ok")
    both = 1000 * (ours + value(waits, "_sum", role="EXECUTOR"))
    assert value(found["llm_queue_wait_ms"], "_sum") == pytest.approx(both)


async def whole(up: Running, model: str) -> Answer:
    async with up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, model))
    assert answer.status == 200
    return answer


async def test_an_outage_improves_no_latency() -> None:
    """Answers take a second; what is refused while Ollama is away takes none."""
    slow = SimConfig(tokens=10, token_rate=10, num_parallel=8, max_loaded=4)
    async with running(slow) as up, up.client() as client:
        assert (await client.request("POST", ROUTE, call(ROUTE, "planner"))).status == 200
        before = await metrics(up)
        await up.sim.stop()
        for role in ["PLANNER"] * 10 + ["NOBODY"] * 5:
            headers = {"X-LLM-Role": role}
            answer = await client.request("POST", ROUTE, call(ROUTE, "planner"), headers)
            assert answer.status in {400, 502, 503}
        after = await metrics(up)
    assert value(after["planner_latency_ms"], "_sum") > 1000
    for name in SEED_HISTOGRAMS:
        assert after[name].samples == before[name].samples
    durations = after["modelsplit_request_duration_seconds"]
    assert value(durations, "_count", role="PLANNER", outcome="ok") == 1
    assert value(durations, "_count", role="PLANNER", outcome="error") == 10


async def test_an_answer_without_durations_has_no_wait_that_is_known() -> None:
    route = "/v1/chat/completions"
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "planner"))
        assert "upstream_wait" not in answer["Server-Timing"]
        async with up.admin() as admin:
            record = (await admin.request("GET", f"/requests/{answer['X-Request-Id']}")).json
        assert record["upstream_wait_ms"] is None
        found = await metrics(up)
        assert value(found["modelsplit_upstream_wait_unknown"], "_total") == 1
        assert value(found["llm_queue_wait_ms"], "_count") == 1


async def test_the_slo_thresholds_are_bucket_edges() -> None:
    async with running(QUICK) as up:
        found = await metrics(up)
        edges = {
            name: {s.labels["le"] for s in found[name].samples if s.name.endswith("_bucket")}
            for name in SEED_HISTOGRAMS
        }
        assert {"5000", "70000"} <= {f"{float(edge):g}" for edge in edges["planner_latency_ms"]}
        assert "2000" in {f"{float(edge):g}" for edge in edges["llm_queue_wait_ms"]}


async def test_failures_are_counted_by_code_and_reason() -> None:
    async with running(QUICK) as up, up.client() as client:
        await client.request("POST", ROUTE, b"{")
        up.sim.faults.add(Kind.STATUS, status=500, path=ROUTE)
        await client.request("POST", ROUTE, call(ROUTE, "qwen3:4b"))
        found = await metrics(up)
        errors = found["modelsplit_errors"]
        assert value(errors, "_total", role="other", code="E_BAD_REQUEST", reason="bad_json") == 1
        assert (
            value(errors, "_total", role="CHAT", code="E_UPSTREAM_LOCAL", reason="runner_failed")
            == 1
        )


async def test_a_client_cannot_grow_the_series() -> None:
    async with running(QUICK) as up, up.client() as client:

        async def series() -> int:
            families = (await metrics(up)).values()
            ours = (f for f in families if f.name.startswith("modelsplit_"))
            return sum(len(family.samples) for family in ours)

        await client.request("POST", ROUTE, call(ROUTE, "invented-0"))
        before = await series()
        for number in range(1, 30):
            await client.request("POST", ROUTE, call(ROUTE, f"invented-{number}"))
        assert await series() == before


async def test_every_label_is_from_a_closed_set() -> None:
    closed = label_values()
    async with running(QUICK) as up, up.client() as client:
        for model in ("planner", "invented", "cloud", "\x00"):
            await client.request("POST", ROUTE, call(ROUTE, model))
        for family in (await metrics(up)).values():
            for sample in family.samples:
                for name in sample.labels.keys() & closed.keys():
                    assert sample.labels[name] in closed[name], sample


async def test_the_loop_lag_is_measured() -> None:
    async with running(QUICK) as up:
        up.app.lag.observe(0.125)
        found = await metrics(up)
        assert value(found["event_loop_lag_p99"]) == pytest.approx(125, rel=0.2)
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
        assert stats["event_loop_lag_p99_ms"] == pytest.approx(125, rel=0.2)


async def test_what_stands_now() -> None:
    slow = SimConfig(tokens=10**6, token_rate=100, num_parallel=8, max_loaded=4)
    async with running(slow) as up, up.client() as one, up.client() as two, up.client() as three:
        for client in (one, two, three):
            await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=True))
        await up.until(lambda: up.seats() == (2, 1))
        found = await metrics(up)
        assert value(found["modelsplit_in_flight"], role="PLANNER") == 2
        assert value(found["modelsplit_queue_depth"], role="PLANNER") == 1
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
        planner = stats["roles"]["PLANNER"]
        assert (planner["running"], planner["waiting"], planner["seats"]) == (2, 1, 2)
        assert (stats["global"]["running"], stats["global"]["seats"]) == (2, 6)
        for client in (one, two, three):
            client.reset()
        await up.until(lambda: up.seats() == (0, 0))


async def test_a_call_can_be_explained_afterwards() -> None:
    async with running(QUICK) as up, up.client() as client, up.admin() as admin:
        up.sim.faults.add(Kind.STATUS, status=500, model="qwen3:4b")
        sent = {"X-Request-Id": "call-1", "X-LLM-Job-Id": "job-1"}
        await client.request("POST", ROUTE, call(ROUTE, "planner"), sent)
        record = (await admin.request("GET", "/requests/call-1")).json
        assert record.keys() >= LINE_FIELDS
        assert record["job_id"] == "job-1"
        assert record["route_reason"] == "alias"
        assert (record["llm_attempt"], record["fallback_cause"]) == (2, "E_UPSTREAM_LOCAL")
        assert (record["llm_model"], record["outcome"]) == ("qwen3:8b", "ok")
        assert record["planner_latency_ms"] == record["call_e2e_latency_ms"]
        [latest] = (await admin.request("GET", "/requests?limit=1")).json
        attempts = record.pop("attempts")
        assert [(a["number"], a["model"], a["outcome"]) for a in attempts] == [
            (1, "qwen3:4b", "E_UPSTREAM_LOCAL"),
            (2, "qwen3:8b", "ok"),
        ]
        assert latest == record


async def test_one_line_per_finished_call() -> None:
    async with running(QUICK) as up, up.client() as client:
        good = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        bad = await client.request("POST", ROUTE, b"{")
        await client.request("GET", "/api/tags")
        lines = await up.logged()
        assert [line["request_id"] for line in lines] == [
            good["X-Request-Id"],
            bad["X-Request-Id"],
        ]
        assert lines[0].keys() >= LINE_FIELDS
        assert lines[0].keys() & {"error", "error_code"} == set()
        assert lines[0]["output_tokens"] == 4
        assert lines[0]["started_at"] <= lines[0]["ts"]
        assert lines[1].keys() >= LINE_FIELDS | ERROR_FIELDS | {"error"}
        assert (lines[1]["status"], lines[1]["error_code"]) == (400, "E_BAD_REQUEST")


SECRETS = {
    "prompt": "canary-prompt",
    "system": "canary-system",
    "answer": "canary-answer",
    "key": "canary-key",
    "query": "canary-query",
}


def calls_with_secrets() -> list[tuple[str, dict[str, Any]]]:
    told = {"role": "user", "content": SECRETS["prompt"]}
    return [
        (ROUTE, call(ROUTE, "planner", prompt=SECRETS["prompt"], system=SECRETS["system"])),
        ("/api/chat", call("/api/chat", "planner", stream=True, messages=[told])),
        ("/v1/chat/completions", call("/v1/chat/completions", "planner", messages=[told])),
        (ROUTE, {"prompt": SECRETS["prompt"], "model": 7}),
        (ROUTE, {"model": "nosuch:1b", "prompt": SECRETS["prompt"]}),
    ]


async def test_no_word_and_no_key_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = tuple(ModelSpec(spec.name, answer=SECRETS["answer"]) for spec in DEFAULT_MODELS)
    sim = SimConfig(models=models, num_parallel=8, max_loaded=4)
    async with running(sim, state=tmp_path) as up, up.client() as client, up.admin() as admin:
        keys = {"Authorization": f"Bearer {SECRETS['key']}", "x-api-key": SECRETS["key"]}
        for route, body in calls_with_secrets():
            answer = await client.request("POST", f"{route}?q={SECRETS['query']}", body, keys)
            assert answer.status in {200, 400, 404}
        broken = b'{"model":"planner","prompt":"' + SECRETS["prompt"].encode()
        assert (await client.request("POST", ROUTE, broken, keys)).status == 400
        up.sim.faults.add(Kind.CUT_FIN, after=2)
        body = call(ROUTE, "planner", stream=True, prompt=SECRETS["prompt"])
        await client.request("POST", ROUTE, body, keys)
        pages = [
            (await admin.request("GET", target)).body
            for target in ("/metrics", "/stats", "/requests", "/policy", "/healthz")
        ]
        assert len(orjson.loads(pages[2])) == 7
        lines = await up.logged()
        assert len(lines) == 7
    assert_clean(b"".join([*pages, orjson.dumps(lines), caplog.text.encode()]))
    assert_clean(*(file.read_bytes() for file in files_of(tmp_path)))


def files_of(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def assert_clean(*kept: bytes) -> None:
    assert any(b"qwen3:4b" in piece for piece in kept)
    for secret in SECRETS.values():
        assert not any(secret.encode() in piece for piece in kept), secret


# -- cost -----------------------------------------------------------------------------------------

PRICED = {
    "models": {
        "qwen3:4b": {"price": {"input": 1000.0, "output": 1000.0}},
        "qwen3:8b": {"price": {"input": 2000.0, "output": 2000.0}},
    }
}


async def test_an_answer_that_did_not_fit_was_paid_for_too() -> None:
    body = {**call("/api/chat", "planner"), "format": {"type": "object", "required": ["a"]}}
    async with running(overlay=PRICED) as up, up.client() as client, up.admin() as admin:
        up.sim.faults.add("bad_schema", model="qwen3:4b", times=1)
        await client.request("POST", "/api/chat", body)
        [record] = await up.calls.wait()
        stats = (await admin.request("GET", "/stats")).json
    spent = [
        (attempt.usage.prompt_tokens or 0) + (attempt.usage.output_tokens or 0)
        for attempt in record.attempts
    ]
    assert len(spent) == 2
    assert min(spent) > 0
    assert record.cost_usd == pytest.approx((spent[0] * 1000 + spent[1] * 2000) / 1_000_000)
    assert stats["cost"]["usd"] == pytest.approx(record.cost_usd)
    assert [part["model"] for part in stats["cost"]["parts"]] == ["qwen3:4b", "qwen3:8b"]


async def test_an_attempt_that_failed_has_no_known_cost_and_is_counted_as_such() -> None:
    async with running(overlay=PRICED) as up, up.client() as client, up.admin() as admin:
        up.sim.faults.add(Kind.STATUS, status=500, body="died", model="qwen3:4b", times=1)
        await client.request("POST", "/api/generate", call("/api/generate", "planner"))
        [record] = await up.calls.wait()
        metrics = (await admin.request("GET", "/metrics")).body.decode()
    assert record.cost_usd is None
    assert 'modelsplit_cost_unknown_total{model="qwen3:4b",role="PLANNER"} 1.0' in metrics
    assert 'modelsplit_cost_unknown_total{model="qwen3:8b",role="PLANNER"} 0.0' in metrics
