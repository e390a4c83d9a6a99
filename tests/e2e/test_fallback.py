"""The one second chance: when it comes, what it costs, and when it must not come."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.records import decisions
from modelsplit_proxy.records.values import log_fields
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.journal import CallState
from modelsplit_sim.models import DEFAULT_MODELS
from support.calls import DIALECTS, call
from support.harness import running, warm
from support.raw import raw_upstream
from support.records import routing
from support.scripted import is_own_question, response, scripted

if TYPE_CHECKING:
    from support.harness import Running
    from support.raw import Peer
    from support.wire import Answer, Client

pytestmark = pytest.mark.flowing_time

WARM = SimConfig(tokens=4, num_parallel=8, max_loaded=4)
ROUTE = "/api/generate"
# Alias, first model, second model, as shipped.
ROWS = [
    ("planner", "qwen3:4b", "qwen3:8b"),
    ("executor", "qwen3:8b", "gemma3:12b"),
    ("heavy", "gemma3:12b", "gpt-oss:20b"),
]
# Fault, the code it amounts to, and its reason.
CAUSES: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": Kind.STATUS, "status": 500}, "E_UPSTREAM_LOCAL", "runner_failed"),
    ({"kind": Kind.STATUS, "status": 502, "body": "<html>"}, "E_UPSTREAM_LOCAL", "status"),
    ({"kind": Kind.STATUS, "status": 503}, "E_OVERLOAD_THROTTLED", "upstream_busy"),
    ({"kind": Kind.STATUS, "status": 404}, "E_MODEL_NOT_FOUND", "not_installed"),
    ({"kind": Kind.RESET}, "E_UNREACHABLE_LOCAL", "reset"),
    ({"kind": Kind.CLOSE}, "E_UNREACHABLE_LOCAL", "reset"),
    ({"kind": Kind.GARBAGE}, "E_UNREACHABLE_LOCAL", "protocol"),
    ({"kind": Kind.HANG}, "E_TIMEOUT_LOCAL", "role_timeout"),
]
# Short enough to wait for, long enough for any answer of the stand-in.
HASTY = {"roles": {role: {"timeout_ms": 250} for role in ("PLANNER", "EXECUTOR", "HEAVY")}}


def models_asked(up: Running) -> list[str | None]:
    return [sent.model for sent in up.asked]


async def metric(up: Running, line: str) -> bool:
    async with up.admin() as admin:
        text = (await admin.request("GET", "/metrics")).body.decode()
    return line in text.splitlines()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "code", "reason"), CAUSES)
@pytest.mark.parametrize(("alias", "first", "second"), ROWS)
async def test_the_second_model_answers(
    alias: str,
    first: str,
    second: str,
    fault: dict[str, Any],
    code: str,
    reason: str,
    *,
    stream: bool,
) -> None:
    async with running(WARM, HASTY) as up, up.client() as client:
        # A role's clock does not run while its model is loading.
        await warm(up, first)
        up.sim.faults.add(**fault, model=first)
        answer = await client.request("POST", ROUTE, call(ROUTE, alias, stream=stream))
        assert (answer.status, answer.whole) == (200, True)
        assert answer.lines[-1]["done"] is True
        assert answer.lines[-1]["model"] == answer["X-LLM-Model"] == second
        assert answer["X-LLM-Attempt"] == "2"
        assert answer["X-LLM-Fallback-Used"] == "true"
        assert answer["X-LLM-Route-Reason"] == "fallback"
        assert answer["X-LLM-Requested-Model"] == alias
        assert answer.get("X-LLM-Error-Code") is None
        assert models_asked(up)[1:] == [first, second]
        [record] = await up.calls.wait()
        assert (record.outcome, record.call.state) == ("ok", "completed")
        cause = record.attempts[0].failure
        assert cause is not None
        assert (cause.code, cause.reason) == (code, reason)
        fields = log_fields(record)
        assert (fields["fallback_used"], fields["fallback_cause"]) == (True, code)
        assert up.seats() == (0, 0)
        counted = f'modelsplit_fallbacks_total{{code="{code}",role="{routing(record).role}"}}'
        assert await metric(up, f"{counted} 1.0")


@pytest.mark.parametrize(("alias", "first", "second"), ROWS)
async def test_two_attempts_and_no_third(alias: str, first: str, second: str) -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"first"}', model=first)
        up.sim.faults.add(Kind.STATUS, status=503, body='{"error":"second"}', model=second)
        answer = await client.request("POST", ROUTE, call(ROUTE, alias))
        assert models_asked(up) == [first, second]
        # The last failure is told, in the upstream's own words.
        assert (answer.status, answer.json) == (503, {"error": "second"})
        assert answer["X-LLM-Error-Code"] == "E_OVERLOAD_THROTTLED"
        assert answer["X-LLM-Model"] == second
        assert (answer["X-LLM-Attempt"], answer["X-LLM-Fallback-Used"]) == ("2", "true")
        assert 1 <= int(answer["Retry-After"]) <= 30
        [record] = await up.calls.wait()
        assert record.call.state == "failed"
        assert up.seats() == (0, 0)


async def test_a_model_that_neither_has_is_not_found() -> None:
    only = SimConfig(models=("llama3.2:1b",))
    async with running(only) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert answer.status == 404
        assert answer["X-LLM-Error-Code"] == "E_MODEL_NOT_FOUND"
        assert answer["x-should-retry"] == "false"
        # Ollama's own words would not say whose model that is: the client did not name it.
        assert answer.json["error"] == (
            "PLANNER cannot be served: none of its models is installed; "
            f"try `{up.pull('qwen3:4b')} && {up.pull('qwen3:8b')}`"
        )
        assert (answer.json["reason"], answer.json["llm_role"]) == ("not_installed", "PLANNER")
        assert (answer["X-LLM-Attempt"], answer["X-LLM-Model"]) == ("1", "qwen3:4b")
        # That the second is not there either was known.
        assert models_asked(up) == ["qwen3:4b"]
        [record] = await up.calls.wait()
        told = decisions.of_call(record)
        assert (told["no_fallback"], told["unable"]) == (
            "not_installed",
            {"model": "qwen3:8b", "lacks": []},
        )


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_every_dialect_says_whose_model_is_missing_and_how_to_install_it(
    route: str, *, stream: bool
) -> None:
    async with running(SimConfig(models=("llama3.2:1b",))) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "planner", stream=stream))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (404, "E_MODEL_NOT_FOUND")
        assert answer.json["error"]["message"] == (
            "PLANNER cannot be served: none of its models is installed; "
            f"try `{up.pull('qwen3:4b')} && {up.pull('qwen3:8b')}`"
        )


async def test_a_call_that_begins_with_the_fallback_says_that_it_is_missing() -> None:
    async with running(SimConfig(models=("llama3.2:1b",))) as up, up.client() as client:
        headers = {"X-LLM-Retry-Level": "1"}
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"), headers)
        assert answer.status == 404
        assert answer.json["error"].startswith("PLANNER's fallback qwen3:8b is not installed in")


# What a client named that is not installed, and what it is told behind Ollama's own words.
MISSPELT = [
    ("llama3.2:1bb", '; did you mean "llama3.2:1b"? Else `{pull}`'),
    ("planer", '; did you mean "planner"? Else `{pull}`'),
    ("zzz", "; try `{pull}`"),
    ("", ": no model is named; name one"),
]


@pytest.mark.parametrize(("model", "advice"), MISSPELT)
async def test_a_model_that_the_client_named_is_not_found_in_ollamas_words_and_with_a_next_step(
    model: str, advice: str
) -> None:
    async with running(SimConfig(models=("llama3.2:1b",))) as up, up.client() as client:
        await up.until(lambda: bool(up.app.installed.facts))
        for headers in ({}, {"X-LLM-Role": "PLANNER", "X-LLM-No-Fallback": "1"}):
            if not model and headers:
                continue  # which is then the role's own
            answer = await client.request("POST", ROUTE, call(ROUTE, model), headers)
            assert answer.status == 404
            told = f"model '{model}' not found" + advice.format(pull=up.pull(model))
            assert answer.json["error"] == told
            assert answer["X-LLM-Error-Code"] == answer.json["error_code"] == "E_MODEL_NOT_FOUND"


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_the_sdks_are_told_the_same_of_a_misspelt_model(route: str) -> None:
    async with running(SimConfig(models=("llama3.2:1b",))) as up, up.client() as client:
        await up.until(lambda: bool(up.app.installed.facts))
        answer = await client.request("POST", route, call(route, "llama3.2:1bb", stream=True))
        assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")
        message = answer.json["error"]["message"]
        assert "not found; did you mean" in message
        assert message.endswith(f'"llama3.2:1b"? Else `{up.pull("llama3.2:1bb")}`')


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
MESSAGES = [{"role": "user", "content": "hi"}]
# The shipped EXECUTOR: what a request needs, and what its second model lacks of that.
INCAPABLE = [
    ("/api/chat", {"messages": MESSAGES, "tools": TOOLS, "stream": False}, ["tools"]),
    ("/api/chat", {"messages": MESSAGES, "think": True, "stream": False}, ["thinking"]),
    ("/api/generate", {"prompt": "hi", "think": "high", "stream": False}, ["thinking"]),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": TOOLS}, ["tools"]),
    ("/v1/messages", {"messages": MESSAGES, "tools": TOOLS, "max_tokens": 9}, ["tools"]),
    ("/v1/responses", {"input": "hi", "reasoning": {"effort": "low"}}, ["thinking"]),
]


@pytest.mark.parametrize(("route", "body", "lacks"), INCAPABLE)
async def test_a_second_model_without_what_the_request_needs_is_not_tried(
    route: str, body: dict[str, Any], lacks: list[str]
) -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"died"}', model="qwen3:8b")
        answer = await client.request("POST", route, {"model": "executor", **body})
        assert (answer.status, answer["X-LLM-Error-Code"]) == (500, "E_UPSTREAM_LOCAL")
        assert answer.get("x-should-retry") is None
        assert models_asked(up) == ["qwen3:8b"]
        [record] = await up.calls.wait()
        told = decisions.of_call(record)
        assert (told["no_fallback"], told["unable"]) == (
            "incapable",
            {"model": "gemma3:12b", "lacks": lacks},
        )
        async with up.admin() as admin:
            said = await admin.request("GET", f"/requests/{record.request_id}?format=text")
        assert (
            "fallback   no: the second model lacks what the request needs (incapable); "
            f"gemma3:12b has no {lacks[0]}\n" in said.body.decode()
        )


async def test_a_request_that_needs_less_goes_to_the_same_second_model() -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, status=500, model="qwen3:8b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "executor"))
        assert (answer.status, answer["X-LLM-Model"]) == (200, "gemma3:12b")


async def test_of_a_model_that_nobody_has_told_of_nothing_is_assumed() -> None:
    async with running(WARM) as up, up.client() as client:
        up.app.installed.facts = {}
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"died"}', model="qwen3:8b")
        body = {"model": "executor", "messages": MESSAGES, "tools": TOOLS, "stream": False}
        answer = await client.request("POST", "/api/chat", body)
        assert (answer.status, models_asked(up)) == (500, ["qwen3:8b", "gemma3:12b"])


async def test_a_loaded_fallback_that_cannot_serve_the_request_is_not_preferred() -> None:
    overlay = {"roles": {"EXECUTOR": {"prefer_resident_fallback": True}}}
    async with running(WARM, overlay) as up, up.client() as client:
        await warm(up, "gemma3:12b")
        body = {"model": "executor", "messages": MESSAGES, "stream": False}
        answer = await client.request("POST", "/api/chat", body | {"tools": TOOLS})
        assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")


# What Ollama says of a model that cannot serve a request: status, and its own words.
TURNED_AWAY = [
    (400, "registry.ollama.ai/library/qwen3:8b does not support tools"),
    (400, '"qwen3:8b" does not support thinking'),
    (400, "registry.ollama.ai/library/qwen3:8b does not support insert"),
    (400, "the prompt is longer than the context length currently available to the model"),
    (401, "unauthorized"),
    (403, "this model requires a subscription"),
    (413, "too large"),
    (429, "you have reached your weekly usage limit"),
]


@pytest.mark.parametrize(("status", "words"), TURNED_AWAY)
async def test_a_second_model_that_turns_the_request_away_is_not_told(
    status: int, words: str
) -> None:
    """The client may well try again: nothing was wrong with what it asked for."""
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"died"}', model="qwen3:4b")
        refusal = orjson.dumps({"error": words}).decode()
        up.sim.faults.add(Kind.STATUS, status=status, body=refusal, model="qwen3:8b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert (answer.status, answer.json) == (500, {"error": "died"})
        assert answer.get("x-should-retry") is None
        assert answer["X-LLM-Error-Code"] == "E_UPSTREAM_LOCAL"
        assert (answer["X-LLM-Attempt"], answer["X-LLM-Fallback-Used"]) == ("1", "false")
        assert answer["X-LLM-Model"] == "qwen3:4b"
        assert models_asked(up) == ["qwen3:4b", "qwen3:8b"]
        [record] = await up.calls.wait()
        told = decisions.of_call(record)
        assert told["no_fallback"] == "turned_away"
        assert told["unseated"]["model"] == "qwen3:8b"
        assert told["unseated"]["upstream_status"] == status
        assert up.seats() == (0, 0)


@pytest.mark.parametrize(
    ("status", "words", "told", "code"),
    [
        (503, "server busy", "Ollama is overloaded: server busy", "E_OVERLOAD_THROTTLED"),
        (500, "died", "Ollama answered 500: died", "E_UPSTREAM_LOCAL"),
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "found out"])
async def test_a_second_model_that_is_not_installed_is_told_with_what_to_do(
    status: int, words: str, told: str, code: str, *, known: bool
) -> None:
    """Else Ollama's own words would hide why nobody else was asked."""
    models = ("qwen3:4b",) if known else ("qwen3:4b", "qwen3:8b")
    async with running(SimConfig(models=models)) as up, up.client() as client:
        await up.until(lambda: bool(up.app.installed.facts))
        refusal = orjson.dumps({"error": words}).decode()
        up.sim.faults.add(Kind.STATUS, status=status, body=refusal, model="qwen3:4b")
        missing = orjson.dumps({"error": "model 'qwen3:8b' not found"}).decode()
        up.sim.faults.add(Kind.STATUS, status=404, body=missing, model="qwen3:8b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (status, code)
        assert answer.json["error"] == (
            f"{told}; PLANNER's fallback qwen3:8b is not installed in Ollama; "
            f"try `{up.pull('qwen3:8b')}`"
        )
        assert models_asked(up) == (["qwen3:4b"] if known else ["qwen3:4b", "qwen3:8b"])


async def test_nor_inside_a_stream_that_was_begun_early() -> None:
    """The second model was waited for with an early head, and then turned the request away."""
    began = asyncio.Event()
    died = response(b'{"error":"died"}', status="500 Internal Server Error")
    refusal = response(b'{"error":"no tools"}', status="400 Bad Request")

    async def script(peer: Peer) -> None:
        while True:
            head, body = await peer.request()
            if is_own_question(head):
                peer.send(response(b"{}"))
            elif b"qwen3:8b" in body:
                await began.wait()
                peer.send(refusal)
            else:
                peer.send(died)

    overlay = {"roles": {"PLANNER": {"early_headers_after_ms": 1}}}
    async with raw_upstream(script) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(None, overlay, upstream=target) as up, up.client() as client:
            await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=True))
            head = await client.head()
            began.set()
            pieces = b"".join([piece async for piece in client.pieces(head)])
    told = orjson.loads(pieces.splitlines()[-1])
    assert (head.status, told["error_code"]) == (200, "E_UPSTREAM_LOCAL")
    assert "died" in told["error"]


async def test_a_second_model_whose_breaker_is_open_is_named_in_the_record() -> None:
    async with running(WARM) as up, up.client() as client:
        died = {"error": "llama-server process has terminated"}
        up.sim.faults.add(Kind.STATUS, status=500, body=json.dumps(died))
        for _ in range(5):
            await client.request("POST", ROUTE, call(ROUTE, "qwen3:8b"))
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert (answer.status, answer.json) == (500, died)
        record = (await up.calls.wait(6))[-1]
        told = decisions.of_call(record)
        assert told["no_fallback"] == "breaker_open"
        assert (told["unseated"]["model"], told["unseated"]["reason"]) == (
            "qwen3:8b",
            "breaker_open",
        )
        async with up.admin() as admin:
            said = await admin.request("GET", f"/requests/{record.request_id}?format=text")
        assert "fallback   no: calls to the second model were stopped (breaker_open)" in (
            said.body.decode()
        )
        assert "calls to LOCAL/qwen3:8b are stopped for now: 5 failures" in said.body.decode()


async def test_an_upstream_that_is_away_is_asked_once() -> None:
    async with running(WARM) as up, up.client() as client:
        await up.sim.stop()
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert (answer.status, answer.phrase) == (502, "Ollama Unreachable")
        assert answer.json["error_code"] == "E_UNREACHABLE_LOCAL"
        assert answer.json["reason"] == "connect_refused"
        assert f"127.0.0.1:{up.sim.port}" in answer.json["error"]
        assert answer["X-LLM-Attempt"] == "1"
        await up.sim.start()
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert (answer.status, answer["X-LLM-Attempt"]) == (200, "1")


@pytest.mark.parametrize("route", DIALECTS)
async def test_it_works_in_every_dialect(route: str) -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, status=500, model="qwen3:4b")
        answer = await client.request("POST", route, call(route, "planner"))
        assert (answer.status, answer.json["model"]) == (200, "qwen3:8b")
        assert answer["X-LLM-Attempt"] == "2"


@pytest.mark.parametrize(
    "headers", [{"X-LLM-No-Fallback": "1"}, {"X-LLM-Retry-Level": "1"}], ids=["no", "level"]
)
async def test_a_client_may_do_without(headers: dict[str, str]) -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, status=500, path=ROUTE)
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"), headers)
        assert answer.status == 500
        assert answer["X-LLM-Attempt"] == "1"
        assert len(up.asked) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": Kind.STATUS, "status": 400},
        {"kind": Kind.STATUS, "status": 401},
        {"kind": Kind.STATUS, "status": 403},
        {"kind": Kind.STATUS, "status": 429},
    ],
    ids=lambda fault: str(fault["status"]),
)
async def test_a_refused_request_is_not_tried_elsewhere(fault: dict[str, Any]) -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(**fault, model="qwen3:4b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert answer.status == fault["status"]
        assert answer["X-LLM-Attempt"] == "1"
        assert models_asked(up) == ["qwen3:4b"]


@pytest.mark.parametrize(("fault", "code", "reason"), CAUSES[:-1])
async def test_chat_keeps_the_model_its_client_named(
    fault: dict[str, Any], code: str, reason: str
) -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(**fault, path=ROUTE)
        answer = await client.request("POST", ROUTE, call(ROUTE, "qwen3:4b"))
        assert answer["X-LLM-Role"] == "CHAT"
        assert answer["X-LLM-Error-Code"] == code
        assert answer["X-LLM-Fallback-Used"] == "false"
        [record] = await up.calls.wait()
        assert record.failure is not None
        assert (record.failure.reason, len(up.asked)) == (reason, 1)


@pytest.mark.parametrize(
    "kind", [Kind.CUT_FIN, Kind.CUT_RST, Kind.CUT_CLEAN, Kind.ERROR_LINE, Kind.STALL]
)
async def test_never_after_the_first_byte(kind: Kind) -> None:
    async with running(WARM, stall_timeout_s=0.2) as up, up.client() as client:
        up.sim.faults.add(kind, after=1)
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner", stream=True))
        assert (answer.status, answer["X-LLM-Attempt"]) == (200, "1")
        assert 'done":true' not in answer.body.decode()
        await up.calls.wait()
        assert models_asked(up) == ["qwen3:4b"]


@pytest.mark.parametrize("kind", [Kind.CUT_FIN, Kind.CUT_RST, Kind.CUT_CLEAN, Kind.RUNNER_DIES])
async def test_a_held_answer_that_breaks_is_replaced(kind: Kind) -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(kind, model="qwen3:4b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert (answer.status, answer.json["model"]) == (200, "qwen3:8b")
        assert answer["X-LLM-Attempt"] == "2"


async def test_an_answer_that_gave_up_is_replaced_but_for_chat() -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(Kind.REPEAT_CUTOFF, model="qwen3:4b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert (answer.json["model"], answer.json["done"]) == ("qwen3:8b", True)
        answer = await client.request("POST", ROUTE, call(ROUTE, "qwen3:4b"))
        assert (answer.status, answer.json["done"]) == (200, False)
        assert answer["X-LLM-Error-Code"] == "E_UPSTREAM_LOCAL"


async def timed_out(client: Client, headers: dict[str, str], model: str = "planner") -> Answer:
    answer = await client.request("POST", ROUTE, call(ROUTE, model), headers)
    assert (answer.status, answer.phrase) == (504, "Upstream Timeout")
    assert answer.json["error_code"] == "E_TIMEOUT_LOCAL"
    assert answer.json["reason"] == "role_timeout"
    return answer


async def test_a_client_may_shorten_a_timeout_and_not_stretch_it() -> None:
    overlay = {"roles": {"PLANNER": {"timeout_ms": 200, "fallback_timeout_ms": 200}}}
    async with running(WARM, overlay) as up, up.client() as client:
        await warm(up, "qwen3:4b", "qwen3:8b")
        up.sim.faults.add(Kind.HANG, path=ROUTE)
        answer = await timed_out(client, {"X-LLM-Timeout-Ms": "60000"})
        assert "0.2 s" in answer.json["error"]
        answer = await timed_out(client, {"X-LLM-Timeout-Ms": "30"})
        assert "0.03 s" in answer.json["error"]
        answer = await timed_out(client, {"X-LLM-Timeout-Ms": "30"}, "qwen3:4b")
        assert answer["X-LLM-Role"] == "CHAT"
        await up.sim.wait_for(lambda sim: len(sim.in_state(CallState.ABORTED)) == 5)
        assert up.seats() == (0, 0)


async def test_the_second_attempt_waits_in_line_within_what_is_left() -> None:
    """It stands in the line of its role like any other call, and the wait is one for both."""
    overlay = {"roles": {"PLANNER": {"max_concurrent": 1}}}
    slow = SimConfig(tokens=400, token_rate=100, num_parallel=4, max_loaded=4)
    async with running(slow, overlay) as up, up.client() as one, up.client() as two:
        up.sim.faults.add(Kind.HANG, path=ROUTE, times=1)
        hasty = {"X-LLM-Timeout-Ms": "150", "X-LLM-Max-Wait-Ms": "200"}
        await one.ask("POST", ROUTE, call(ROUTE, "planner"), hasty)
        await up.sim.wait_for(lambda sim: any(sent.fault == "hang" for sent in sim.calls))
        await two.ask("POST", ROUTE, call(ROUTE, "planner", stream=True))
        answer = await one.answer()
        # The seat went to the second call; the first gets its own failure, not the line's.
        assert (answer.status, answer.json["error_code"]) == (504, "E_TIMEOUT_LOCAL")
        two.reset()
        await up.sim.wait_for(lambda sim: sim.active == 0)


@pytest.mark.parametrize(
    ("lines", "after"),
    [
        (("Retry-After: 25",), "25"),
        (("Retry-After: 86400",), "86400"),
        (
            ("Date: Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After: Sun, 06 Nov 1994 08:50:02 GMT"),
            "25",
        ),
        # What cannot be read is not told on.
        (("Retry-After: soon",), "2"),
        (("Retry-After: " + "9" * 40,), "2"),
        ((), "2"),
    ],
)
async def test_a_busy_upstream_says_when_to_come_back(lines: tuple[str, ...], after: str) -> None:
    busy = response(b'{"error":"busy"}', *lines, status="503 Busy")
    async with scripted(busy) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
            assert (answer.status, answer.phrase) == (503, "Busy")
            assert answer.all("Retry-After") == [after]
            assert len(upstream.asked) == 2


def test_the_stand_in_has_every_model_of_the_table() -> None:
    assert {name for row in ROWS for name in row[1:]} <= {spec.name for spec in DEFAULT_MODELS}


# Calls that hang on one model: another would answer something else.
VECTORS = ("/api/embed", "/api/embeddings", "/v1/embeddings")
BOUND: list[tuple[str, dict[str, Any]]] = [
    *((route, {}) for route in VECTORS),
    (ROUTE, {"context": [1, 2, 3]}),
    (ROUTE, {"CONTEXT": [1]}),
    (ROUTE, {"context": list(range(1000, 80_000))}),
    (ROUTE, {"raw": True}),
    (ROUTE, {"template": "<|im_start|>{{ .Prompt }}"}),
]
FREE: list[tuple[str, dict[str, Any]]] = [
    (ROUTE, {"context": [], "raw": False, "template": ""}),
    (ROUTE, {"context": None}),
    ("/api/chat", {"context": [1]}),
]


@pytest.mark.parametrize(("route", "more"), BOUND)
@pytest.mark.parametrize("headers", [{}, {"X-LLM-Retry-Level": "1"}], ids=["plain", "level"])
async def test_what_is_bound_to_a_model_is_asked_of_no_other(
    route: str, more: dict[str, Any], headers: dict[str, str]
) -> None:
    failed = response(b'{"error":"oh"}', status="500 Oh")
    async with scripted(failed) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", route, call(route, "planner", **more), headers)
            assert (answer.status, answer["X-LLM-Model"]) == (500, "qwen3:4b")
            assert (answer["X-LLM-Attempt"], answer["X-LLM-Fallback-Used"]) == ("1", "false")
            assert len(upstream.asked) == 1
            [record] = await up.calls.wait()
            assert decisions.why_no_fallback(record) == "bound"


@pytest.mark.parametrize(("route", "more"), FREE)
async def test_what_looks_bound_and_is_not_falls_back(route: str, more: dict[str, Any]) -> None:
    async with running(WARM) as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, status=500, model="qwen3:4b")
        answer = await client.request("POST", route, call(route, "planner", **more))
        assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")


@pytest.mark.parametrize(("route", "more"), [BOUND[0], BOUND[2], BOUND[3]])
async def test_what_is_bound_takes_no_arm_and_prefers_no_loaded_model(
    route: str, more: dict[str, Any]
) -> None:
    arms = {
        "planner": {
            "role": "PLANNER",
            "enabled": True,
            "sticky": "request",
            "arms": [{"name": "large", "model": "gemma3:12b", "weight": 1}],
        }
    }
    overlay = {
        "roles": {"PLANNER": {"prefer_resident_fallback": True}},
        "experiments": [{"name": name, **row} for name, row in arms.items()],
    }
    async with running(WARM, overlay) as up, up.client() as client:
        await warm(up, "qwen3:8b")
        answer = await client.request("POST", route, call(route, "planner", **more))
        assert answer["X-LLM-Model"] == "qwen3:4b"
        assert answer.get("X-LLM-Variant") is None
