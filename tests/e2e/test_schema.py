"""Answers of a validating role are held to the schema that their request carries."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.records.values import log_fields
from modelsplit_sim.config import SimConfig
from support.harness import running
from support.scripted import response, scripted

pytestmark = pytest.mark.flowing_time

SCHEMA = {
    "type": "object",
    "properties": {
        "steps": {"type": "array", "items": {"type": "string"}},
        "n": {"type": "integer"},
    },
    "required": ["steps", "n"],
}
PLAN: dict[str, Any] = {
    "model": "planner",
    "messages": [{"role": "user", "content": "plan"}],
    "stream": False,
    "format": SCHEMA,
}
SIM = SimConfig(max_loaded=4)


async def test_an_answer_that_fits_passes_and_the_record_says_so() -> None:
    async with running(SIM) as up, up.client() as client:
        answer = await client.request("POST", "/api/chat", PLAN)
        [record] = await up.calls.wait()
    assert answer.status == 200
    assert (record.schema, len(record.attempts)) == ("valid", 1)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/api/chat", PLAN),
        (
            "/v1/chat/completions",
            {
                "model": "planner",
                "messages": PLAN["messages"],
                "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
            },
        ),
    ],
)
async def test_one_that_does_not_is_asked_of_the_fallback_at_once(
    route: str, body: dict[str, Any]
) -> None:
    async with running(SIM) as up, up.client() as client:
        up.sim.faults.add("bad_schema", model="qwen3:4b", times=1)
        answer = await client.request("POST", route, body)
        [record] = await up.calls.wait()
    assert answer.status == 200
    assert answer["X-LLM-Model"] == "qwen3:8b"
    assert answer["X-LLM-Fallback-Used"] == "true"
    cause = record.attempts[0].failure
    assert cause is not None
    assert cause.code == "E_SCHEMA_INVALID"
    assert record.schema == "valid"


async def test_twice_unfit_is_an_error_that_says_what_does_not_fit_and_shows_no_text() -> None:
    async with running(SIM) as up, up.client() as client:
        up.sim.faults.add("bad_schema")
        answer = await client.request("POST", "/api/chat", PLAN)
        sent = [call for call in up.sim.calls if call.path == "/api/chat"]
        [record] = await up.calls.wait()
    assert answer.status == 502
    assert answer.json["error_code"] == "E_SCHEMA_INVALID"
    assert "does not fit the schema" in answer.json["error"]
    assert "unexpected" not in answer.json["error"]
    assert len(sent) == 2
    assert record.schema == "invalid"


async def test_or_is_passed_on_marked_where_the_policy_says_so() -> None:
    overlay = {"roles": {"PLANNER": {"on_schema_failure": "pass"}}}
    async with running(SIM, overlay) as up, up.client() as client:
        up.sim.faults.add("bad_schema")
        answer = await client.request("POST", "/api/chat", PLAN)
    assert answer.status == 200
    assert answer["X-LLM-Error-Code"] == "E_SCHEMA_INVALID"
    assert answer.json["message"]["content"] == '{"unexpected": true}'


async def test_a_retry_goes_first_in_line() -> None:
    """It has waited its turn already; whoever came meanwhile waits for it."""
    overlay = {"roles": {"PLANNER": {"max_concurrent": 1}}}
    async with running(SimConfig(max_loaded=4, token_rate=100, tokens=20), overlay) as up:
        up.sim.faults.add("bad_schema", model="qwen3:4b", times=1)
        async with up.client() as first, up.client() as second:
            await first.ask("POST", "/api/chat", PLAN)
            await up.sim.wait_for(lambda sim: sim.active == 1)
            await second.ask("POST", "/api/chat", PLAN)
            await first.answer()
            await second.answer()
        models = [call.model for call in up.sim.calls if call.path == "/api/chat"]
    assert models == ["qwen3:4b", "qwen3:8b", "qwen3:4b"]


async def test_a_stream_is_passed_and_counted_by_default() -> None:
    async with running(SIM) as up, up.client() as client:
        up.sim.faults.add("bad_schema")
        answer = await client.request("POST", "/api/chat", {**PLAN, "stream": True})
        [record] = await up.calls.wait()
        async with up.admin() as admin:
            scraped = await admin.request("GET", "/metrics")
    assert answer.lines[-1]["done"] is True
    assert answer["X-LLM-Attempt"] == "1"
    assert record.schema == "invalid"
    assert b'modelsplit_schema_checks_total{result="invalid",role="PLANNER"} 1.0' in scraped.body


async def test_a_stream_is_held_until_it_is_valid_where_the_policy_says_so() -> None:
    overlay = {"roles": {"PLANNER": {"validate_streams": "hold"}}}
    async with running(SIM, overlay) as up, up.client() as client:
        up.sim.faults.add("bad_schema", model="qwen3:4b", times=1)
        answer = await client.request("POST", "/api/chat", {**PLAN, "stream": True})
        [record] = await up.calls.wait()
    assert answer["Content-Type"] == "application/x-ndjson"
    assert answer["X-LLM-Model"] == "qwen3:8b"
    assert answer.lines[-1]["done"] is True
    assert record.schema == "valid"


@pytest.mark.parametrize("kind", ["cut_clean", "cut_fin", "cut_rst", "error_line"])
async def test_a_held_stream_that_breaks_is_replaced_like_any_held_answer(kind: str) -> None:
    overlay = {"roles": {"PLANNER": {"validate_streams": "hold"}}}
    async with running(SIM, overlay) as up, up.client() as client:
        up.sim.faults.add(kind, model="qwen3:4b", times=1, after=1)
        answer = await client.request("POST", "/api/chat", {**PLAN, "stream": True})
    assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")
    assert answer.lines[-1]["done"] is True


async def test_format_json_is_held_to_being_json() -> None:
    async with running(SIM) as up, up.client() as client:
        up.sim.faults.add("bad_schema", model="qwen3:4b", times=1, text="not { json")
        answer = await client.request("POST", "/api/chat", {**PLAN, "format": "json"})
    assert answer["X-LLM-Model"] == "qwen3:8b"


async def test_roles_that_do_not_validate_are_left_alone() -> None:
    async with running(SIM) as up, up.client() as client:
        up.sim.faults.add("bad_schema")
        answer = await client.request("POST", "/api/chat", {**PLAN, "model": "executor"})
        [record] = await up.calls.wait()
    assert answer.status == 200
    assert record.schema is None


CUT_SHORT = [
    ("/api/chat", {**PLAN, "options": {"num_predict": 3}}),
    (
        "/api/generate",
        {
            "model": "planner",
            "prompt": "plan",
            "stream": False,
            "format": SCHEMA,
            "options": {"num_predict": 3},
        },
    ),
    (
        "/v1/chat/completions",
        {
            "model": "planner",
            "messages": PLAN["messages"],
            "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
            "max_tokens": 3,
        },
    ),
    (
        "/v1/responses",
        {
            "model": "planner",
            "input": "plan",
            "text": {"format": {"type": "json_schema", "name": "plan", "schema": SCHEMA}},
            "max_output_tokens": 3,
        },
    ),
]


@pytest.mark.parametrize("held_stream", [False, True])
@pytest.mark.parametrize(("route", "body"), CUT_SHORT)
async def test_an_answer_cut_at_its_own_length_is_told_as_cut_and_not_asked_again(
    route: str, body: dict[str, Any], *, held_stream: bool
) -> None:
    overlay = {"roles": {"PLANNER": {"validate_streams": "hold"}}}
    async with running(SIM, overlay) as up, up.client() as client:
        answer = await client.request("POST", route, body | {"stream": held_stream})
        [record] = await up.calls.wait()
        models = [sent.model for sent in up.asked]
    assert (answer.status, answer.phrase) == (502, "Answer Cut")
    told = answer.json if route.startswith("/api/") else answer.json["error"]
    assert (told["error_code"], told["reason"]) == ("E_SCHEMA_INVALID", "cut")
    said = told["error"] if route.startswith("/api/") else told["message"]
    assert "was cut at 3 tokens" in said
    assert answer["x-should-retry"] == "false"
    assert models == ["qwen3:4b"]
    assert record.schema == "unchecked: the answer was cut at 3 tokens"


async def test_a_length_that_the_policy_allows_cuts_as_well() -> None:
    overlay = {"roles": {"PLANNER": {"num_predict": 3}}}
    async with running(SIM, overlay) as up, up.client() as client:
        answer = await client.request("POST", "/api/chat", PLAN)
        assert (answer.json["reason"], len(up.asked)) == ("cut", 1)


async def test_a_cut_answer_is_passed_where_the_policy_passes_what_does_not_fit() -> None:
    overlay = {"roles": {"PLANNER": {"on_schema_failure": "pass"}}}
    async with running(SIM, overlay) as up, up.client() as client:
        answer = await client.request("POST", *CUT_SHORT[0])
    assert (answer.status, answer["X-LLM-Error-Code"]) == (200, "E_SCHEMA_INVALID")
    assert answer.json["done_reason"] == "length"


async def test_one_that_is_long_enough_to_fit_is_whole_though_it_was_cut() -> None:
    """The JSON was complete; what would have come after it is nobody's loss."""
    async with running(SIM) as up, up.client() as client:
        answer = await client.request("POST", "/api/chat", PLAN | {"options": {"num_predict": 500}})
        [record] = await up.calls.wait()
    assert (answer.status, record.schema) == (200, "valid")


async def test_one_that_filled_its_context_is_asked_of_the_other_model() -> None:
    """Nobody had bounded it: the model ran on, and another may not."""
    ran_on = response(
        b'{"model":"m","message":{"content":"{\\n\\n"},"done":true,"done_reason":"length"}'
    )
    fits = b'{"model":"m","message":{"content":"{\\"n\\":1,\\"steps\\":[]}"},"done":true}'
    async with scripted(ran_on, response(fits)) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", "/api/chat", PLAN)
    assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")


@pytest.mark.parametrize("length", [1, 300_000], ids=["short", "long"])
async def test_whether_a_form_was_asked_for_is_recorded_checked_or_not(length: int) -> None:
    prompt = {"stream": False, "prompt": "x" * length}
    bodies: list[dict[str, Any]] = [
        {"model": "executor", "format": "json"},
        {"model": "executor", "Format": SCHEMA},
        {"model": "executor", "format": ""},
        {"model": "executor"},
        {"model": "planner", "format": SCHEMA},
    ]
    async with running(SIM) as up, up.client() as client:
        for body in bodies:
            await client.request("POST", "/api/generate", body | prompt)
        records = await up.calls.wait(len(bodies))
    assert [record.schema_asked for record in records] == [True, True, False, False, True]
    assert [record.schema for record in records] == [None, None, None, None, "valid"]


async def test_what_the_headers_ask_for_is_recorded() -> None:
    headers = {"X-LLM-Max-Wait-Ms": "700", "X-LLM-Timeout-Ms": "9000", "X-LLM-No-Fallback": "1"}
    async with running(SIM) as up, up.client() as client:
        await client.request("POST", "/api/chat", PLAN, headers)
        await client.request("POST", "/api/chat", PLAN)
        told, plain = map(log_fields, await up.calls.wait(2))
    assert {name: value for name, value in told.items() if name.startswith("asked")} == {
        "asked_max_wait_ms": 700,
        "asked_timeout_ms": 9000,
        "asked_no_fallback": True,
    }
    assert not [name for name in plain if name.startswith("asked")]
