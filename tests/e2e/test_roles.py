"""Whose call it is, which model gets it, and that nothing else about it changes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.calls import BODIES, call
from support.harness import running
from support.records import routing

pytestmark = pytest.mark.flowing_time

# Everything embeds and talks, so that each route answers for each model.
ABLE = SimConfig(
    tokens=3,
    models=(
        *(
            ModelSpec(spec.name, capabilities=("completion", "embedding"))
            for spec in DEFAULT_MODELS
        ),
        ModelSpec("llama3.2:1b", capabilities=("completion", "embedding")),
    ),
)


@pytest.mark.parametrize("route", BODIES)
async def test_every_inference_route_takes_an_alias(route: str) -> None:
    async with running(ABLE) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "planner"))
        assert answer.status == 200, answer.body
        assert answer["X-LLM-Role"] == "PLANNER"
        assert answer["X-LLM-Model"] == "qwen3:4b"
        assert [sent.model for sent in up.sim.calls if sent.path == route] == ["qwen3:4b"]
        [record] = await up.calls.wait()
        assert (record.endpoint.label, record.outcome) == (route, "ok")
        assert routing(record).role == "PLANNER"


@pytest.mark.parametrize(
    ("model", "headers", "role", "reason", "asked"),
    [
        ("planner", {}, "PLANNER", "alias", "qwen3:4b"),
        ("Planner", {}, "PLANNER", "alias", "qwen3:4b"),
        ("PLANNER:latest", {}, "PLANNER", "alias", "qwen3:4b"),
        ("executor", {}, "EXECUTOR", "alias", "qwen3:8b"),
        ("heavy", {}, "HEAVY", "alias", "gemma3:12b"),
        ("llama3.2:1b", {}, "CHAT", "default", "llama3.2:1b"),
        ("qwen3:4b", {}, "CHAT", "default", "qwen3:4b"),
        ("llama3.2:1b", {"X-LLM-Role": "PLANNER"}, "PLANNER", "header", "llama3.2:1b"),
        ("llama3.2:1b", {"x-llm-role": "executor"}, "EXECUTOR", "header", "llama3.2:1b"),
        ("planner", {"X-LLM-Role": "EXECUTOR"}, "EXECUTOR", "header", "qwen3:8b"),
        ("planner", {"X-LLM-Retry-Level": "1"}, "PLANNER", "fallback", "qwen3:8b"),
        ("planner", {"X-LLM-Retry-Level": "0"}, "PLANNER", "alias", "qwen3:4b"),
        ("executor", {"X-LLM-Escalate": "operator"}, "HEAVY", "escalation", "gemma3:12b"),
    ],
)
async def test_a_role_is_inferred_and_its_model_asked(
    model: str, headers: dict[str, str], role: str, reason: str, asked: str
) -> None:
    async with running(ABLE) as up, up.client() as client:
        answer = await client.request(
            "POST", "/api/generate", call("/api/generate", model), headers
        )
        assert answer.status == 200, answer.body
        assert answer["X-LLM-Role"] == role
        assert answer["X-LLM-Route-Reason"] == reason
        assert answer["X-LLM-Model"] == asked
        assert answer["X-LLM-Requested-Model"] == model
        assert answer["X-LLM-Fallback-Used"] == ("true" if reason == "fallback" else "false")
        assert up.asked[-1].json["model"] == asked


async def test_a_claimed_model_belongs_to_its_role() -> None:
    claims = {"roles": {"EXECUTOR": {"claims": ["llama3.2:1b"]}}}
    async with running(ABLE, claims) as up, up.client() as client:
        answer = await client.request("POST", "/api/generate", call("/api/generate", "llama3.2:1b"))
        assert (answer["X-LLM-Role"], answer["X-LLM-Route-Reason"]) == ("EXECUTOR", "claim")
        assert answer["X-LLM-Model"] == "llama3.2:1b"


@pytest.mark.parametrize(
    "sent",
    [
        b'{"model":"planner","prompt":"\\u00e9 caf\xc3\xa9","stream":false}',
        b'{ "prompt" : "the \\"model\\" : \\"x\\"" ,\n\t"model" :\t"planner", "stream":false }',
        b'{"options":{"model":"planner","num_predict":2},"model":"planner","stream":false,"prompt":"x"}',
        b'{"prompt":"x","stream":false,"seed":1e2,"model":"planner"}  \n',
    ],
)
async def test_only_the_value_of_model_changes(sent: bytes) -> None:
    async with running(ABLE) as up, up.client() as client:
        answer = await client.request("POST", "/api/generate", sent)
        assert answer.status == 200, answer.body
        got = up.asked[-1].body
        at = next(n for n, (a, b) in enumerate(zip(sent, got, strict=False)) if a != b)
        assert sent[at:].startswith(b'planner"')
        assert got == sent[:at] + b'qwen3:4b"' + sent[at + len(b'planner"') :]


async def test_a_body_without_an_alias_goes_out_as_it_came() -> None:
    sent = b' {"stream":false, "model":"llama3.2:1b","prompt":"x" }\n'
    async with running(ABLE) as up, up.client() as client:
        answer = await client.request("POST", "/api/generate", sent, {"X-LLM-Role": "PLANNER"})
        assert answer.status == 200
        assert up.asked[-1].body == sent


async def test_our_headers_stop_here_and_all_others_pass() -> None:
    ours = {
        "X-LLM-Role": "HEAVY",
        "X-LLM-Context": "planner",
        "X-LLM-Retry-Level": "0",
        "X-LLM-Job-Id": "job-1",
        "X-LLM-Purpose": "complex_output",
        "X-LLM-Max-Wait-Ms": "1000",
        "X-LLM-Timeout-Ms": "9000",
        "X-LLM-No-Fallback": "1",
        "X-LLM-Telemetry": "body",
        "X-Request-Id": "mine-1",
    }
    theirs = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Authorization": "Bearer token",
        "User-Agent": "test/1",
        "X-Other": "yes",
    }
    async with running(ABLE) as up, up.client() as client:
        body = call("/api/generate", "llama3.2:1b")
        answer = await client.request("POST", "/api/generate", body, ours | theirs)
        assert answer.status == 200
        assert answer["X-LLM-Context"] == "PLANNER"
        got = up.asked[-1]
        assert [name for name, _ in got.headers if name.lower().startswith("x-llm-")] == []
        assert got.header("X-Request-Id") is None
        assert {name: got.header(name) for name in theirs} == theirs
        assert got.header("Host") == f"127.0.0.1:{up.sim.port}"
        assert got.header("Via") == "1.1 modelsplit"
        [record] = await up.calls.wait()
        assert (record.job_id, record.purpose) == ("job-1", "complex_output")


@pytest.mark.parametrize("path", ["/api/generate?x=1", "http://elsewhere.example/api/generate?x=1"])
async def test_the_upstream_is_asked_for_the_path_alone(path: str) -> None:
    async with running(ABLE) as up, up.client() as client:
        answer = await client.request("POST", path, call("/api/generate", "planner"))
        assert answer.status == 200
        assert up.asked[-1].target == "/api/generate?x=1"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"planner","model":"heavy","prompt":"x"}',
        b'{"model":"planner","Model":"heavy","prompt":"x"}',
        b'{"MODEL":"planner","Model":"heavy","prompt":"x"}',
        b'{"model":"planner","m\\u006fdel":"heavy","prompt":"x"}',
    ],
)
async def test_a_body_that_names_two_models_is_refused(body: bytes) -> None:
    async with running(ABLE) as up, up.client() as client:
        answer = await client.request("POST", "/api/generate", body)
        assert (answer.status, answer.phrase) == (400, "Ambiguous Model")
        assert answer["X-LLM-Error-Code"] == "E_BAD_REQUEST"
        assert answer.json["reason"] == "ambiguous_model"
        assert up.asked == []


async def test_an_unknown_role_is_told_the_known_ones() -> None:
    async with running(ABLE) as up, up.client() as client:
        body = call("/api/generate", "planner")
        answer = await client.request("POST", "/api/generate", body, {"X-LLM-Role": "BOSS"})
        assert (answer.status, answer.phrase) == (400, "Unknown Role")
        assert answer.json["error_code"] == "E_BAD_REQUEST"
        assert answer.json["reason"] == "unknown_role"
        for role in ("PLANNER", "EXECUTOR", "HEAVY", "CLOUD", "CHAT"):
            assert role in answer.json["error"]
        assert answer["X-LLM-Requested-Model"] == "planner"
        assert answer["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({"X-LLM-Retry-Level": "2"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Max-Wait-Ms": "soon"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Max-Wait-Ms": "-1"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Max-Wait-Ms": "1.5"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Timeout-Ms": "1e3"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Timeout-Ms": "9999999999"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-No-Fallback": "yes"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Job-Id": "a b"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Purpose": "curiosity"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Job-Id": "x" * 129}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Role": "HEAVY", "X-LLM-Context": "LUNCH"}, "E_BAD_REQUEST", 400),
        ({"X-LLM-Escalate": "boredom"}, "E_ESCALATION_DENIED", 403),
        ({"X-LLM-Escalate": "operator"}, "E_ESCALATION_DENIED", 403),
        ({"X-LLM-Role": "CLOUD"}, "E_BUDGET_NOT_APPROVED", 403),
        ({"X-LLM-Role": "HEAVY", "X-LLM-Escalate": "operator"}, "E_BUDGET_NOT_APPROVED", 403),
    ],
)
async def test_what_cannot_be_honoured_is_refused(
    headers: dict[str, str], code: str, status: int
) -> None:
    async with running(ABLE) as up, up.client() as client:
        body = call("/api/generate", "planner")
        answer = await client.request("POST", "/api/generate", body, headers)
        assert answer.status == status
        assert answer["X-LLM-Error-Code"] == answer.json["error_code"] == code
        assert answer["x-should-retry"] == "false"
        assert answer.get("Retry-After") is None
        assert up.asked == []
        [record] = await up.calls.wait()
        assert (record.call.state, record.outcome) == ("rejected", code)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("abc-1._Z", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("two words", False),
        ("", False),
        ('"><script>', False),
    ],
)
async def test_a_request_id_is_kept_or_replaced(said: str, kept: bool) -> None:
    async with running(ABLE) as up, up.client() as client:
        body = call("/api/generate", "planner")
        answer = await client.request("POST", "/api/generate", body, {"X-Request-Id": said})
        assert answer["X-Request-Id"] == answer["request-id"]
        assert (answer["X-Request-Id"] == said) is kept
        [record] = await up.calls.wait()
        assert record.request_id == answer["X-Request-Id"]


@pytest.mark.parametrize("model", [None, 7, ["planner"], {}])
async def test_a_model_that_is_no_name_is_the_upstreams_to_refuse(model: Any) -> None:
    sent = orjson.dumps({"model": model, "prompt": "x"})
    async with running(ABLE) as up, up.client() as client:
        answer = await client.request("POST", "/api/generate", sent)
        assert answer.status in {400, 404}
        assert answer.json["error"]
        assert up.asked[-1].body == sent
