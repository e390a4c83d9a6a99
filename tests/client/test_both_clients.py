"""What the sync and the async client do alike, in both dialects, against a real proxy."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pydantic
import pytest

from modelsplit_client import (
    AsyncClient,
    BadRequestError,
    BudgetNotApprovedError,
    CallError,
    CallOptions,
    Client,
    ForbiddenError,
    ModelNotFoundError,
    OverloadThrottledError,
    ProxyConnectionError,
    ProxyTimeoutError,
    SchemaInvalidError,
    StreamBrokenError,
    UnauthorizedError,
    UnreachableError,
    UpstreamError,
)
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.limits.client_keys import Key, Keyring, digest_of
from modelsplit_sim.config import SimConfig
from support.clients import DIALECTS, KINDS, ask, closing, pieces, text
from support.harness import running
from support.ports import kept_port
from support.scripted import response, scripted

SIM = SimConfig(tokens=5, max_loaded=8, num_parallel=8)
HELLO = [{"role": "user", "content": "What next?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
Make = Callable[[str], Client | AsyncClient]


class Plan(pydantic.BaseModel):
    goal: str
    steps: list[str]


@pytest.fixture(params=[(kind, dialect) for kind in KINDS for dialect in DIALECTS], ids=str)
def make(request: pytest.FixtureRequest) -> Make:
    kind, dialect = request.param
    return lambda url: kind(url, dialect=dialect)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Client | AsyncClient]:
    found: type[Client | AsyncClient] = request.param
    return found


async def test_a_prompt_is_answered_and_the_answer_says_what_was_done(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        answer = await ask(client, "generate", "What next?", "PLANNER", request_id="mine")
        [record] = await up.calls.wait()
    told = answer.telemetry
    assert answer.text
    assert (answer.parsed, answer.finish) == (None, "stop")
    assert answer.message == {"role": "assistant", "content": answer.text}
    assert (told.request_id, told.role, told.context) == ("mine", "PLANNER", "PLANNER")
    assert (told.model, told.attempt, told.fallback_used) == ("qwen3:4b", 1, False)
    assert (told.route_reason, told.provider, told.output_tokens) == ("header", "LOCAL", 5)
    assert told.queue_wait_ms is not None
    assert told.total_ms is not None
    assert (told.cost_usd, told.error_code) == (record.cost_usd, None)
    assert (record.routing and record.routing.role, record.outcome) == (Role.PLANNER, "ok")


async def test_the_retry_level_is_the_third_argument(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        answer = await ask(client, "generate", "What next?", "planner", 1)
    assert (answer.telemetry.model, answer.telemetry.fallback_used) == ("qwen3:8b", True)


async def test_a_chat_goes_on_with_what_was_said(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        first = await ask(client, "chat", HELLO, "EXECUTOR", system="Be brief.", tools=[TOOL])
        [call] = first.tool_calls
        done = {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": call.id}
        again = [*HELLO, first.message, done]
        second = await ask(client, "chat", again, "EXECUTOR", tools=[TOOL])
    assert (call.name, call.arguments) == ("weather", {"city": "some city"})
    assert (second.tool_calls, bool(second.text)) == ((), True)


@pytest.mark.parametrize("method", ["generate", "chat"])
async def test_structured_output_is_an_instance_or_a_value(make: Make, method: str) -> None:
    asked: Any = "Plan." if method == "generate" else HELLO
    async with running(SIM) as up, closing(make(up.url)) as client:
        plan = await ask(client, method, asked, "PLANNER", schema=Plan)
        value = await ask(client, method, asked, "PLANNER", schema=Plan.model_json_schema())
    assert plan.parsed == Plan(goal="some goal", steps=["some steps"])
    assert value.parsed == {"goal": "some goal", "steps": ["some steps"]}


async def test_every_word_of_a_call_reaches_the_proxy_and_none_ollama(make: Make) -> None:
    options: CallOptions = {
        "model": "qwen3:4b",
        "escalate": "failure_analysis",
        "llm_context": "EXECUTOR",
        "job_id": "build-17",
        "fallback": False,
        "max_wait": 3.0,
        "timeout": 30.0,
        "headers": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    }
    async with running(SIM) as up, closing(make(up.url)) as client:
        answer = await ask(client, "generate", "What next?", "EXECUTOR", **options)
        [record] = await up.calls.wait()
        [asked] = [call for call in up.asked if call.model == answer.telemetry.model]
    assert answer.telemetry.role == "HEAVY"
    assert (record.job_id, record.asked.no_fallback) == ("build-17", True)
    names = {name.lower() for name, _ in asked.headers}
    assert not {name for name in names if name.startswith("x-llm")}
    assert "traceparent" in names


# -- streams -------------------------------------------------------------------------------------


async def test_a_stream_comes_in_pieces_and_ends_as_an_answer(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        stream = client.stream("What next?", "EXECUTOR")
        assert stream.text == ""
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = stream.answer
        found = await pieces(stream)
        whole = await ask(client, "generate", "What next?", "EXECUTOR")
        record, _ = await up.calls.wait(2)
    assert len(found) == 5
    assert text(found) == stream.text == stream.answer.text == whole.text
    told = stream.answer.telemetry
    assert (told.model, told.output_tokens, told.cost_usd) == ("qwen3:8b", 5, record.cost_usd)
    assert (stream.answer.finish, record.outcome) == ("stop", "ok")


async def test_a_stream_can_be_read_at_once(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        plan = client.stream("Plan.", "PLANNER", schema=Plan)
        call = client.stream_chat(HELLO, "EXECUTOR", tools=[TOOL])
        await pieces(plan)
        await pieces(call)
    assert plan.answer.parsed == Plan(goal="some goal", steps=["some steps"])
    assert [each.name for each in call.answer.tool_calls] == ["weather"]


async def test_leaving_a_stream_early_ends_the_call(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        up.sim.faults.add("stall", after=2)
        stream = client.stream("What next?", "EXECUTOR")
        assert len(await pieces(stream, leave_after=1)) == 1
        [record] = await up.calls.wait()
        await up.until(lambda: up.seats() == (0, 0))
    assert record.failure is not None
    assert (record.failure.code, record.failure.reason) == ("E_CLIENT_GONE", "streaming")


async def test_a_refused_stream_raises_before_its_first_piece(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        stream = client.stream("What next?", "CLOUD")
        with pytest.raises(BudgetNotApprovedError):
            await pieces(stream)
        assert up.asked == []


async def test_an_error_inside_a_stream_is_raised_as_what_it_is(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        up.sim.faults.add("cut_rst", after=2)
        stream = client.stream("What next?", "EXECUTOR")
        with pytest.raises(StreamBrokenError) as caught:
            await pieces(stream)
        [record] = await up.calls.wait()
    error = caught.value
    assert record.failure is not None
    assert str(error) == record.failure.message
    assert (error.error_code, error.reason) == (record.failure.code, record.failure.reason)
    assert (error.llm_role, error.llm_model, error.llm_attempt) == ("EXECUTOR", "qwen3:8b", 1)
    assert error.request_id == record.request_id
    assert error.text == stream.text


async def test_ollamas_own_line_of_an_error_is_one_too(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        up.sim.faults.add("error_line", after=2)
        with pytest.raises(StreamBrokenError) as caught:
            await pieces(client.stream("What next?", "EXECUTOR"))
        [record] = await up.calls.wait()
    # On /v1 Ollama itself loses the words of its error, and only the end marker is missing.
    failure, error = record.failure, caught.value
    assert failure is not None
    assert error.reason in {"error_line", "unterminated"}
    assert (error.error_code, error.request_id) == (failure.code, record.request_id)


async def test_a_connection_that_breaks_inside_a_stream_is_a_broken_stream(
    kind: type[Client | AsyncClient],
) -> None:
    line = b'{"response":"Yes","done":false}\n'
    head = b"HTTP/1.1 200 OK\r\nX-LLM-Role: PLANNER\r\nContent-Length: 999\r\n\r\n"
    async with scripted(head + line, hang_up=True) as server, closing(kind(server.url)) as client:
        stream = client.stream("What next?", "PLANNER")
        with pytest.raises(StreamBrokenError) as caught:
            await pieces(stream)
    assert (caught.value.reason, caught.value.llm_role) == ("truncated", "PLANNER")
    assert caught.value.text == stream.text == "Yes"


# -- errors --------------------------------------------------------------------------------------


ONE_SEAT = {"roles": {"HEAVY": {"max_concurrent": 1, "max_queue": 0}}}


async def test_refusals_are_the_exceptions_of_their_families(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        with pytest.raises(BadRequestError, match='"BOSS" is unknown; use one of PLANNER') as bad:
            await ask(client, "generate", "What next?", "BOSS")
        with pytest.raises(BudgetNotApprovedError) as cloud:
            await ask(client, "generate", "What next?", "CLOUD")
        with pytest.raises(ModelNotFoundError, match="'nope' not found") as missing:
            await ask(client, "generate", "What next?", "", model="nope")
    assert (bad.value.reason, bad.value.status) == ("unknown_role", 400)
    assert (cloud.value.reason, cloud.value.llm_provider) == ("no_approval", "CLOUD")
    assert (missing.value.reason, missing.value.llm_model) == ("not_installed", "nope")
    assert all(caught.value.should_retry is False for caught in (bad, cloud, missing))


async def test_a_throttled_call_says_when_to_come_again(make: Make) -> None:
    async with running(SIM, ONE_SEAT) as up, closing(make(up.url)) as client, up.client() as busy:
        up.sim.faults.add("hang", model="gemma3:12b", path="/api/generate", times=1)
        await busy.ask("POST", "/api/generate", {"model": "heavy", "prompt": "hold"})
        await up.until(lambda: up.seats() == (1, 0))
        with pytest.raises(OverloadThrottledError, match="retry in") as caught:
            await ask(client, "generate", "What next?", "HEAVY")
    assert (caught.value.reason, caught.value.llm_role) == ("queue_full", "HEAVY")
    assert (caught.value.retry_after or 0) >= 1


async def test_failures_of_ollamas_are_told_apart(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        up.sim.faults.add("status", status=500, body="the runner died")
        with pytest.raises(UpstreamError, match="the runner died") as failed:
            await ask(client, "generate", "What next?", "CHAT", model="qwen3:4b")
    assert (failed.value.error_code, failed.value.status) == ("E_UPSTREAM_LOCAL", 500)


async def test_an_ollama_that_is_not_there_is_told_apart_from_modelsplit(make: Make) -> None:
    with kept_port() as port:
        gone = Address("127.0.0.1", port)
        async with running(upstream=gone) as up, closing(make(up.url)) as client:
            with pytest.raises(UnreachableError) as caught:
                await ask(client, "generate", "What next?", "PLANNER")
    assert caught.value.reason == "connect_refused"


async def test_an_answer_that_does_not_fit_twice_is_modelsplits_error(make: Make) -> None:
    async with running(SIM) as up, closing(make(up.url)) as client:
        up.sim.faults.add("bad_schema")
        with pytest.raises(SchemaInvalidError) as caught:
            await ask(client, "generate", "Plan.", "PLANNER", schema=Plan)
    assert (caught.value.status, caught.value.llm_attempt) == (502, 2)


async def test_and_where_the_role_does_not_validate_the_clients_own(make: Make) -> None:
    careless = {"roles": {"EXECUTOR": {"validate": False}}}
    async with running(SIM, careless) as up, closing(make(up.url)) as client:
        up.sim.faults.add("bad_schema")
        with pytest.raises(SchemaInvalidError, match="the answer is no Plan") as caught:
            await ask(client, "generate", "Plan.", "EXECUTOR", schema=Plan)
        with pytest.raises(SchemaInvalidError):
            await pieces(client.stream("Plan.", "EXECUTOR", schema=Plan))
    assert (caught.value.status, caught.value.text) == (200, '{"unexpected": true}')
    assert (caught.value.llm_model, caught.value.llm_attempt) == ("qwen3:8b", 1)


async def test_what_the_policy_lets_pass_is_marked(make: Make) -> None:
    lenient = {"roles": {"PLANNER": {"on_schema_failure": "pass"}}}
    async with running(SIM, lenient) as up, closing(make(up.url)) as client:
        up.sim.faults.add("bad_schema")
        schema = Plan.model_json_schema()
        answer = await ask(client, "generate", "Plan.", "PLANNER", schema=schema)
    assert answer.parsed == {"unexpected": True}
    assert answer.telemetry.error_code == "E_SCHEMA_INVALID"


async def test_a_key_is_sent_where_one_is_wanted(kind: type[Client | AsyncClient]) -> None:
    ring = Keyring([Key("laptop", digest_of("ms-key"), frozenset({Role.CHAT, Role.PLANNER}))])
    async with running(SIM, keyring=ring) as up:
        async with closing(kind(up.url)) as client:
            with pytest.raises(UnauthorizedError):
                await ask(client, "generate", "What next?", "PLANNER")
        async with closing(kind(up.url, api_key="ms-key")) as client:
            assert (await ask(client, "generate", "What next?", "PLANNER")).text
            with pytest.raises(ForbiddenError):
                await ask(client, "generate", "What next?", "HEAVY")


async def test_an_ollama_alone_answers_too(make: Make) -> None:
    async with running(SIM) as up, closing(make(f"http://127.0.0.1:{up.sim.port}")) as client:
        answer = await ask(client, "generate", "What next?", "PLANNER", model="qwen3:4b")
        with pytest.raises(CallError) as caught:
            await ask(client, "generate", "What next?", "PLANNER")
    assert (answer.telemetry.model, answer.telemetry.role) == ("qwen3:4b", None)
    assert type(caught.value) is CallError
    assert caught.value.error_code is None


async def test_nobody_there_is_said_with_the_address(kind: type[Client | AsyncClient]) -> None:
    with kept_port() as port:
        url = f"http://127.0.0.1:{port}"
        async with closing(kind(url)) as client:
            with pytest.raises(ProxyConnectionError, match=f"modelsplit at {url} does not answer"):
                await ask(client, "generate", "What next?", "PLANNER")


async def test_silence_is_bounded_by_the_clients_own_timeout(
    kind: type[Client | AsyncClient],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with closing(kind(url, read_timeout=0.01)) as client:
            with pytest.raises(ProxyTimeoutError, match=r"is silent \(5 s to connect, 0\.01 s"):
                await ask(client, "generate", "What next?", "PLANNER")


@pytest.mark.parametrize("body", [b"<html>hello</html>", b'{"status":"ok"}'])
async def test_another_server_is_no_answer(kind: type[Client | AsyncClient], body: bytes) -> None:
    async with scripted(response(body)) as server, closing(kind(server.url)) as client:
        with pytest.raises(UpstreamError, match="gave no answer of that route"):
            await ask(client, "generate", "What next?", "PLANNER")


async def test_an_answer_cut_before_its_end_is_no_answer(kind: type[Client | AsyncClient]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"
    async with scripted(head, hang_up=True) as server, closing(kind(server.url)) as client:
        with pytest.raises(ProxyConnectionError):
            await ask(client, "generate", "What next?", "PLANNER")


# -- busy ----------------------------------------------------------------------------------------

REFUSED = response(
    b'{"error":"overloaded","error_code":"E_OVERLOAD_THROTTLED","reason":"queue_full"}',
    *("Retry-After: 0", "X-LLM-Error-Code: E_OVERLOAD_THROTTLED"),
    status="503 Queue Full",
)
DONE = response(b'{"response":"Yes","done":true,"done_reason":"stop"}')


@pytest.mark.parametrize("of", ["call", "client"])
async def test_a_busy_modelsplit_is_asked_again_where_that_is_wanted(
    kind: type[Client | AsyncClient], of: str
) -> None:
    async with scripted(REFUSED, REFUSED, DONE) as server:
        url = server.url
        if of == "call":
            client, options = kind(url), {"wait_if_busy": 60.0}
        else:
            client, options = kind(url, wait_if_busy=60.0), {}
        async with closing(client):
            assert (await ask(client, "generate", "What next?", "PLANNER", **options)).text == "Yes"
    assert len(server.asked) == 3


async def test_and_asked_once_where_it_is_not(kind: type[Client | AsyncClient]) -> None:
    refused = REFUSED.replace(b"Retry-After: 0", b"Retry-After: 1")
    async with scripted(refused) as server, closing(kind(server.url)) as client:
        with pytest.raises(OverloadThrottledError):
            await ask(client, "generate", "What next?", "PLANNER")
        with pytest.raises(OverloadThrottledError):
            await ask(client, "generate", "What next?", "PLANNER", wait_if_busy=0.9)
    assert len(server.asked) == 2


# -- jobs that cannot be reported ----------------------------------------------------------------


async def test_a_job_goes_on_where_nobody_takes_its_reports(
    kind: type[Client | AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    with kept_port() as port:
        admin = f"http://127.0.0.1:{port}"
        async with running(SIM) as up, closing(kind(up.url, admin_url=admin)) as client:
            for _ in range(2):
                assert (await worked(client)).text
            records = await up.calls.wait(2)
    assert [record.job_id for record in records] == ["build-17", "build-17"]
    [warning] = [record for record in caplog.records if record.name == "modelsplit_client"]
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith(f"job reports do not reach {admin} (")


async def worked(client: Client | AsyncClient) -> Any:
    """A job with a tool and a call: what the call gave."""
    if isinstance(client, Client):
        return await asyncio.to_thread(_worked, client)
    async with client.job("build-17") as job:
        async with job.tool("grep"):
            pass
        return await job.generate("What next?", "PLANNER")


def _worked(client: Client) -> Any:
    with client.job("build-17") as job:
        with job.tool("grep"):
            pass
        return job.generate("What next?", "PLANNER")


async def test_a_report_that_is_refused_is_said_once_for_each_status(
    kind: type[Client | AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    refused = response(b'{"error":"no key"}', status="403 Forbidden")
    async with running(SIM) as up, scripted(refused) as admin:
        url = f"http://127.0.0.1:{admin.port}"
        async with closing(kind(up.url, admin_url=url, api_key="ms-key")) as client:
            await worked(client)
            await worked(client)
    said = [record.getMessage() for record in caplog.records if record.name == "modelsplit_client"]
    assert len(admin.asked) == 6
    assert all(b"authorization: bearer ms-key" in head.lower() for head in admin.asked)
    assert said == [f"{url} refused a job report (403): no key"]


@pytest.mark.parametrize("job_id", ["", "a b", "a/b", "x" * 129, "ü"])
def test_an_id_that_modelsplit_refuses_is_refused_here(
    kind: type[Client | AsyncClient], job_id: str
) -> None:
    with pytest.raises(ValueError, match="a job's id is 1 to 128"):
        kind().job(job_id)
