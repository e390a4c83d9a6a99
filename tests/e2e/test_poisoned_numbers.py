"""Numbers that are none, from an upstream: unknown, never counted, and nobody else's trouble.

After each poisoned answer comes a good one: its record lands, and so does the poisoned one's,
with nulls; budgets are charged what was reserved, and are never given anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_policy.budgets import dollars
from modelsplit_policy.quantity import LIMIT
from support.calls import call
from support.harness import in_front_of
from support.scripted import response, scripted

if TYPE_CHECKING:
    from support.harness import Running

pytestmark = pytest.mark.flowing_time

MODEL = "m:1b"
MONEY = {
    "models": {MODEL: {"price": {"input": 1.0, "output": 2.0}, "max_output_tokens": 1000}},
    "budgets": [{"name": "money", "models": [MODEL], "usd": 100.0, "calls": 50, "window": "1h"}],
}
POISONS = {
    "64 bits": "18446744073709551615",
    "65 bits": "18446744073709551616",
    "63 bits": "9223372036854775807",
    "the limit": str(LIMIT),
    "large": "1e22",
    "negative": "-5",
    "negative and large": "-18446744073709551615",
    "true": "true",
    "text": '"7"',
    "list": "[7]",
    "object": '{"n":7}',
}
OLLAMA = (
    '{"model":"m:1b",TEXT,"done":true,"done_reason":"stop","prompt_eval_count":N,"eval_count":N,'
    '"load_duration":N,"prompt_eval_duration":N,"eval_duration":N,"total_duration":N}'
)
USAGE = '"usage":{"prompt_tokens":N,"completion_tokens":N,"total_tokens":N}'
TOKENS = '"usage":{"input_tokens":N,"output_tokens":N}'
WHOLE = {
    "/api/generate": OLLAMA.replace("TEXT", '"response":"x"'),
    "/api/chat": OLLAMA.replace("TEXT", '"message":{"role":"assistant","content":"x"}'),
    "/v1/chat/completions": (
        '{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},'
        f'"finish_reason":"stop"}}],{USAGE}}}'
    ),
    "/v1/completions": f'{{"choices":[{{"text":"x","finish_reason":"stop"}}],{USAGE}}}',
    "/v1/responses": f'{{"object":"response","status":"completed","output":[],{TOKENS}}}',
    "/v1/messages": (
        '{"type":"message","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn",'
        f"{TOKENS}}}"
    ),
}
STREAMED = {
    "/api/generate": f"{WHOLE['/api/generate']}\n",
    "/api/chat": f"{WHOLE['/api/chat']}\n",
    "/v1/chat/completions": (
        'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        f'data: {{"choices":[],{USAGE}}}\n\ndata: [DONE]\n\n'
    ),
    "/v1/completions": f'data: {{"choices":[],{USAGE}}}\n\ndata: [DONE]\n\n',
    "/v1/responses": (
        f'data: {{"type":"response.completed","response":{{"object":"response",{TOKENS}}}}}\n\n'
    ),
    "/v1/messages": (
        f'data: {{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},{TOKENS}}}\n\n'
        'data: {"type":"message_stop"}\n\n'
    ),
}


def answer_of(route: str, number: str, *, stream: bool) -> bytes:
    text = (STREAMED if stream else WHOLE)[route].replace(":N", f":{number}")
    kind = "application/json"
    if stream:
        kind = "application/x-ndjson" if route.startswith("/api/") else "text/event-stream"
    return response(text.encode(), content_type=kind)


def charged(up: Running) -> float:
    [standing] = [s for s in up.app.budget_keeper.standing() if s.name == "money"]
    return dollars(standing.nano_usd)


async def told(up: Running, request_id: str) -> dict[str, Any]:
    """What the admin port says of one call, in both ways."""
    async with up.admin() as admin:
        told = (await admin.request("GET", f"/requests/{request_id}")).json
        words = await admin.request("GET", f"/requests/{request_id}?format=text")
        assert words.status == 200
        return dict(told)


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("route", WHOLE)
async def test_a_poisoned_answer_is_unknown_and_the_next_one_is_counted(
    route: str, stream: bool, poison: str
) -> None:
    answers = [answer_of(route, number, stream=stream) for number in (POISONS[poison], "7")]
    async with (
        scripted(*answers) as upstream,
        in_front_of(upstream.port, MONEY) as up,
        up.client() as client,
    ):
        ids, headers = [], {"X-LLM-Telemetry": "body", "X-LLM-Job-Id": "job-1"}
        asked = call(route, MODEL, stream=stream)
        for number in (POISONS[poison], "7"):
            before = charged(up)
            answer = await client.request("POST", route, asked, headers)
            assert (answer.status, answer.whole) == (200, True)
            assert b'"llm":{' in answer.body
            assert f":{number}".encode() in answer.body
            ids.append(answer["X-Request-Id"])
            assert "load;dur=-" not in answer["Server-Timing"]
            await up.calls.wait(len(ids))
            more = charged(up) - before
            if number == "7":
                assert more == pytest.approx(21e-6)
            else:
                assert more > 50e-6  # what was reserved: the most that it could cost
        bad, good = [await told(up, request_id) for request_id in ids]
        for field in ("prompt_tokens", "output_tokens", "load_ms", "cost_usd"):
            assert bad[field] is None
        assert bad["attempts"][0]["eval_ms"] is None
        assert (good["prompt_tokens"], good["output_tokens"]) == (7, 7)
        assert good["cost_usd"] == pytest.approx(21e-6)
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
            metrics = (await admin.request("GET", "/metrics")).body.decode()
            job = (await admin.request("GET", "/jobs/job-1")).json
        assert (stats["ledger"]["dropped"], stats["spending"]["writes_lost"]) == (0, 0)
        assert "modelsplit_records_dropped_total 0.0" in metrics
        # Of objectives NaN says that too little is known.
        counted = [line for line in metrics.splitlines() if "modelsplit_slo_" not in line]
        assert not [line for line in counted if line.endswith(" NaN")]
        assert (job["calls"], job["output_tokens"], job["cost_unknown"]) == (2, 7, 1)
        lines = {line["request_id"]: line for line in await up.logged() if "request_id" in line}
        assert [lines[request_id]["output_tokens"] for request_id in ids] == [None, 7]


async def test_the_counts_of_a_restart_are_those_before_it(tmp_path: Any) -> None:
    """What was charged for a poisoned answer is on disk as it was reserved."""
    route = "/api/generate"
    answers = answer_of(route, "-5", stream=False), answer_of(route, "7", stream=False)
    async with scripted(*answers) as upstream:
        async with (
            in_front_of(upstream.port, MONEY, state=tmp_path) as up,
            up.client() as client,
        ):
            for _ in answers:
                assert (await client.request("POST", route, call(route, MODEL))).status == 200
            await up.calls.wait(2)
            before = charged(up)
        async with in_front_of(upstream.port, MONEY, state=tmp_path) as up:
            assert charged(up) == before > 2000e-6


async def test_a_number_so_long_that_nobody_reads_it_is_no_answer_and_no_loss() -> None:
    route = "/api/generate"
    answers = [answer_of(route, number, stream=False) for number in ("1e400", "9" * 500, "7")]
    async with (
        scripted(*answers) as upstream,
        in_front_of(upstream.port, MONEY) as up,
        up.client() as client,
    ):
        for _ in answers:
            await client.request("POST", route, call(route, MODEL))
        records = await up.calls.wait(3)
        assert [record.usage.output_tokens for record in records] == [None, None, 7]
        assert len(await up.logged()) >= 3


@pytest.mark.parametrize("said", ["1e999", "1e22", "-1", "9" * 30, '"\\ud800"', "true"])
async def test_a_poisoned_request_is_recorded_like_any_other(said: str) -> None:
    route = "/api/generate"
    body = (
        '{"model":"m:1b","prompt":"hi","stream":false,'
        f'"keep_alive":{said},"options":{{"num_predict":{said},"num_ctx":{said}}}}}'
    )
    overlay = {**MONEY, "roles": {"CHAT": {"max_num_predict": 50, "max_num_ctx": 50}}}
    async with (
        scripted(answer_of(route, "7", stream=False)) as upstream,
        in_front_of(upstream.port, overlay) as up,
        up.client() as client,
    ):
        answer = await client.request("POST", route, body.encode())
        good = await client.request("POST", route, call(route, MODEL))
        assert good.status == 200
        for one in (answer, good):
            found = await told(up, one["X-Request-Id"])
            assert found["status"] == one.status
        lines = await up.logged()
        ids = [line.get("request_id") for line in lines]
        assert {answer["X-Request-Id"], good["X-Request-Id"]} <= set(ids)


def test_the_limit_is_what_a_float_counts_to() -> None:
    assert orjson.loads(str(LIMIT - 1)) == float(LIMIT - 1)
    assert float(LIMIT) == float(LIMIT + 1)
