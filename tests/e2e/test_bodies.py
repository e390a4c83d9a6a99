"""Bodies mean here what they mean to Ollama, however they are written, at any size."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest

from modelsplit_sim.config import SimConfig
from support.harness import running

pytestmark = pytest.mark.flowing_time

GENERATE, COMPLETIONS = "/api/generate", "/v1/chat/completions"
QUICK = SimConfig(tokens=2)
HI = b'"messages":[{"role":"user","content":"hi"}]'


@pytest.mark.parametrize("padding", [0, 3 * 2**19], ids=["short", "long"])
@pytest.mark.parametrize(
    "rest",
    [
        b'"prompt":"\\ud83d"}',
        b'"prompt":"\xff\xc3("}',
        b'"prompt":"x","n":%b}' % (b"9" * 400),
        b'"prompt":"x","n":1e999}',
        b'"prompt":"x","n":%b%b}' % (b"[" * 900, b"]" * 900),
        b'"prompt":"x"} and what follows',
        b'"prompt":"x"}{"model":"heavy"}',
    ],
    ids=["half a pair", "bytes", "integer", "exponent", "deep", "text after", "object after"],
)
async def test_what_ollama_reads_over_is_passed_on_byte_for_byte(rest: bytes, padding: int) -> None:
    sent = b'{"pad":"%b","model":"%b","stream":false,%b'
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", GENERATE, sent % (b"x" * padding, b"planner", rest))
        assert (answer["X-LLM-Role"], answer["X-LLM-Model"]) == ("PLANNER", "qwen3:4b")
        meant = sent % (b"x" * padding, b"qwen3:4b", rest)
        assert up.asked[-1].body_sha256 == hashlib.sha256(meant).hexdigest()


@pytest.mark.parametrize("padding", [0, 3 * 2**19], ids=["short", "long"])
@pytest.mark.parametrize("body", [b'{"model":"planner",', b'{"model":"planner"]', b'{"model":NaN}'])
async def test_what_ollama_refuses_is_refused_at_any_size(body: bytes, padding: int) -> None:
    async with running(QUICK) as up, up.client() as client:
        raw = b'{"pad":"%b",%b' % (b"x" * padding, body[1:])
        answer = await client.request("POST", GENERATE, raw)
        assert (answer.status, answer.json["reason"]) == (400, "bad_json")
        assert up.asked == []


@pytest.mark.parametrize("key", [b"MODEL", b"Model", b"\\u004dodel"])
async def test_one_model_in_another_spelling_is_the_model(key: bytes) -> None:
    sent = b'{"%b":"%b","stream":false,"prompt":"x"}'
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", GENERATE, sent % (key, b"planner"))
        assert (answer.status, answer["X-LLM-Role"]) == (200, "PLANNER")
        assert up.asked[-1].body == sent % (key, b"qwen3:4b")


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}, {"MODEL": None}])
@pytest.mark.parametrize(
    "fields",
    [{GENERATE: {"prompt": "x", "stream": False}}, {COMPLETIONS: orjson.loads(b"{%b}" % HI)}],
    ids=["native", "openai"],
)
async def test_a_role_header_needs_no_model(body: dict[str, Any], fields: dict[str, Any]) -> None:
    [(route, rest)] = fields.items()
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", route, body | rest, {"X-LLM-Role": "planner"})
        assert (answer.status, answer["X-LLM-Role"]) == (200, "PLANNER")
        assert answer["X-LLM-Model"] == "qwen3:4b"
        asked = orjson.loads(up.asked[-1].body)
        assert asked == rest | {"model": "qwen3:4b"}


@pytest.mark.parametrize(
    ("route", "field", "read"),
    [
        (COMPLETIONS, '"max_token\u017f":900', {"max_tokens": 7}),
        (COMPLETIONS, '"MAX_TO\u212aENS":900', {"max_tokens": 7}),
        (COMPLETIONS, '"max_tokens":3,"max_token\u017f":900', {"max_tokens": 7}),
        (COMPLETIONS, '"max_tokens":900,"max_tokens":901', {"max_tokens": 7}),
        (GENERATE, '"option\u017f":{"num_predict":900}', {"options": {"num_predict": 7}}),
        (
            GENERATE,
            '"options":{"num_predict":900},"OPTIONS":{"seed":1}',
            {"options": {"num_predict": 7, "seed": 1}},
        ),
    ],
)
async def test_a_bound_on_tokens_holds_in_every_spelling(
    route: str, field: str, read: dict[str, Any]
) -> None:
    bounded = {"roles": {"PLANNER": {"max_num_predict": 7}}}
    prompt = HI if route == COMPLETIONS else b'"prompt":"x"'
    raw = b'{"model":"planner","stream":false,%b,%b}' % (prompt, field.encode())
    async with running(QUICK, bounded) as up, up.client() as client:
        answer = await client.request("POST", route, raw)
        assert answer.status == 200
        asked = orjson.loads(up.asked[-1].body)
        assert (
            asked == orjson.loads(b"{%b}" % prompt) | {"model": "qwen3:4b", "stream": False} | read
        )


@pytest.mark.parametrize(
    "raw",
    [
        '{"\u017fource":"planner","destination":"mine"}',
        '{"source":"planner","destination":"mine"} x',
        '{"source":"planner","destination":"mine","x":"\\ud83d"}',
        '{"source":"qwen3:4b","SOURCE":"planner","destination":"mine"}',
    ],
)
async def test_an_alias_is_not_copied_however_it_is_written(raw: str) -> None:
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", "/api/copy", raw.encode())
        assert (answer.status, answer.json["reason"]) == (403, "is_alias")
        assert not any(asked.path == "/api/copy" for asked in up.asked)


async def test_an_alias_is_shown_though_text_follows() -> None:
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", "/api/show", b'{"model":"planner"} x')
        assert answer.status == 200
        assert up.asked[-1].body == b'{"model":"qwen3:4b"} x'
